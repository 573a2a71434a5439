"""Retries, windows and results, as all DAGs share them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from include.errors import PermanentError, RateLimitedError, RejectedInputError, TransientError


def decide(policies, error):
    return policies.RetryTransient().evaluate(error, 1, 4)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (TransientError("database away"), "default"),
        (PermanentError("no such symbol"), "fail"),
        (RejectedInputError("corrupt archive"), "fail"),
        (TypeError("an error of ours"), "fail"),
    ],
)
def test_only_what_a_retry_can_help_is_retried(policies, error, action):
    assert decide(policies, error).action.value == action


def test_a_failed_dbt_build_is_retried(policies):
    from cosmos.exceptions import CosmosDbtRunError

    assert decide(policies, CosmosDbtRunError("connection lost")).action.value == "default"


def test_the_exchange_is_asked_again_when_it_said_so(policies):
    decision = decide(policies, RateLimitedError("429", retry_after_s=42.0))
    assert decision.action.value == "retry"
    assert decision.retry_delay == timedelta(seconds=43)


NOW = datetime(2026, 11, 21, 12, 34, 56, 789, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, ("2026-11-14T12:34", "2026-11-21T12:34")),
        (None, "2024-01-08T00:00:00Z", ("2024-01-01T00:00", "2024-01-08T00:00")),
        ("2024-01-01T00:00:00Z", None, ("2024-01-01T00:00", "2026-11-21T12:34")),
        ("2024-01-01T02:00:30+02:00", "2024-01-02", ("2024-01-01T00:00", "2024-01-02T00:00")),
    ],
)  # fmt: skip
def test_a_window_comes_from_the_form_or_ends_when_the_run_was_asked_for(
    policies, start, end, expected
):
    found = policies.window({"from": start, "to": end}, now=NOW, days=7)
    assert (found["start"], found["end"]) == tuple(
        datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in expected
    )


def test_a_time_without_a_zone_is_utc_and_a_date_is_its_midnight(policies):
    found = policies.window({"from": "2024-01-01", "to": "2024-01-01T10:00"}, now=NOW, days=7)
    assert found["start"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert found["end"] == datetime(2024, 1, 1, 10, tzinfo=UTC)


def test_an_empty_form_asks_for_what_changed_and_a_time_in_it_for_a_span(policies):
    assert policies.changes_or_window({"from": None, "to": None}, now=NOW) == {"scope": "changed"}
    end = datetime(2024, 1, 2, tzinfo=UTC)
    assert policies.changes_or_window({"from": None, "to": "2024-01-02"}, now=NOW) == {
        "scope": "window",
        "start": end - timedelta(days=1),
        "end": end,
    }


@pytest.mark.parametrize(
    ("start", "end", "complaint"),
    [
        ("2024-13-01", None, "from='2024-13-01'"),
        ("2024-01-02", "2024-01-01", "is empty"),
        ("2024-01-01", "2024-01-01", "is empty"),
    ],
)
def test_a_window_that_cannot_be_meant_is_refused(policies, start, end, complaint):
    with pytest.raises(PermanentError, match=complaint):
        policies.window({"from": start, "to": end}, now=NOW, days=7)


@dataclass
class Inner:
    day: date
    at: datetime


@dataclass
class Outer:
    name: str
    rows: int
    inner: tuple[Inner, ...]


def test_results_cross_xcom_as_json(policies):
    value = Outer("a", 1, (Inner(date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),))
    assert policies.as_json(value) == {
        "name": "a",
        "rows": 1,
        "inner": [{"day": "2024-01-01", "at": "2024-01-01T00:00:00+00:00"}],
    }


@pytest.mark.parametrize("value", [Decimal("1.5"), {1, 2}, object()])
def test_what_json_cannot_say_exactly_is_refused(policies, value):
    with pytest.raises(TypeError, match="XCom takes JSON"):
        policies.as_json({"value": value})
