"""The columnar aggregation and roll-up equal their row-by-row twins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.candle_builder import CandleBuilder
from include.domain.candles import Candle, Source, Status, silent_candle
from include.domain.columns.candles import (
    CANDLE_SCHEMA,
    OFFER_SCHEMA,
    TRADE_SCHEMA,
    aggregate_trades,
    as_candidates,
    bar_time,
    from_candles,
    ranges_in,
    roll_up,
    to_candles,
)
from include.domain.ranges import ranges_of
from include.domain.rollup import roll_up as roll_up_rows
from include.domain.timeframes import DAY_US, MINUTE_US, TIMEFRAMES, from_us, minute_of, to_us

START = to_us(datetime(2024, 2, 28, 23, 50, tzinfo=UTC))

prices = st.decimals("0.00000001", "99999.99", places=8)
quantities = st.decimals("0.00000001", "1e12", places=8)


@dataclass(frozen=True)
class Fill:
    trade_time_us: int
    price: Decimal
    quantity: Decimal
    is_buyer_maker: bool
    first_trade_id: int
    last_trade_id: int


@st.composite
def tapes(draw: st.DrawFn) -> list[Fill]:
    time_us, last_id, fills = START, draw(st.integers(0, 10**10)), []
    for _ in range(draw(st.integers(1, 12))):
        time_us += draw(st.integers(0, 90_000_000))
        count = draw(st.integers(1, 5))
        fills.append(
            Fill(
                time_us, draw(prices), draw(quantities), draw(st.booleans()), last_id + 1,
                last_id + count,
            )
        )  # fmt: skip
        last_id += count
    return fills


def frame_of(fills: list[Fill]) -> pl.DataFrame:
    rows = [
        (
            from_us(one.trade_time_us),
            format(one.price, "f"),
            format(one.quantity, "f"),
            one.is_buyer_maker,
            one.first_trade_id,
            one.last_trade_id,
        )
        for one in fills
    ]
    return pl.DataFrame(rows, schema=TRADE_SCHEMA, orient="row")


@given(tapes(), st.randoms())
def test_aggregation_in_any_order_equals_the_builder(fills: list[Fill], rng) -> None:
    builders: dict[int, CandleBuilder] = {}
    for fill in fills:
        minute = minute_of(fill.trade_time_us)
        builders.setdefault(minute, CandleBuilder("X", minute)).add(fill)
    shuffled = list(fills)
    rng.shuffle(shuffled)
    aggregated = to_candles(aggregate_trades(frame_of(shuffled), symbol="X"))
    assert aggregated == [builders[minute].candle() for minute in sorted(builders)]


def test_rounded_quote_amounts_are_summed_unchanged() -> None:
    fill = Fill(START, Decimal("0.043375"), Decimal("0.0333"), False, 1, 1)
    frame = frame_of([fill, replace(fill, first_trade_id=2, last_trade_id=2)])
    exact = to_candles(aggregate_trades(frame, symbol="X"))[0]
    assert exact.quote_volume == Decimal("0.002888775")
    rounded = frame.with_columns(quote_quantity=pl.lit("0.00144438"))
    assert to_candles(aggregate_trades(rounded, symbol="X"))[0].quote_volume == Decimal(
        "0.00288876"
    )


def test_products_beyond_128_bits_raise_rather_than_wrap() -> None:
    huge = Decimal("9" * 12 + "." + "9" * 8)
    fill = Fill(START, huge, huge, True, 1, 1)
    with pytest.raises(OverflowError):
        aggregate_trades(frame_of([fill]), symbol="X")


@st.composite
def candles(draw: st.DrawFn) -> list[Candle]:
    made, time_us, trade_id, close = [], START, 1, draw(prices)
    for _ in range(draw(st.integers(1, 25))):
        time_us += draw(st.sampled_from([MINUTE_US, 3 * MINUTE_US, DAY_US, 9 * DAY_US]))
        if draw(st.booleans()):
            made.append(silent_candle("X", time_us, close))
            continue
        four = [draw(prices) for _ in range(4)]
        open_, close = four[0], four[3]
        volume, quote = draw(quantities), draw(quantities)
        count = draw(st.integers(1, 9))
        made.append(
            Candle(
                "X", time_us, open_, max(four), min(four), close, volume, quote, count,
                draw(st.sampled_from([Decimal(0), volume])), quote, trade_id, trade_id + count - 1,
            )
        )  # fmt: skip
        trade_id += count
    return made


@settings(max_examples=40)
@given(candles(), st.sampled_from(list(TIMEFRAMES.values())))
def test_columnar_roll_up_equals_the_row_by_row_one(rows: list[Candle], timeframe) -> None:
    frame = from_candles(rows).sample(fraction=1, shuffle=True, seed=1)
    assert to_candles(roll_up(frame, timeframe)) == roll_up_rows(rows, timeframe)


@settings(max_examples=40)
@given(candles())
def test_rolling_up_in_steps_equals_rolling_up_at_once(rows: list[Candle]) -> None:
    at_once = roll_up(from_candles(rows), TIMEFRAMES["1d"])
    stepwise = from_candles(rows)
    for name in ("5m", "15m", "30m", "1h", "2h", "6h", "12h", "1d"):
        stepwise = roll_up(stepwise, TIMEFRAMES[name])
    assert to_candles(stepwise) == to_candles(at_once)


@given(st.integers(0, 4 * 10**15), st.sampled_from(list(TIMEFRAMES.values())))
def test_bars_open_at_the_same_moment_in_both_twins(moment_us: int, timeframe) -> None:
    frame = pl.DataFrame(
        {"open_time": [from_us(moment_us)]}, schema={"open_time": CANDLE_SCHEMA["open_time"]}
    )
    assert to_us(frame.select(bar_time(timeframe)).item()) == timeframe.open_time_us(moment_us)


def test_symbols_are_rolled_up_apart() -> None:
    rows = [silent_candle(symbol, START, Decimal(1)) for symbol in ("B", "A", "C")]
    assert roll_up(from_candles(rows), TIMEFRAMES["1h"])["symbol"].to_list() == ["A", "B", "C"]


@given(candles())
def test_candles_round_trip_through_a_frame(rows: list[Candle]) -> None:
    assert to_candles(from_candles(rows)) == rows


def test_empty_frames_stay_empty() -> None:
    assert aggregate_trades(TRADE_SCHEMA.to_frame(), symbol="X").schema == CANDLE_SCHEMA
    assert roll_up(CANDLE_SCHEMA.to_frame(), TIMEFRAMES["1h"]).schema == CANDLE_SCHEMA


def test_candidates_have_the_schema_of_the_store() -> None:
    frame = from_candles([silent_candle("X", START, Decimal(1))])
    candidates = as_candidates(
        frame, status=Status.VERIFIED, source=Source.DUMP_DAILY, evidence_at_us=START + DAY_US
    )
    assert candidates.schema == OFFER_SCHEMA
    assert candidates.row(0)[-4:] == ("verified", "dump_daily", 70, from_us(START + DAY_US))
    partial = as_candidates(frame, status=Status.PARTIAL, source=Source.FILE)
    assert partial["source_rank"].item() == 10


def test_status_that_does_not_fit_the_source_is_refused() -> None:
    frame = from_candles([silent_candle("X", START, Decimal(1))])
    with pytest.raises(ValueError, match="needs the time"):
        as_candidates(frame, status=Status.VERIFIED, source=Source.DUMP_DAILY)
    with pytest.raises(ValueError, match="cannot be verified"):
        as_candidates(frame, status=Status.VERIFIED, source=Source.FILE)


def test_trades_of_one_minute_are_in_order_of_their_ids() -> None:
    fills = [
        Fill(START + 2, Decimal(3), Decimal(1), True, 3, 3),
        Fill(START + 1, Decimal(2), Decimal(1), True, 2, 2),
        Fill(START + 1, Decimal(1), Decimal(1), True, 1, 1),
    ]
    candle = to_candles(aggregate_trades(frame_of(fills), symbol="X"))[0]
    assert (candle.open, candle.close) == (Decimal(1), Decimal(3))
    assert all(a.trade_time_us >= b.trade_time_us for a, b in pairwise(fills))


@given(st.sets(st.integers(0, 40)))
def test_column_ranges_equal_the_ranges_of_its_minutes(minutes: set[int]) -> None:
    opens = [START + one * MINUTE_US for one in sorted(minutes)]
    column = pl.Series(opens, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    assert ranges_in(column) == ranges_of(opens)
