"""The simulated market: any minute of any year, from a seed; pure, and the oracle."""
