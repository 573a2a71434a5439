"""Checks of what Python writes, with Great Expectations; its only importer.

The marts have an owner of their own: dbt's data tests.
"""
