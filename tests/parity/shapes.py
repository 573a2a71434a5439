"""The structure of JSON without its values."""

from __future__ import annotations

import re
from typing import Any

DECIMAL = re.compile(r"-?\d+(?:\.(\d+))?\Z")


def kind_of(value: Any, *, is_time: bool, with_decimals: bool) -> str:
    """The kind of a scalar value.

    Args:
        is_time: integers are classified by their digits, which show the unit.
        with_decimals: numbers in quotes are classified by their decimal places.
    """
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return f"time of {len(str(value))} digits" if is_time else "integer"
    if not isinstance(value, str):
        return type(value).__name__
    found = DECIMAL.match(value)
    if found is None:
        return "text"
    return f"decimal of {len(found[1] or '')} places" if with_decimals else "decimal"
