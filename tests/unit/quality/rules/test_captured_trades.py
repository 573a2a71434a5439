"""How the days of changed trades are put together to be checked."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from include.quality.rules.captured_trades import DATASETS, TradeChunk, packed

DAY = date(2026, 3, 2)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
END = MIDNIGHT + timedelta(hours=12)
BOTH = tuple(DATASETS)


def before_end(minutes: int) -> datetime:
    return END - timedelta(minutes=minutes)


def test_the_newest_minutes_of_many_symbols_are_one_chunk() -> None:
    changed = [(DAY, f"S{number}", before_end(5)) for number in range(1_500)]
    (chunk,), left = packed(changed, END)
    assert (chunk.day, chunk.datasets, left) == (DAY, BOTH, 0)
    assert chunk.since == {symbol: since for _, symbol, since in changed}


def test_whole_days_are_some_at_a_time_and_each_chunk_is_of_one_day() -> None:
    before = DAY - timedelta(days=1)
    half = [(DAY, symbol, None) for symbol in "ABC"]
    whole = [(before, symbol, None) for symbol in "ABC"]
    work, left = packed([*half, *whole], END, chunk_days=2)
    assert left == 0
    assert work == [
        TradeChunk(DAY, BOTH, dict.fromkeys("ABC")),
        TradeChunk(before, BOTH, dict.fromkeys("AB")),
        TradeChunk(before, BOTH, dict.fromkeys("C")),
    ]


def test_what_is_beyond_the_bound_is_counted_and_broken_days_never_are() -> None:
    days = [DAY - timedelta(days=number) for number in range(1, 6)]
    changed = [(day, "A", MIDNIGHT - timedelta(days=40)) for day in days]
    broken = (days[-1], "B", None)
    work, left = packed([*changed, broken], END, chunk_days=1, max_days=3)
    assert left == 2
    assert [(chunk.day, *chunk.since) for chunk in work] == [
        *((day, "A") for day in days[:3]),
        (days[-1], "B"),
    ]


def test_trades_behind_the_end_take_no_room() -> None:
    changed = [(DAY, "A", before_end(-60)), (DAY, "B", before_end(60))]
    work, left = packed(changed, END, chunk_days=1, max_days=1)
    assert (len(work), left) == (1, 0)
