"""Faults on demand: their kinds, plans, and execution."""
