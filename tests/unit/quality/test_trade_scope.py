"""How the days of changed trades are put together to be checked."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from include.quality.trade_scope import DATASETS, TradeChunk, packed

DAY = date(2026, 3, 2)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
END = MIDNIGHT + timedelta(hours=12)
BOTH = tuple(DATASETS)


def before_end(minutes: int) -> datetime:
    return END - timedelta(minutes=minutes)


def test_newest_minutes_of_many_symbols_are_one_chunk() -> None:
    changed = [(DAY, f"S{number}", before_end(5)) for number in range(1_500)]
    (chunk,), left = packed(changed, END)
    assert (chunk.day, chunk.datasets, left) == (DAY, BOTH, 0)
    assert chunk.since == {symbol: since for _, symbol, since in changed}


def test_full_days_are_limited_per_chunk_and_each_chunk_has_one_day() -> None:
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


def test_days_beyond_the_bound_are_counted_except_failing_ones() -> None:
    days = [DAY - timedelta(days=number) for number in range(1, 6)]
    changed = [(day, "A", MIDNIGHT - timedelta(days=40)) for day in days]
    broken = (days[-1], "B", None)
    work, left = packed([*changed, broken], END, chunk_days=1, max_days=3)
    assert left == 2
    assert [(chunk.day, *chunk.since) for chunk in work] == [
        *((day, "A") for day in days[:3]),
        (days[-1], "B"),
    ]


def test_trades_after_the_end_do_not_count() -> None:
    changed = [(DAY, "A", before_end(-60)), (DAY, "B", before_end(60))]
    work, left = packed(changed, END, chunk_days=1, max_days=1)
    assert (len(work), left) == (1, 0)
