"""Attempts until a timeout, with a fake clock."""

from __future__ import annotations

import pytest

from deploy.local import polling
from deploy.local.polling import attempts


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(polling, "time", made)
    return made


def test_last_attempt_follows_the_timeout(clock: Clock) -> None:
    assert [clock.now_s for _ in attempts(2.0, interval_s=0.75)] == [0.0, 0.75, 1.5, 2.25]


def test_there_is_one_attempt_if_the_time_is_over(clock: Clock) -> None:
    for _ in attempts(1.0, interval_s=0.5):
        clock.now_s += 5
    assert clock.now_s == 5
