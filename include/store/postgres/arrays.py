"""Format columns of values as text of PostgreSQL arrays.

If lists were passed, the driver would inspect each value again, which blocks the event loop three
times as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from include.domain.timeframes import from_us


def array_of(values: Iterable[object]) -> str:
    """Return the array of numbers, times, flags and single words; None is NULL."""
    return "{" + ",".join(["NULL" if one is None else str(one) for one in values]) + "}"


def array_of_names(names: Iterable[str]) -> str:
    """Return the array of arbitrary texts."""
    quoted = [one.replace("\\", "\\\\").replace('"', '\\"') for one in names]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def joined(arrays: Iterable[str]) -> str:
    """Join non-empty arrays into one."""
    return "{" + ",".join([one[1:-1] for one in arrays]) + "}"


@lru_cache(maxsize=64)
def moment_text(moment_us: int) -> str:
    """Format a time for PostgreSQL; cached, since rows written together mostly share it."""
    return str(from_us(moment_us))
