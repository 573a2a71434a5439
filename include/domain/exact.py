"""Decimal arithmetic that raises rather than rounds.

Python's default context keeps 28 digits; a quote volume of a cheap symbol with huge volumes
needs more (a 12-digit volume with 8 decimals times a price with 8 decimals, summed over a
month). Sixty digits hold every product and sum of the exchange; the ``Inexact`` trap turns
the first lost digit into an error.
"""

from __future__ import annotations

from decimal import Clamped, Context, Decimal, Inexact, InvalidOperation, Overflow, Underflow

EXACT = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow, Underflow, Clamped])

ZERO = Decimal(0)

multiply = EXACT.multiply
"""Exact product of two decimals."""

add = EXACT.add
"""Exact sum of two decimals."""

subtract = EXACT.subtract
"""Exact difference of two decimals."""

multiply_add = EXACT.fma
"""``a × b + c`` in one exact step."""
