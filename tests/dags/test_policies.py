"""The retry policy and the conversion of task results."""

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
def test_only_transient_errors_are_retried(policies, error, action):
    assert decide(policies, error).action.value == action


def test_failed_dbt_build_is_retried(policies):
    from cosmos.exceptions import CosmosDbtRunError

    assert decide(policies, CosmosDbtRunError("connection lost")).action.value == "default"


def test_rate_limited_task_waits_as_long_as_the_exchange_asks(policies):
    decision = decide(policies, RateLimitedError("429", retry_after_s=42.0))
    assert decision.action.value == "retry"
    assert decision.retry_delay == timedelta(seconds=43)


@dataclass
class Inner:
    day: date
    at: datetime


@dataclass
class Outer:
    name: str
    rows: int
    inner: tuple[Inner, ...]


def test_results_become_json(policies):
    value = Outer("a", 1, (Inner(date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),))
    assert policies.as_json(value) == {
        "name": "a",
        "rows": 1,
        "inner": [{"day": "2024-01-01", "at": "2024-01-01T00:00:00+00:00"}],
    }


@pytest.mark.parametrize("value", [Decimal("1.5"), {1, 2}, object()])
def test_values_that_json_cannot_represent_are_rejected(policies, value):
    with pytest.raises(TypeError, match="must be plain JSON"):
        policies.as_json({"value": value})
