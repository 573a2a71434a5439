"""Series of futures: mark, index and premium prices, funding, open interest, liquidations."""
