"""The trades of a symbol: generation, and their columns."""
