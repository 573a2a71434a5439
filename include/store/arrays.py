"""Columns of values as PostgreSQL's arrays, written as text.

The driver would look at each value of a list anew, and hold up the event loop three times as long.
"""

from __future__ import annotations

from collections.abc import Iterable


def array_of(values: Iterable[object]) -> str:
    """Numbers, times, flags and plain words; None is NULL."""
    return "{" + ",".join(["NULL" if one is None else f'"{one}"' for one in values]) + "}"


def array_of_names(names: Iterable[str]) -> str:
    """Text of any form."""
    return array_of([one.replace("\\", "\\\\").replace('"', '\\"') for one in names])
