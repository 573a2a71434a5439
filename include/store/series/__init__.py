"""Derivative series in the database: the merge, coverage, and what is stored."""
