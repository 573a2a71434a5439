"""The exchange's time, from frames and from the time since the last of them."""

from __future__ import annotations

import pytest

from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.exchange.clock import MIN_TICK_S, TICK_S, ExchangeClock, next_tick_s
from tests.unit.streamer.watched import Clock

T0 = 1_700_000_000 * SECOND_US


@pytest.fixture
def ours() -> Clock:
    return Clock()


def test_frames_set_the_clock_but_never_back(ours: Clock) -> None:
    clock = ExchangeClock(lag_s=10, clock_s=ours)
    assert clock.now_us(T0) == T0
    ours.now_s += 9
    assert clock.now_us(T0 + SECOND_US) == T0 + SECOND_US
    assert clock.now_us(T0) == T0 + SECOND_US


def test_clock_without_frames_advances_behind_by_the_lag(ours: Clock) -> None:
    clock = ExchangeClock(lag_s=10, clock_s=ours)
    assert clock.now_us(T0) == T0
    ours.now_s += 10
    assert clock.now_us(T0) == T0
    ours.now_s += 60.5
    assert clock.now_us(T0) == T0 + 60_500_000
    assert clock.now_us(T0 + 70 * SECOND_US) == T0 + 70 * SECOND_US


def test_time_is_unknown_before_the_first_frame(ours: Clock) -> None:
    clock = ExchangeClock(lag_s=0, clock_s=ours)
    ours.now_s += 100
    assert clock.now_us(0) == 0


def test_clock_can_start_before_the_first_frame(ours: Clock) -> None:
    clock = ExchangeClock(begin_us=T0, lag_s=10, clock_s=ours)
    ours.now_s += 25
    assert clock.now_us(0) == T0 + 15 * SECOND_US


def test_clock_is_held_after_a_new_connection(ours: Clock) -> None:
    clock = ExchangeClock(lag_s=10, clock_s=ours)
    clock.now_us(T0)
    ours.now_s += 600
    clock.hold()
    assert clock.now_us(T0) == T0
    ours.now_s += 9.9
    assert clock.now_us(T0) == T0
    ours.now_s += 0.1
    assert clock.now_us(T0) == T0 + 600 * SECOND_US


@pytest.mark.parametrize(
    ("before_s", "wait_s"),
    [
        (30, TICK_S),
        (0.011, 0.011),
        (0.0001, MIN_TICK_S),  # the exchange's clock may be that much late
        (0, MIN_TICK_S),
        (-0.001, TICK_S),
    ],
)
def test_next_tick_is_when_the_grace_of_a_minute_ends(before_s: float, wait_s: float) -> None:
    graces_us = [250_000, 1_000_000]
    for grace_us in graces_us:
        now_us = T0 // MINUTE_US * MINUTE_US + grace_us - int(before_s * SECOND_US)
        assert next_tick_s(now_us, graces_us) == pytest.approx(wait_s)
    assert next_tick_s(0, []) == TICK_S
