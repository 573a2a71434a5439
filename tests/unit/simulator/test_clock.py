"""The simulated clock."""

import math
import time
from datetime import UTC, datetime

import pytest

from simulator.clock import SECOND_US, SimulatedClock, from_us, to_us, wall_now_us


def test_stopped_clock_does_not_move() -> None:
    clock = SimulatedClock(start_us=5, speed=0)
    assert clock.now_us() == clock.now_us() == 5
    assert clock.seconds_until(6) == math.inf
    assert clock.seconds_until(5) == 0


def test_fast_clock_runs_by_its_factor() -> None:
    clock = SimulatedClock(start_us=0, speed=1_000)
    began = time.monotonic()
    while clock.now_us() < 10 * SECOND_US:
        time.sleep(0.001)
    assert 0.01 <= time.monotonic() - began < 5
    assert clock.real_seconds(SECOND_US) == 0.001


def test_default_is_the_wall_clock() -> None:
    assert abs(SimulatedClock().now_us() - wall_now_us()) < SECOND_US


@pytest.mark.parametrize("speed", [-1.0, math.inf, math.nan])
def test_impossible_speed_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        SimulatedClock(speed=speed)


def test_times_convert_both_ways_to_the_microsecond() -> None:
    moment = datetime(2025, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    assert from_us(to_us(moment)) == moment
    assert to_us(moment.replace(tzinfo=None)) == to_us(moment)
