"""Counts in messages have a noun that fits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.counts import counted

ROOT = Path(__file__).parents[3]
NOUNS = (
    "accounts|bars|bytes|candles|characters|columns|connections|days|differences|errors|fields|"
    "files|gaps|groups|hard links|items|listings|minutes|outages|partitions|pieces|readers|"
    "requests|results|rows|rules|streams|symbols|tasks|tokens|trades|warnings"
)
COUNT_AND_NOUN = re.compile(rf"\{{(?P<count>[^{{}}]+)\}} (?:more |new )?(?:{NOUNS})\b")
KNOWN_COUNT = re.compile(  # more than one in these places, or no count
    r"[A-Z_0-9]+(:,)?|.*\.max_per_client:,|self\._limit\.per_minute:,|max_minutes:,|size|"
    r"market|one\.market|timeframe\.name|width_us // MINUTE_US|least // MINUTE_US|"
    r"window / timedelta\(days=1\):g|len\((symbols|places|inside|request\.symbols|names?)\)(:,)?|"
    r"status\.st_nlink"
)


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


def test_messages_count_by_the_one_function() -> None:
    """``f"{count} rows"`` says "1 rows"; constants are known to be more than one."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for room in ("cli", "dags", "include", "serving", "streamer")
        for path in (ROOT / room).rglob("*.py")
        for match in COUNT_AND_NOUN.finditer(path.read_text(encoding="utf-8"))
        if not KNOWN_COUNT.fullmatch(match["count"])
    ]
    assert found == []
