"""The trades of a symbol."""
