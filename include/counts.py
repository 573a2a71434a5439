"""Counts with their noun, as messages and tables show them: ``1 row``, ``2,000 rows``."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count and its noun, in the singular for one.

    Args:
        noun: in the singular; may be several words: ``hard link``.
        plural: of nouns that do not just get an ``s``.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
