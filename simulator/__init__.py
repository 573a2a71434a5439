"""A local Binance over one deterministic market; imports nothing of the rooms it tests."""
