"""Counts in messages have a noun that fits."""

from __future__ import annotations

import pytest

from include.counts import counted


@pytest.mark.parametrize(
    ("count", "noun", "plural", "text"),
    [
        (0, "row", "", "0 rows"),
        (1, "row", "", "1 row"),
        (2_000, "row", "", "2,000 rows"),
        (1, "row lacks", "rows lack", "1 row lacks"),
        (2, "row lacks", "rows lack", "2 rows lack"),
    ],
)
def test_count_has_a_noun_that_fits(count: int, noun: str, plural: str, text: str) -> None:
    assert counted(count, noun, plural) == text
