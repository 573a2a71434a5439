"""Recordings of the real exchange, served on the same addresses."""
