"""Marts of trades equal values computed in Python, and report missing trades."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from math import ceil
from typing import Any

import psycopg
import pytest

from tests.integration.dbt.conftest import BARS
from tests.integration.dbt.trades.simulated import (
    SESSION,
    START,
    SimulatedDay,
    Trade,
    area_of,
    footprint_of,
    profile_of,
    step_of,
    store_trades,
)

DAY = 1_440
COS, BTC, PERPETUAL, NOBODY = "COSUSDT", "BTCUSDT", "BTCUSDT.P", "BIFIUSDT"
TICKS = {COS: Decimal("0.000001"), BTC: Decimal("0.01"), PERPETUAL: Decimal("0.1")}
PART = 600, 20  # first minute and number of minutes with stored trades of BTCUSDT
LIQUIDATED = Trade(
    PERPETUAL, 1, Decimal(99_999), Decimal(10**6), 1, 1, START + timedelta(minutes=PART[0] + 5),
    False, "INSURANCE_FUND",
)  # fmt: skip
"""The largest of all, far above the market."""
FOUND = """
    SELECT symbol, open_time, price_low, price_step, bid_volume, ask_volume, trade_count,
        first_trade_id, last_trade_id
    FROM marts.footprint_1m WHERE symbol = %s
"""


@pytest.fixture(scope="module")
def trades(shared_market: Any, shared_dbt: Any) -> dict[str, list[Trade]]:
    """A complete quiet day, part of a busy one, USD-M in both datasets, and no trades."""
    connection = shared_market.connection
    days = {COS: SimulatedDay("spot", COS), BTC: SimulatedDay("spot", BTC)}
    days |= {PERPETUAL: SimulatedDay("um", BTC), NOBODY: SimulatedDay("spot", NOBODY)}
    for symbol, tick in TICKS.items():
        shared_market.list_symbol(symbol, tick_size=str(tick))
    kept = {COS: days[COS].aggregates(0, DAY), BTC: days[BTC].aggregates(*PART)}
    store_trades(connection, [*kept[COS], *kept[BTC]])
    store_trades(connection, days[PERPETUAL].aggregates(PART[0], 1))
    kept[PERPETUAL] = [*days[PERPETUAL].fills(*PART), LIQUIDATED]
    store_trades(connection, kept[PERPETUAL], "trades")
    for symbol in (COS, NOBODY):
        days[symbol].store_candles(connection, 0, DAY)
    for symbol in (BTC, PERPETUAL):
        days[symbol].store_candles(connection, PART[0] - 10, PART[1] + 20)
    shared_dbt(
        "run", "--select", BARS, "path:models/intermediate/trades", "path:models/marts/trades"
    )
    shared_dbt("test", "--select", "path:models/marts/trades")
    return kept


@pytest.fixture
def sql(shared_market: Any) -> psycopg.Connection[Any]:
    return shared_market.connection


@pytest.mark.parametrize("symbol", [COS, BTC])
def test_footprint_equals_the_trades(sql: Any, trades: dict[str, list[Trade]], symbol: str) -> None:
    found = {row[:3]: row[3:] for row in sql.execute(FOUND, (symbol,))}
    assert found == footprint_of(trades[symbol], TICKS[symbol])
    assert all(low % values[0] == 0 for (_, _, low), values in found.items())


def test_fills_of_the_insurance_fund_are_in_no_mart(
    sql: Any, trades: dict[str, list[Trade]]
) -> None:
    others = [one for one in trades[PERPETUAL] if one.trade_type != "MARKET"]
    assert len(others) > 1
    sides = "sum(bid_volume), sum(ask_volume), sum(bid_volume + ask_volume)"
    found = sql.execute(
        f"SELECT open_time, {sides} FROM marts.footprint_1m WHERE symbol = %s GROUP BY 1",  # noqa: S608
        (PERPETUAL,),
    ).fetchall()
    candles = sql.execute(
        "SELECT open_time, volume - taker_buy_volume, taker_buy_volume, volume"
        " FROM market.candles_1m WHERE symbol = %s AND open_time = ANY(%s)",
        (PERPETUAL, [row[0] for row in found]),
    ).fetchall()
    assert len(found) == PART[1]
    assert sorted(found) == sorted(candles)
    highest = max(one.price for one in trades[PERPETUAL] if one.trade_type == "MARKET")
    profile = "SELECT max(price_low) <= %s FROM marts.volume_profile WHERE symbol = %s"
    assert sql.execute(profile, (highest, PERPETUAL)).fetchone() == (True,)
    large = sql.execute(
        "SELECT count(*) FILTER (WHERE trade_id = ANY(%s)), count(*) FROM marts.large_trades"
        " WHERE symbol = %s AND dataset = 'trades'",
        ([one.number for one in others], PERPETUAL),
    ).fetchone()
    assert large[0] == 0 < large[1]


@pytest.mark.parametrize("symbol", [COS, BTC])
def test_profile_and_value_area_equal_the_trades(
    sql: Any, trades: dict[str, list[Trade]], symbol: str
) -> None:
    footprint = footprint_of(trades[symbol], TICKS[symbol])
    expected = profile_of(footprint)
    rows = sql.execute(
        "SELECT price_low, bid_volume, ask_volume, trade_count, volume, delta,"
        " price_high - price_low FROM marts.volume_profile WHERE (symbol, session) = (%s, %s)",
        (symbol, SESSION),
    ).fetchall()
    assert {row[0]: row[1:4] for row in rows} == expected
    assert all(row[4] == row[1] + row[2] and row[5] == row[2] - row[1] for row in rows)

    session = sql.execute(
        "SELECT price_step, point_of_control, value_area_low, value_area_high, value_area_volume,"
        " volume, bid_volume, ask_volume, delta, trade_count"
        " FROM marts.volume_profile_sessions WHERE (symbol, session) = (%s, %s)",
        (symbol, SESSION),
    ).fetchone()
    step = max(values[0] for values in footprint.values())
    bid, ask, count = (sum(values[place] for values in expected.values()) for place in range(3))
    assert len(expected) > 3
    assert session == (step, *area_of(expected, step), bid + ask, bid, ask, ask - bid, count)
    assert {row[6] for row in rows} == {step}


def test_complete_day_has_the_volumes_of_its_candles(
    sql: Any, trades: dict[str, list[Trade]]
) -> None:
    session = sql.execute(
        "SELECT volume, ask_volume, trade_count, kept, is_complete, reason"
        " FROM marts.volume_profile_sessions WHERE symbol = %s",
        (COS,),
    ).fetchone()
    candles = sql.execute(
        "SELECT sum(volume), sum(taker_buy_volume), sum(trade_count) FROM market.candles_1m"
        " WHERE symbol = %s",
        (COS,),
    ).fetchone()
    assert session == (*candles, "whole", True, None)


def test_coverage_reports_stored_trades_and_reasons(
    sql: Any, trades: dict[str, list[Trade]]
) -> None:
    sql.execute(
        "INSERT INTO ops.gaps (symbol, dataset, from_time, to_time, cause)"
        " VALUES (%s, 'agg_trades', %s, %s, 'x')",
        (BTC, START - timedelta(hours=1), START + timedelta(minutes=7)),
    )
    rows = sql.execute(
        "SELECT symbol, session, kept, is_complete, datasets, missing_trades, gap_minutes,"
        " is_archived FROM marts.trade_coverage"
    ).fetchall()
    assert sorted(rows) == [
        (NOBODY, SESSION, "none", False, None, None, 0, False),
        (BTC, SESSION, "partial", False, "agg_trades", 0, 7, False),
        (PERPETUAL, SESSION, "partial", False, "agg_trades,trades", None, 0, False),
        (COS, SESSION, "whole", True, "agg_trades", 0, 0, False),
    ]
    reasons = dict(sql.execute("SELECT symbol, reason FROM marts.trade_coverage").fetchall())
    assert reasons[NOBODY] == "no trades are stored"
    assert reasons[BTC] == "the day is not over, or minutes are missing"


@pytest.mark.parametrize(("symbol", "timeframe", "minutes"), [(BTC, "5m", 5), (COS, "4h", 240)])
def test_footprint_of_a_timeframe_has_bars_and_imbalances(
    sql: Any, trades: dict[str, list[Trade]], symbol: str, timeframe: str, minutes: int
) -> None:
    footprint = footprint_of(trades[symbol], TICKS[symbol])
    step = max(values[0] for values in footprint.values())
    bars: dict[Any, dict[Decimal, list[Any]]] = defaultdict(
        lambda: defaultdict(lambda: [Decimal(0), Decimal(0), 0])
    )
    for (_, minute, low), values in footprint.items():
        bar = minute - (minute - START) % timedelta(minutes=minutes)
        for place in range(3):
            bars[bar][low // step * step][place] += values[1 + place]
    expected = {}
    for bar, buckets in bars.items():
        for low, (bid, ask, count) in buckets.items():
            above = buckets[low + step][1] if low + step in buckets else Decimal(0)
            below = buckets[low - step][0] if low - step in buckets else Decimal(0)
            is_bid = above > 0 and bid >= 3 * above
            is_ask = below > 0 and ask >= 3 * below
            expected[bar, low] = (low + step, bid, ask, bid + ask, ask - bid, count, is_bid, is_ask)

    rows = sql.execute(
        "SELECT open_time, price_low, price_high, bid_volume, ask_volume, volume, delta,"
        " trade_count, is_bid_imbalance, is_ask_imbalance"
        " FROM marts.footprint(%s, %s, %s, %s) WHERE kept <> 'none'",
        (symbol, timeframe, START, START + timedelta(days=1)),
    ).fetchall()
    assert {row[:2]: row[2:] for row in rows} == expected
    assert any(row[8] or row[9] for row in rows)


def test_bar_without_stored_trades_has_one_marked_row(
    sql: Any, trades: dict[str, list[Trade]]
) -> None:
    begin = START + timedelta(minutes=PART[0])
    rows = sql.execute(
        "SELECT DISTINCT open_time, kept, price_low IS NULL, is_ask_imbalance IS NULL"
        " FROM marts.footprint(%s, '5m', %s, %s)",
        (BTC, begin - timedelta(minutes=5), begin + timedelta(minutes=5)),
    ).fetchall()
    assert sorted(rows) == [
        (begin - timedelta(minutes=5), "none", True, True),
        (begin, "whole", False, False),
    ]
    assert sql.execute(
        "SELECT array_agg(DISTINCT kept) FROM marts.footprint(%s, '1h', %s, %s)",
        (BTC, begin, begin + timedelta(hours=1)),
    ).fetchone() == (["partial"],)


def test_cumulative_delta_starts_with_the_session(sql: Any, trades: dict[str, list[Trade]]) -> None:
    so_far, expected, minutes = Decimal(0), {}, {}
    for trade in trades[COS]:
        so_far += -trade.quantity if trade.is_buyer_maker else trade.quantity
        expected[trade.at.replace(minute=0, second=0, microsecond=0)] = so_far
        minutes[trade.minute] = so_far
    hours = sql.execute(
        "SELECT open_time, cumulative_delta, kept FROM marts.cumulative_delta(%s, '1h', %s, %s)",
        (COS, START + timedelta(hours=3), START + timedelta(hours=30)),
    ).fetchall()
    last = Decimal(0)
    for number, (open_time, delta, kept) in enumerate(hours):
        last = expected.get(open_time, expected.get(open_time - timedelta(hours=1), last))
        assert (open_time, kept) == (START + timedelta(hours=3 + number), "whole")
        assert delta == last
    assert len(hours) == 21
    view = sql.execute(
        "SELECT open_time, cumulative_delta FROM marts.cumulative_delta_1m"
        " WHERE (symbol, session) = (%s, %s) AND is_complete",
        (COS, SESSION),
    ).fetchall()
    assert dict(view) == minutes


def test_cumulative_delta_is_null_after_missing_trades(
    sql: Any, trades: dict[str, list[Trade]]
) -> None:
    rows = sql.execute(
        "SELECT kept, delta IS NULL, cumulative_delta IS NULL"
        " FROM marts.cumulative_delta(%s, '5m', %s, %s)",
        (BTC, START, START + timedelta(days=1)),
    ).fetchall()
    assert (
        rows
        == [("none", True, True)] * 2 + [("whole", False, True)] * 4 + [("none", True, True)] * 2
    )


@pytest.mark.parametrize("symbol", [COS, BTC])
def test_large_trades_reach_the_quantile_of_their_session(
    sql: Any, trades: dict[str, list[Trade]], symbol: str
) -> None:
    notionals = sorted(trade.price * trade.quantity for trade in trades[symbol])
    threshold = notionals[ceil(Decimal("0.999") * len(notionals)) - 1]
    expected = {
        (
            t.number,
            "sell" if t.is_buyer_maker else "buy",
            t.price * t.quantity,
            t.last - t.first + 1,
        )
        for t in trades[symbol]
        if t.price * t.quantity >= threshold
    }
    rows = sql.execute(
        "SELECT trade_id, side, notional, trade_count, threshold FROM marts.large_trades"
        " WHERE symbol = %s",
        (symbol,),
    ).fetchall()
    assert {row[:4] for row in rows} == expected
    assert {row[4] for row in rows} == {threshold}


@pytest.mark.parametrize("function", ["footprint", "cumulative_delta"])
def test_unknown_timeframe_is_rejected_with_a_list(
    sql: Any, trades: dict[str, list[Trade]], function: str
) -> None:
    query = f"SELECT * FROM marts.{function}(%s, %s, %s, %s)"  # noqa: S608
    for timeframe in ("7m", None, *(["1w"] if function == "cumulative_delta" else [])):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
            sql.execute(query, (COS, timeframe, START, START))
        assert "1m, 3m, 5m" in str(refused.value.diag.message_hint)
    if function == "footprint":
        monthly = sql.execute(query, (COS, "1M", START.replace(day=1), START)).fetchall()
        assert {row[1].isoformat() for row in monthly} == {"2026-12-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("volumes", "share", "area"),
    [
        ([5], "0.7", (1, 1, 1)),
        ([1, 2, 10, 2, 1], "0.6", (3, 3, 3)),
        # among equals the one nearest the middle, then the lower
        ([9, 1, 9, 1, 1, 1], "0.1", (3, 3, 3)),
        ([1, 9, 1, 1, 9, 1], "0.1", (2, 2, 2)),
        # 4 + 4 below exceed 5 + 1 above, although 5 is the greater neighbour
        ([4, 4, 10, 5, 1, 6], "0.5", (3, 1, 3)),
        # equal pairs: the upper one, with both buckets
        ([1, 3, 10, 3, 1], "0.7", (3, 3, 5)),
        # only one bucket is left above
        ([1, 1, 10, 9], "0.8", (3, 3, 4)),
        # empty buckets belong to the area
        ([5, 0, 0, 10, 0], "1", (4, 1, 5)),
    ],
)
def test_value_areas_of_manual_examples(
    sql: Any,
    trades: dict[str, list[Trade]],
    volumes: list[int],
    share: str,
    area: tuple[int, ...],
) -> None:
    found = sql.execute("SELECT * FROM marts.value_area(%s::numeric[], %s)", (volumes, share))
    assert found.fetchone() == area


def test_bucket_widths_are_multiples_of_the_tick_and_divide_each_other(
    sql: Any, trades: dict[str, list[Trade]]
) -> None:
    prices = [
        Decimal(digit) * Decimal(10) ** power for power in range(-7, 7) for digit in (1, 3, 7)
    ]
    for tick in map(Decimal, ("0.00000001", "0.01", "0.05", "0.1")):
        found = sql.execute(
            "SELECT array_agg(marts.price_step(p, %s) ORDER BY p) FROM unnest(%s::numeric[]) AS p",
            (tick, prices),
        ).fetchone()[0]
        assert found == [step_of(price, tick) for price in prices]
        for narrow, wide in pairwise(found):
            assert wide % narrow == 0
            assert narrow % tick == 0
