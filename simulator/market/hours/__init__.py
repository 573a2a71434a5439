"""When a symbol trades: sessions, halts, delistings."""
