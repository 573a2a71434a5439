"""Values in the text format of COPY."""

from __future__ import annotations

from functools import lru_cache

from include.domain.timeframes import from_us

NULL = "\\N"
"""NULL in COPY's text format."""

_THREE = [f"{number:03d}+00" for number in range(1_000)]


def moment_text(moment_us: int) -> str:
    """Format a time (µs); its first ten characters are the UTC day."""
    return _millisecond(moment_us // 1_000) + _THREE[moment_us % 1_000]


@lru_cache(maxsize=4_096)
def _millisecond(milliseconds: int) -> str:
    """Format a time without its microseconds; cached, since rows of a batch mostly share it."""
    at = from_us(milliseconds * 1_000)
    return f"{at:%Y-%m-%d %H:%M:%S}.{milliseconds % 1_000:03d}"
