"""The retry policy."""

from __future__ import annotations

from datetime import timedelta

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
