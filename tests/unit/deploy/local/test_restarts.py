"""A service that died is started again, later each time, and not for ever."""

from __future__ import annotations

import pytest

from deploy.local.restarts import MAX_QUICK_DEATHS, QUICK_DEATH_S, Restarter
from include.backoff import Backoff


class Fragile:
    """Ends on request."""

    name = "streamer"

    def __init__(self) -> None:
        self.is_up = True
        self.hopeless = False
        self.starts = 0
        self.cannot_start = False

    def ended(self) -> str | None:
        return None if self.is_up else "streamer was killed by SIGKILL; end of its.log:\nout"

    def is_hopeless(self) -> bool:
        return self.hopeless

    def start_again(self) -> None:
        self.starts += 1
        if self.cannot_start:
            raise OSError("no memory")
        self.is_up = True


class Stage:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.service = Fragile()
        self.restarter = Restarter(
            self.service,
            backoff=Backoff(1.0, 30.0, uniform=lambda _least, most: most),
            clock=lambda: self.now_s,
        )

    def die(self) -> float:
        """Let the service end; return the seconds until it is started again."""
        before, self.service.is_up = self.now_s, False
        for _ in range(1_000):
            self.restarter.keep()
            if self.service.is_up or self.restarter.given_up:
                break
            self.now_s += 0.5
        return self.now_s - before


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_running_service_is_left_alone(stage: Stage) -> None:
    for _ in range(10):
        stage.restarter.keep()
        stage.now_s += 1
    assert stage.service.starts == 0


def test_each_quick_death_doubles_the_wait_until_it_is_given_up(stage: Stage) -> None:
    assert [stage.die() for _ in range(MAX_QUICK_DEATHS - 1)] == [1, 2, 4, 8]
    assert stage.restarter.given_up == ""
    stage.die()
    assert stage.restarter.given_up.startswith(
        "streamer ended 5 times, each within 60 s of its start, and is not started again."
    )
    assert "streamer was killed by SIGKILL; end of its.log:\nout" in stage.restarter.given_up
    starts = stage.service.starts
    stage.now_s += 10_000
    stage.restarter.keep()
    assert stage.service.starts == starts == MAX_QUICK_DEATHS - 1


def test_long_life_forgets_earlier_deaths(stage: Stage) -> None:
    for _ in range(3 * MAX_QUICK_DEATHS):
        assert stage.die() == 1
        stage.now_s += QUICK_DEATH_S
    assert stage.restarter.given_up == ""


def test_hopeless_service_is_given_up_at_once(stage: Stage) -> None:
    stage.service.hopeless = True
    stage.die()
    assert stage.service.starts == 0
    assert stage.restarter.given_up.startswith("streamer was killed by SIGKILL")


def test_start_that_fails_counts_as_a_death(stage: Stage) -> None:
    stage.service.cannot_start = True
    stage.die()
    assert stage.service.starts == MAX_QUICK_DEATHS - 1
    assert stage.restarter.given_up.endswith("streamer could not be started: no memory")


def test_waits_have_jitter() -> None:
    stage = Stage()
    stage.restarter = Restarter(stage.service, clock=lambda: stage.now_s)
    stage.now_s += QUICK_DEATH_S
    waits = set()
    for _ in range(20):
        stage.service.is_up = False
        stage.restarter.keep()
        assert stage.restarter._start_at_s is not None
        waits.add(stage.restarter._start_at_s - stage.now_s)
        stage.now_s += 30
        stage.restarter.keep()
        stage.now_s += QUICK_DEATH_S
    assert len(waits) > 10
    assert all(0.5 <= wait <= 1.0 for wait in waits)
