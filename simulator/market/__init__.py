"""The simulated market: any minute of any year, computed from a seed. Pure; the oracle of the
tests.
"""
