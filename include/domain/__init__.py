"""Market values and arithmetic: no I/O, no clock, standard library and polars only.

Times are integers, microseconds since 1970-01-01 UTC (names end in ``_us``). Prices and quantities
are ``Decimal``, never float.
"""
