"""Candelabra: the exchange's candles in PostgreSQL."""

__version__ = "0.1.0"
