"""Trading hours of a symbol: sessions, halts, delistings."""
