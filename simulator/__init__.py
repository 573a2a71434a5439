"""A local Binance over one deterministic market. Imports nothing of the code it tests."""
