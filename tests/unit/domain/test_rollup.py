"""Rolling up takes prices from bars with trades alone, and sums exactly."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from include.domain.candles import Candle, silent_candle
from include.domain.rollup import join_bars, roll_up
from include.domain.timeframes import DAY_US, MINUTE_US, timeframe, to_us

START = to_us(datetime(2023, 3, 24, 12, tzinfo=UTC))


def bar(index: int, open_: str, high: str, low: str, close: str, *, first_id: int = 1) -> Candle:
    one = Decimal("1.5")
    return Candle(
        "BTCUSDT", START + index * MINUTE_US, Decimal(open_), Decimal(high), Decimal(low),
        Decimal(close), one, Decimal(3), 2, one, Decimal(3), first_id, first_id + 1,
    )  # fmt: skip


def test_silent_bar_gives_no_open_high_or_low() -> None:
    silent = silent_candle("BTCUSDT", START, Decimal("28080.00"))
    rolled = roll_up([silent, bar(1, "28079.99", "28079.99", "28000", "28010")], timeframe("4h"))
    assert [one.values[:4] for one in rolled] == [
        (Decimal("28079.99"), Decimal("28079.99"), Decimal(28000), Decimal(28010))
    ]


def test_silent_bar_after_a_gap_gives_no_close() -> None:
    """What was traded in the gap is not known, and no close lies above the high."""
    silent = silent_candle("BTCUSDT", START + 3 * MINUTE_US, Decimal(105))
    (joined,) = roll_up([bar(0, "100", "101", "99", "100.5"), silent], timeframe("5m"))
    assert joined.values[:4] == (Decimal(100), Decimal(101), Decimal(99), Decimal("100.5"))


def test_bars_that_are_all_silent_make_a_flat_bar_without_ids() -> None:
    silent = [silent_candle("X", START + i * MINUTE_US, Decimal(7)) for i in range(3)]
    assert roll_up(silent, timeframe("5m")) == [silent_candle("X", START, Decimal(7))]


def test_sums_counts_and_ids_span_the_bars_with_trades() -> None:
    bars = [
        bar(0, "10", "12", "9", "11", first_id=5),
        silent_candle("BTCUSDT", START + MINUTE_US, Decimal(11)),
        bar(2, "11", "14", "10", "13", first_id=7),
    ]
    joined = join_bars(bars, START)
    assert joined.values == (
        Decimal(10), Decimal(14), Decimal(9), Decimal(13), Decimal(3), Decimal(6), 4, Decimal(3),
        Decimal(6),
    )  # fmt: skip
    assert (joined.first_trade_id, joined.last_trade_id) == (5, 8)


def test_sum_keeps_digits_beyond_the_default_context() -> None:
    big = Candle(
        "X", START, *[Decimal(1)] * 4, Decimal(10**25), Decimal(10**25), 1, Decimal(0), Decimal(0)
    )
    tiny = Candle(
        "X", START + MINUTE_US, *[Decimal(1)] * 4, Decimal("1E-18"), Decimal("1E-18"), 1,
        Decimal(0), Decimal(0),
    )  # fmt: skip
    assert str(join_bars([big, tiny], START).volume) == "1" + "0" * 25 + "." + "0" * 17 + "1"


def test_each_bar_opens_at_the_start_of_its_timeframe() -> None:
    days = [
        silent_candle("X", to_us(datetime(2024, 2, 28, tzinfo=UTC)) + i * DAY_US, Decimal(1))
        for i in range(4)
    ]
    months = roll_up(days, timeframe("1M"))
    assert [one.open_time_us for one in months] == [
        to_us(datetime(2024, 2, 1, tzinfo=UTC)),
        to_us(datetime(2024, 3, 1, tzinfo=UTC)),
    ]


def test_bars_out_of_order_are_refused() -> None:
    bars = [bar(1, "1", "1", "1", "1"), bar(0, "1", "1", "1", "1")]
    with pytest.raises(ValueError, match="in order"):
        roll_up(bars, timeframe("5m"))
