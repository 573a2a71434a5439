"""Live views show what the next build would write."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.integration.dbt.conftest import BARS

SYMBOL = "BTCUSDT"
OTHER = "ETHUSDT.P"
LONG_AGO = datetime(2019, 2, 27, 11, 0, tzinfo=UTC)
RECENT = datetime(2025, 1, 30, 22, 0, tzinfo=UTC)
LAST = RECENT + timedelta(minutes=200)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def once(shared_market: Any, shared_dbt: Any) -> Any:
    """Two symbols, years apart and across the end of a month, with their marts."""
    shared_market.write(SYMBOL, LONG_AGO, 200)
    shared_market.write(SYMBOL, RECENT, 200)
    shared_market.write(OTHER, RECENT + timedelta(hours=26), 50)
    shared_dbt("run", "--select", BARS)
    return shared_market


@pytest.fixture
def built(once: Any) -> Iterator[Any]:
    """The same; writes of a test are rolled back."""
    with once.connection.transaction(force_rollback=True):
        yield once


def live_bars(market: Any, timeframe: Any, *start: Any) -> dict[tuple[Any, ...], Any]:
    """Live bars by (symbol, open time), optionally of one symbol from a time on."""
    return market.bars(timeframe, *start, suffix="_live")


def open_candle(
    market: Any, symbol: str, moment: datetime, *, is_closed: bool, has_quotes: bool = True
) -> None:
    """Insert a live candle that is not stored, with the values of ``market.write``."""
    market.write(symbol, moment, 1)
    market.connection.execute(
        "INSERT INTO ops.live_candles_1 SELECT symbol, open_time, open, high, low, close, volume,"
        " CASE WHEN %(has_quotes)s THEN quote_volume END, trade_count, taker_buy_volume,"
        " CASE WHEN %(has_quotes)s THEN taker_buy_quote_volume END, first_trade_id, last_trade_id,"
        " %(is_closed)s, now(), now() FROM market.candles_1m"
        " WHERE symbol = %(symbol)s AND open_time = %(moment)s",
        {"symbol": symbol, "moment": moment, "is_closed": is_closed, "has_quotes": has_quotes},
    )
    market.delete(symbol, moment, 1)


def live_row(market: Any, table: str, symbol: str, moment: datetime, *names: str) -> Any:
    """Columns of the live bar that contains a moment."""
    return market.connection.execute(
        sql.SQL(
            "SELECT {} FROM marts.{} WHERE symbol = %s AND open_time <= %s AND next_open_time > %s"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(f"candles_{table}_live")
        ),
        (symbol, moment, moment),
    ).fetchone()


def test_live_views_equal_the_marts_without_changes(built: Any, coarse: Any) -> None:
    for timeframe in coarse:
        assert live_bars(built, timeframe) == built.bars(timeframe), timeframe.name
    built.connection.execute("SET LOCAL ROLE candelabra_reader")
    count = "SELECT timeframe, count(*) FROM marts.{} GROUP BY 1"
    live, stored = (
        dict(built.connection.execute(sql.SQL(count).format(sql.Identifier(name))).fetchall())
        for name in ("candles_live", "candles")
    )
    assert live == stored
    assert len(live) == 15


def test_live_views_show_changes_of_any_age_as_the_build_writes_them(
    once: Any, shared_dbt: Any, coarse: Any
) -> None:
    once.write(SYMBOL, LONG_AGO + timedelta(minutes=101), 1, volume=Decimal("7.12345678"))
    once.write(SYMBOL, LAST, 70)  # new minutes, across the end of an hour
    once.delete(SYMBOL, RECENT + timedelta(minutes=30), 45)
    once.delete(OTHER, RECENT + timedelta(hours=26), 50)  # removes its bars
    once.write("ADAUSDT", datetime(2024, 12, 31, 23, 50, tzinfo=UTC), 20)  # across two years
    once.write("ADAUSDT", datetime(2023, 3, 24, 12, 0, tzinfo=UTC), 3)

    once.assert_bars_hold_the_minutes("_live")
    before = {timeframe.name: live_bars(once, timeframe) for timeframe in coarse}
    shared_dbt("run", "--select", BARS)

    assert {timeframe.name: once.bars(timeframe) for timeframe in coarse} == before
    once.assert_bars_hold_the_minutes("_live")
    once.write(OTHER, RECENT + timedelta(hours=26), 50)
    once.write(SYMBOL, RECENT, 200)
    shared_dbt("run", "--select", BARS)


def test_live_bars_contain_candles_that_are_not_stored(built: Any, coarse: Any) -> None:
    waiting, running = LAST + timedelta(minutes=80), LAST + timedelta(minutes=81)
    built.write(SYMBOL, LAST, 80)
    with built.connection.transaction(force_rollback=True):
        built.write(SYMBOL, waiting, 2)
        stored = {timeframe.name: built.expected(timeframe) for timeframe in coarse}
    open_candle(built, SYMBOL, waiting, is_closed=True)
    open_candle(built, SYMBOL, running, is_closed=False)

    for timeframe in coarse:
        live = live_bars(built, timeframe)
        # Only ended bars are complete.
        assert {key: bar[:-1] for key, bar in live.items()} == {
            key: bar[:-1] for key, bar in stored[timeframe.name].items()
        }, timeframe.name
        assert {key for key, bar in live.items() if bar[-1]} == {
            key
            for key, bar in stored[timeframe.name].items()
            if bar[-1] and (key[0] != SYMBOL or bar[0] <= running)
        }
    states = built.connection.execute(
        "SELECT timeframe, is_closed FROM marts.candles_live"
        " WHERE symbol = %s AND open_time <= %s AND next_open_time > %s",
        (SYMBOL, running, running),
    ).fetchall()
    assert len(states) == 15
    assert {is_closed for _, is_closed in states} == {False}
    # Stored now: the live candle, which is not removed yet, counts once.
    built.write(SYMBOL, waiting, 2)
    built.assert_bars_hold_the_minutes("_live")


def test_bar_is_complete_and_closed_with_its_last_minute(built: Any) -> None:
    # Four stored minutes and the last one live.
    start = RECENT + timedelta(days=1)
    built.write(SYMBOL, start, 4)
    states = ("minute_count", "is_complete", "is_closed")
    open_candle(built, SYMBOL, start + 4 * MINUTE, is_closed=False)
    assert live_row(built, "5m", SYMBOL, start, *states) == (5, False, False)
    assert live_row(built, "3m", SYMBOL, start, *states) == (3, True, True)
    built.connection.execute("UPDATE ops.live_candles_1 SET is_closed = true")
    assert live_row(built, "5m", SYMBOL, start, *states) == (5, True, True)
    built.connection.execute("DELETE FROM ops.live_candles_1")
    assert live_row(built, "5m", SYMBOL, start, *states) == (4, False, True)


def test_quote_volume_is_null_while_a_minute_lacks_it(built: Any) -> None:
    start = RECENT + timedelta(days=1)
    amounts = ("volume", "quote_volume", "taker_buy_quote_volume")
    built.write(SYMBOL, start, 2)
    open_candle(built, SYMBOL, start + 2 * MINUTE, is_closed=True, has_quotes=False)
    for table in ("3m", "1h", "1d", "1mo"):
        volume, quote_volume, taker_quote_volume = live_row(built, table, SYMBOL, start, *amounts)
        assert volume > 0
        assert (quote_volume, taker_quote_volume) == (None, None)
    built.write(SYMBOL, start + 2 * MINUTE, 1)
    assert None not in live_row(built, "1mo", SYMBOL, start, *amounts)


def test_outages_apply_immediately_and_may_have_no_end(built: Any, coarse: Any) -> None:
    built.delete(SYMBOL, RECENT + timedelta(minutes=60), 7)
    hour = RECENT + timedelta(minutes=60)
    assert live_row(built, "1h", SYMBOL, hour, "minute_count", "is_complete") == (53, False)

    built.declare_outage(None, hour, hour + 7 * MINUTE)
    assert live_row(built, "1h", SYMBOL, hour, "minute_count", "is_complete") == (53, True)
    built.assert_bars_hold_the_minutes("_live")

    built.connection.execute(
        "UPDATE ops.outages SET minutes = tstzmultirange(tstzrange(%s, NULL))", (hour,)
    )
    for timeframe in coarse:
        bars = live_bars(built, timeframe)
        assert bars.keys() == built.expected(timeframe).keys()
        assert all(bar[-1] for (symbol, at), bar in bars.items() if symbol == SYMBOL and at >= hour)


def test_running_bar_is_not_complete_in_an_outage_without_an_end(built: Any) -> None:
    now = built.connection.execute("SELECT date_trunc('day', now(), 'UTC')").fetchone()[0]
    built.write("HALTUSDT", now, 1)
    built.declare_outage("HALTUSDT", now + MINUTE)
    day = live_row(built, "1d", "HALTUSDT", now, "is_complete", "is_closed")
    assert day == (False, False)
    three = live_row(built, "3m", "HALTUSDT", now, "is_complete", "is_closed")
    assert three[0] == three[1]


def test_listing_starts_with_a_candle_that_is_not_stored(built: Any) -> None:
    last = LAST + timedelta(minutes=70)
    ended, again = last + timedelta(minutes=10), last + timedelta(minutes=37)
    built.write(SYMBOL, LAST, 70)
    built.list_symbol(SYMBOL, datetime(2017, 8, 17, tzinfo=UTC), ended)
    built.list_symbol(SYMBOL, again)
    open_candle(built, SYMBOL, again, is_closed=False)

    for table in ("2h", "4h", "12h", "1d", "3d", "1w", "1mo"):
        assert live_row(built, table, SYMBOL, again, "minute_count") == (1,), table
    # Finer bars of the former listing remain.
    assert live_row(built, "5m", SYMBOL, last - MINUTE, "minute_count") == (5,)


def test_live_views_ignore_uncommitted_changes(once: Any, coarse: Any) -> None:
    with psycopg.connect(once.url) as late:
        once.write(SYMBOL, LONG_AGO + MINUTE, 1, volume=Decimal(11), connection=late)
        once.assert_bars_hold_the_minutes("_live")
        before = live_bars(once, coarse[0])
        late.commit()
        once.assert_bars_hold_the_minutes("_live")
        assert live_bars(once, coarse[0]) != before
        once.write(SYMBOL, LONG_AGO + 2 * MINUTE, 1, volume=Decimal(12), connection=late)
        late.rollback()
    once.assert_bars_hold_the_minutes("_live")


def test_every_bar_is_rolled_up_without_a_cursor_of_this_cluster(built: Any, coarse: Any) -> None:
    # As after a restore: marts and log are unreliable.
    built.write(SYMBOL, RECENT, 200, volume=Decimal(3))
    built.connection.execute("DELETE FROM ops.candle_changes")
    built.connection.execute("UPDATE ops.build_cursors SET system_identifier = '1'")
    for timeframe in coarse:
        expected = built.expected(timeframe)
        for symbol, since in ((OTHER, LONG_AGO), (SYMBOL, RECENT - timedelta(hours=22))):
            wanted = {
                key: bar for key, bar in expected.items() if key[0] == symbol and key[1] >= since
            }
            assert live_bars(built, timeframe, symbol, since) == wanted, timeframe.name
        assert wanted or timeframe.name in ("3d", "1w", "1M")


def plan_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from plan_nodes(child)


@pytest.mark.parametrize(
    "asked",
    [
        "symbol = 'BTCUSDT' AND open_time >= '2025-01-31 01:00:00+00' ORDER BY open_time",
        "symbol = 'BTCUSDT' ORDER BY open_time DESC LIMIT 5",
    ],
)
def test_query_rolls_up_only_the_requested_bars(built: Any, asked: str) -> None:
    built.write(SYMBOL, LONG_AGO, 1, volume=Decimal(8))
    built.write(SYMBOL, LAST - MINUTE, 1, volume=Decimal(9))
    built.connection.execute("ANALYZE marts.candles_5m")
    (stored,) = built.connection.execute("SELECT count(*) FROM marts.candles_5m").fetchone()
    assert stored > 80
    (rows,) = built.connection.execute(
        f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM marts.candles_5m_live WHERE {asked}"  # noqa: S608
    ).fetchone()
    nodes = list(plan_nodes(rows[0]["Plan"]))
    reads = [node for node in nodes if node.get("Relation Name") == "candles_5m"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in reads) < 25
    calls = next(node for node in nodes if node.get("Function Name") == "live_bar_5m")
    assert calls["Actual Loops"] <= 2
