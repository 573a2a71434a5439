"""Derivative series of futures: funding, mark, index and premium prices, open interest, ratios."""
