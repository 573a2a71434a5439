"""Quality rules for the tables that Python writes, checked by Great Expectations.

No other package imports Great Expectations. dbt's data tests check the marts.
"""
