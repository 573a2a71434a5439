from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import TypeAdapter, ValidationError

from include.domain.timeframes import to_us
from serving.http import parameters
from serving.http.parameters import EARLIEST_US, LATEST_US, cursor_of, parse_cursor
from serving.problems import Problem

NOON = to_us(datetime(2026, 11, 21, 12, tzinfo=UTC))
TIME: TypeAdapter[int] = TypeAdapter(parameters.TimeUs)
SYMBOLS: TypeAdapter[list[str]] = TypeAdapter(parameters.Symbols)


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """The value, or the reason for its refusal."""
    try:
        return call(), ""
    except Problem as problem:
        return None, problem.detail
    except ValidationError as error:
        (one,) = error.errors()
        return None, one["msg"]


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
def test_time_is_iso_8601_or_milliseconds(text: str) -> None:
    assert TIME.validate_python(text) == NOON


@given(some.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    found, reason = outcome(lambda: TIME.validate_python(text))
    assert reason if found is None else EARLIEST_US <= found < LATEST_US


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (parameters.TimeUs, "noon", "'noon' is no time; should be ISO 8601 such as"),
        (parameters.TimeUs, "999999999999999999", "must lie within the years 1 to 9999"),
        (parameters.Day, "{today}", "'{today}' is no day; should be such as 2026-11-21"),
        (parameters.TimeframeName, "7m", "unknown timeframe '7m'; known are 1m, 3m"),
        (parameters.MarketName, "xm", "'xm'; should be spot or um or cm"),
        (parameters.Symbols, [" ,"], "none given; should be one such as BTCUSDT"),
        (parameters.Symbols, [f"S{n}" for n in range(101)], "101 given; should be 100 at most"),
    ],
)
def test_wrong_value_is_refused_with_the_allowed_ones(
    kind: Any, value: object, reason: str
) -> None:
    found, why = outcome(lambda: TypeAdapter(kind).validate_python(value))
    assert found is None
    assert reason in why


@given(some.integers(0, 99), some.integers(EARLIEST_US, LATEST_US - 1))
def test_cursor_is_decoded_to_its_parts(place: int, time_us: int) -> None:
    assert parse_cursor(cursor_of(place, time_us), 2) == [place, time_us]


@given(some.text(max_size=60))
def test_any_other_cursor_is_refused(text: str) -> None:
    found, detail = outcome(lambda: parse_cursor(text, 2))
    assert detail.startswith("cursor: ") if found is None else len(found) == 2


def test_symbols_are_split_at_commas_and_deduplicated() -> None:
    names = SYMBOLS.validate_python(["BTCUSDT, ETHUSDT", "SOLUSDT", "BTCUSDT"])
    assert names == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    parameters.check_symbols(names, frozenset(names))
    with pytest.raises(Problem, match="did you mean BTCUSDT"):
        parameters.check_symbols(["BTCUSD"], frozenset(names))


def test_range_that_ends_before_it_begins_is_refused() -> None:
    parameters.check_range(NOON, None)
    parameters.check_range(NOON, NOON)
    with pytest.raises(Problem, match=r"^to: 2026-11-21T12:00:00\+00:00 lies before from, 2026"):
        parameters.check_range(NOON + 1, NOON)
