"""The order book of a symbol."""
