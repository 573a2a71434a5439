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


def test_held_clock_runs_on_where_it_stopped_once_all_release_it() -> None:
    clock = SimulatedClock(start_us=0, speed=1_000)
    first, second = object(), object()
    clock.hold(first)
    held_us = clock.now_us()
    clock.hold(second)
    time.sleep(0.05)
    clock.release(first)
    clock.release(first)
    assert clock.now_us() == held_us
    clock.release(second)
    assert held_us <= clock.now_us() < held_us + 40 * SECOND_US
    time.sleep(0.002)
    assert clock.now_us() > held_us


def test_times_of_a_clock_that_was_held_convert_both_ways() -> None:
    clock = SimulatedClock(start_us=0, speed=1_000)
    seen = []
    for _ in range(3):
        time.sleep(0.002)
        seen.append((time.monotonic_ns(), clock.now_us()))
        clock.hold(clock)
        time.sleep(0.01)
        clock.release(clock)
    for moment_ns, time_us in seen:
        assert abs(clock.time_at(moment_ns) - time_us) < SECOND_US
        assert abs(clock.monotonic_at(time_us) - moment_ns) < 1_000_000
        assert abs(clock.time_at(moment_ns + 5_000_000) - time_us) < SECOND_US  # while it waited


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
