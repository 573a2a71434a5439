"""The simulated market, computed from a seed. Pure; the oracle of the tests."""
