"""Decimal arithmetic that raises instead of rounding.

Python's default context has 28 digits. A quote volume of a cheap symbol with huge volumes needs
more: a 12-digit volume with 8 decimals, times a price with 8 decimals, summed over a month. Sixty
digits suffice for every product and sum of the exchange; the ``Inexact`` trap turns the first lost
digit into an error.
"""

from __future__ import annotations

from decimal import Clamped, Context, Decimal, Inexact, InvalidOperation, Overflow, Underflow

EXACT = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow, Underflow, Clamped])

ZERO = Decimal(0)

multiply = EXACT.multiply
"""Return the exact product of two decimals."""

add = EXACT.add
"""Return the exact sum of two decimals."""

subtract = EXACT.subtract
"""Return the exact difference of two decimals."""

multiply_add = EXACT.fma
"""Return ``a × b + c`` exactly, in one step."""


_PRODUCT = Decimal(1).scaleb(-16)
_AMOUNT = Decimal(1).scaleb(-8)


def without_product_zeros(value: Decimal) -> Decimal:
    """Drop the last eight of sixteen decimals if they are zeros; return other values unchanged.

    Spot prices and quantities are printed with eight decimals, so their products have sixteen. The
    exchange prints eight. Comparing quanta costs a tenth of reading the exponent.
    """
    if not value.same_quantum(_PRODUCT):
        return value
    try:
        return EXACT.quantize(value, _AMOUNT)
    except Inexact:
        return value
