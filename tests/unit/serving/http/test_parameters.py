"""What requests ask for is checked before anybody is asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from include.domain.timeframes import to_us
from serving.http.parameters import (
    EARLIEST_US,
    LATEST_US,
    cursor_of,
    moment_us,
    parts_of,
    symbols,
)
from serving.problems import Problem

NOON = to_us(datetime(2026, 11, 21, 12, tzinfo=UTC))


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """What was found, or why not."""
    try:
        return call(), ""
    except Problem as problem:
        return None, problem.detail


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T12:00:00Z",
        "2026-11-21T12:00",
        "2026-11-21T13:00:00+01:00",
        "2026-11-21T13:00:00 01:00",
        str(NOON // 1_000),
    ],
)
def test_a_moment_is_iso_or_milliseconds(text: str) -> None:
    assert moment_us("from", text) == NOON


@given(some.text(max_size=40))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    found, detail = outcome(lambda: moment_us("from", text))
    assert detail.startswith("from: ") if found is None else EARLIEST_US <= found < LATEST_US


@given(some.integers(0, 99), some.integers(EARLIEST_US, LATEST_US - 1))
def test_a_cursor_gives_back_what_it_was_made_of(place: int, time_us: int) -> None:
    assert parts_of(cursor_of(place, time_us), 2) == [place, time_us]


@given(some.text(max_size=60))
def test_any_other_cursor_is_refused(text: str) -> None:
    found, detail = outcome(lambda: parts_of(text, 2))
    assert detail.startswith("cursor: ") if found is None else len(found) == 2


def test_symbols_come_by_comma_or_repeated_and_once() -> None:
    known = frozenset({"BTCUSDT", "ETHUSDT", "SOLUSDT"})
    assert symbols(["BTCUSDT, ETHUSDT", "SOLUSDT", "BTCUSDT"], known) == [
        "BTCUSDT",
        "ETHUSDT",
        "SOLUSDT",
    ]
    with pytest.raises(Problem, match="did you mean BTCUSDT"):
        symbols(["BTCUSD"], known)
