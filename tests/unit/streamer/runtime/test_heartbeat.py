"""When a work counts as stuck, by a clock that the test moves."""

from __future__ import annotations

from streamer.runtime.heartbeat import SLACK_S, Heartbeat


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_task_that_has_not_started_is_not_stuck() -> None:
    clock = Clock()
    pulse = Heartbeat(clock)
    clock.now_s += 1_000_000
    assert (pulse.overdue_s, pulse.is_stuck) == (0, False)


def test_announced_wait_is_not_stuck() -> None:
    clock = Clock()
    pulse = Heartbeat(clock)
    pulse.beat(60)
    clock.now_s += 60 + SLACK_S
    assert not pulse.is_stuck


def test_late_beat_is_overdue_until_the_next_one() -> None:
    clock = Clock()
    pulse = Heartbeat(clock)
    pulse.beat(60)
    clock.now_s += 60 + SLACK_S + 1
    assert pulse.is_stuck
    assert pulse.overdue_s == SLACK_S + 1
    pulse.beat()
    assert not pulse.is_stuck
