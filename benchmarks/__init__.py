"""Benchmarks: each prints ratios against a bare limit measured in the same run."""
