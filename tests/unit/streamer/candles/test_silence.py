"""How often is acted upon a stream that does not deliver."""

from __future__ import annotations

from include.domain.timeframes import MINUTE_US
from streamer.candles.silence import FailingMinutes, Silence, is_due


def test_silence_is_acted_on_immediately_then_less_often_without_end() -> None:
    due = [minutes for minutes in range(1, 100) if is_due(minutes)]
    assert due == [1, 2, 4, 8, 16, 32, 48, 64, 80, 96]


def test_due_failures_double_their_distance() -> None:
    failures = FailingMinutes()
    assert [failures.count() for _ in range(5)] == [True, True, False, True, False]
    assert failures.minutes == 5


def test_ranges_of_a_silence_cover_each_minute_once() -> None:
    silence = Silence()
    ranges = [silence.count(minute * MINUTE_US) for minute in range(10, 23)]
    ranges.append(silence.end())
    asked = [one for one in ranges if one is not None]
    minutes = [m // MINUTE_US for start, end in asked for m in range(start, end, MINUTE_US)]
    assert minutes == list(range(10, 23))
    assert len(asked) == 5
    assert silence.minutes == 0


def test_fully_requested_silence_leaves_no_minutes() -> None:
    silence = Silence()
    assert silence.count(0) == (0, MINUTE_US)
    assert silence.count(MINUTE_US) == (MINUTE_US, 2 * MINUTE_US)
    assert silence.end() is None


def test_second_silence_starts_over() -> None:
    silence = Silence()
    silence.count(0)
    silence.end()
    assert silence.count(7 * MINUTE_US) == (7 * MINUTE_US, 8 * MINUTE_US)
    assert silence.since_us == 7 * MINUTE_US
