"""Settings of the C library's heap for a long-lived process.

By default, when a large block is freed, glibc raises the size from which blocks are mapped
separately. Freed blocks between used ones then stay in the heap: with 1,500 symbols, megabytes more
each minute.
"""

from __future__ import annotations

import ctypes

LARGE_BYTES = 64 * 1024
"""Larger blocks are mapped separately, and unmapped when they are freed."""
TOP_BYTES = 128 * 1024
"""Free memory that may stay at the end of the heap."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def return_freed_memory() -> None:
    """Return freed memory to the system; does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TOP_BYTES)
