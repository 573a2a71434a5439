"""Quality rules for what Python writes, checked by Great Expectations; its only importer.

The marts are checked by dbt's data tests.
"""
