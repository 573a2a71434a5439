"""Every query of docs/cookbook.md runs as the reader role and agrees with the minutes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.local.postgres import EmbeddedPostgres

TEXT = (Path(__file__).parents[3] / "docs" / "cookbook.md").read_text(encoding="utf-8")
QUERIES = dict(re.findall(r"### ([^\n]+)\n(?:(?!\n###? ).)*?```sql\n(.*?)```", TEXT, re.DOTALL))
MINUTE = timedelta(minutes=1)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BTCUSDT.P")
Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def now() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


@pytest.fixture(scope="module")
def minutes(
    shared_market: Any, shared_dbt: Any, now: datetime
) -> dict[str, dict[datetime, dict[str, Any]]]:
    """Build the marts of a day of three symbols with faults; return the minutes by symbol."""
    connection = shared_market.connection
    for number, symbol in enumerate(SYMBOLS):
        start = now - timedelta(hours=25)
        shared_market.write(symbol, start, 25 * 60, volume=Decimal(number + 1))
        shared_market.list_symbol(symbol)
    # Different prices, so that returns differ between symbols.
    connection.execute(
        "UPDATE market.candles_1m SET open = open + k, high = high + k, low = low + k,"
        " close = close + k FROM (SELECT symbol AS s, open_time AS t,"
        " extract(minute FROM open_time)::integer % 7 AS k FROM market.candles_1m) AS shift"
        " WHERE symbol = s AND open_time = t AND symbol <> 'BTCUSDT'"
    )
    # Takers buy one to five eighths.
    connection.execute(
        "UPDATE market.candles_1m SET taker_buy_volume = volume * share,"
        " taker_buy_quote_volume = quote_volume * share FROM (SELECT symbol AS s, open_time AS t,"
        " 0.125 * (1 + extract(minute FROM open_time)::integer % 5) AS share"
        " FROM market.candles_1m) AS shares WHERE symbol = s AND open_time = t"
    )
    shared_market.delete("BTCUSDT", now - timedelta(hours=5), 3)
    repaired = now - timedelta(hours=1)
    connection.execute(
        "INSERT INTO ops.discrepancies (symbol, open_time, winner_source, winner_status,"
        " loser_source, loser_status, loser_open, loser_high, loser_low, loser_close,"
        " loser_volume, loser_quote_volume, loser_trade_count, loser_taker_buy_volume,"
        " loser_taker_buy_quote_volume, stored_during)"
        " VALUES ('BTCUSDT', %s, 'rest', 'verified', 'kline', 'verified', 1, 1, 1, 77, 1, 1, 1, 1,"
        " 1, tstzmultirange(tstzrange(%s, %s)))",
        (repaired, repaired, now - 5 * MINUTE),
    )
    # All were written on time; one was rewritten five minutes ago.
    connection.execute(
        "UPDATE market.candles_1m SET updated_at = CASE WHEN symbol = 'BTCUSDT' AND open_time = %s"
        " THEN %s ELSE open_time + interval '61 seconds' END,"
        " revision = CASE WHEN symbol = 'BTCUSDT' AND open_time = %s THEN 1 ELSE 0 END",
        (repaired, now - 5 * MINUTE, repaired),
    )
    connection.execute("SELECT ops.ensure_partition('market.agg_trades', now())")
    connection.execute("SELECT ops.ensure_partition('market.agg_trades', now() - interval '1 d')")
    connection.execute(
        "INSERT INTO market.agg_trades SELECT 'BTCUSDT', (t AT TIME ZONE 'UTC')::date, id, 1001, 1,"
        " id, id, t, false FROM (VALUES (1, %s::timestamptz), (2, %s)) AS v (id, t)",
        (now - 20 * MINUTE, now - 20 * MINUTE + timedelta(seconds=59)),
    )
    shared_dbt("run")
    shared_dbt("snapshot")
    found: dict[str, dict[datetime, dict[str, Any]]] = {symbol: {} for symbol in SYMBOLS}
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    for row in cursor.execute("SELECT * FROM market.candles_1m ORDER BY symbol, open_time"):
        found[row["symbol"]][row["open_time"]] = row
    return found


@pytest.fixture(scope="module")
def ask(minutes: Any, shared_market: Any, postgres: EmbeddedPostgres) -> Callable[[str], list[Row]]:
    """Run the query of a heading as the reader role."""
    shared_market.connection.execute("ALTER ROLE candelabra_reader PASSWORD 'reads'")
    url = postgres.url(
        str(shared_market.connection.info.dbname), user="candelabra_reader", password="reads"
    )

    def run(heading: str) -> list[Row]:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET timezone = 'UTC'")
            query = QUERIES[heading].rstrip().rstrip(";")
            if query.startswith("COPY"):
                with connection.cursor().copy(query) as copied:
                    lines = b"".join(copied).decode().splitlines()
                return [tuple(line.split(",")) for line in lines]
            return list(connection.execute(query).fetchall())

    return run


def bar(minutes: dict[datetime, dict[str, Any]], start: datetime, width: int) -> Row:
    """Open, high, low, close and volume, computed from minutes."""
    there = [minutes[start + n * MINUTE] for n in range(width) if start + n * MINUTE in minutes]
    traded = [row for row in there if row["trade_count"]] or there[:1]
    return (
        traded[0]["open"],
        max(row["high"] for row in traded),
        min(row["low"] for row in traded),
        traded[-1]["close"],
        sum(row["volume"] for row in there),
    )


def closes(
    minutes: dict[datetime, dict[str, Any]], since: datetime, width: int
) -> dict[datetime, Decimal]:
    """Closes of the bars that open at or after a moment."""
    first = min(minutes)
    step = timedelta(minutes=width)
    start = (
        datetime.min.replace(tzinfo=UTC)
        + ((max(first, since) - datetime.min.replace(tzinfo=UTC)) // step) * step
    )
    found = {}
    while start <= max(minutes):
        if start >= since and any(start + n * MINUTE in minutes for n in range(width)):
            found[start] = bar(minutes, start, width)[3]
        start += step
    return found


@pytest.mark.parametrize("heading", QUERIES)
def test_query_runs_as_the_reader_role(ask: Any, heading: str, now: datetime) -> None:
    rows = ask(heading)
    # Empty just after midnight.
    assert rows or (heading.endswith("midnight UTC") and (now.hour, now.minute) < (0, 5))


def test_every_heading_has_one_query() -> None:
    assert len(QUERIES) >= 20
    assert (
        len(re.findall(r"```sql\n", TEXT)) == len(QUERIES) == len(re.findall(r"^### ", TEXT, re.M))
    )


def test_last_bars_agree_with_the_minutes(ask: Any, minutes: Any) -> None:
    rows = ask("The last bars, including the open one")
    assert len(rows) == 100
    for open_time, *values, is_closed in rows[:50]:
        assert tuple(values) == bar(minutes["BTCUSDT"], open_time, 5)
        assert is_closed or open_time == rows[0][0]


def test_custom_interval_agrees_with_the_minutes(ask: Any, minutes: Any) -> None:
    rows = ask("A custom interval")
    assert len(rows) > 140
    for start, *values, is_complete in rows[1:]:
        assert tuple(values) == bar(minutes["BTCUSDT"], start, 10)
        there = sum(start + n * MINUTE in minutes["BTCUSDT"] for n in range(10))
        assert is_complete == (there == 10)


def test_returns_and_correlation_agree_with_the_closes(ask: Any, minutes: Any) -> None:
    hourly = {
        symbol: closes(minutes[symbol], datetime.min.replace(tzinfo=UTC), 60)
        for symbol in ("BTCUSDT", "ETHUSDT")
    }
    rows = ask("Returns of several symbols side by side")
    for (before, *_), (open_time, *found) in itertools.pairwise(rows):
        for value, symbol in zip(found, ("BTCUSDT", "ETHUSDT"), strict=True):
            wanted = math.log(hourly[symbol][open_time] / hourly[symbol][before])
            assert float(value) == pytest.approx(wanted, abs=1e-12)

    pairs = {row[:2]: row[2:] for row in ask("Correlation of returns")}
    assert pairs.keys() == {
        ("BTCUSDT", "BTCUSDT.P"), ("BTCUSDT", "ETHUSDT"), ("BTCUSDT.P", "ETHUSDT")
    }  # fmt: skip
    found, bars = pairs["BTCUSDT.P", "ETHUSDT"]
    assert found == pytest.approx(1.0)
    assert bars > 90
    assert -1 <= pairs["BTCUSDT", "ETHUSDT"][0] < 1


def test_volume_is_summed_exactly(ask: Any, minutes: Any, now: datetime) -> None:
    leaders = ask("Volume leaders of 24 hours")
    first = -(-(now - timedelta(hours=24)).timestamp() // 900) * 900
    wanted = {
        symbol: sum(
            row["quote_volume"]
            for time, row in minutes[symbol].items()
            if time.timestamp() >= first
        )
        for symbol in ("BTCUSDT", "ETHUSDT")
    }
    # A new quarter of an hour may have begun since then.
    assert [row[0] for row in leaders] == ["ETHUSDT", "BTCUSDT"]
    assert all(row[1] <= wanted[row[0]] for row in leaders)
    assert all(row[1] > wanted[row[0]] * Decimal("0.98") for row in leaders)

    hours = ask("Volume by hour of the day")
    assert sum(share for *_, share in hours) == pytest.approx(Decimal(100), abs=Decimal("0.2"))


def test_cumulative_delta_restarts_each_day(ask: Any, minutes: Any, now: datetime) -> None:
    deltas: dict[datetime, Decimal] = {}
    for time, row in minutes["BTCUSDT"].items():
        start = time - timedelta(minutes=time.minute % 5)
        bought, sold = row["taker_buy_volume"], row["volume"] - row["taker_buy_volume"]
        deltas[start] = deltas.get(start, Decimal(0)) + bought - sold
    expected = [
        (start, delta, sum(d for s, d in deltas.items() if s.date() == start.date() and s <= start))
        for start, delta in deltas.items()
        if start.date() >= now.date() - timedelta(days=1)
    ]
    rows = ask("Cumulative volume delta")
    assert rows == expected
    assert len({total for *_, total in rows}) > 100


def test_vwap_is_quote_volume_by_volume(ask: Any, minutes: Any) -> None:
    rows = ask("VWAP since midnight UTC")
    if not rows:
        pytest.skip("the UTC day has just begun")
    day = [row for time, row in minutes["BTCUSDT"].items() if time >= rows[0][0]]
    volume = sum(row["volume"] for row in day)
    wanted = sum(row["quote_volume"] for row in day) / volume
    assert rows[-1][2] == pytest.approx(wanted, abs=Decimal("1e-12"))


def test_all_time_high_movers_and_premium(ask: Any, minutes: Any) -> None:
    for symbol, high, close, percent in ask("Distance from the all-time high"):
        assert high == max(r["high"] for r in minutes[symbol].values() if r["trade_count"])
        assert close == minutes[symbol][max(minutes[symbol])]["close"]
        assert percent == round(100 * (close / high - 1), 2)
    assert {row[0] for row in ask("Top movers of 24 hours")} == set(SYMBOLS)
    premiums = ask("Premium of the perpetual over spot")
    for open_time, spot, perpetual, _ in premiums[1:]:
        assert spot == bar(minutes["BTCUSDT"], open_time, 60)[3]
        assert perpetual == bar(minutes["BTCUSDT.P"], open_time, 60)[3]


def test_missing_minutes_are_found(ask: Any, now: datetime) -> None:
    missing = (now - timedelta(hours=5), now - timedelta(hours=5) + 3 * MINUTE)
    assert missing in ask("Which minutes are missing")
    assert sum(row[3] for row in ask("Days with missing minutes")) == 3
    over = [row for row in ask("Bars that are not complete") if row[2]]
    touched = {moment.replace(minute=0) for moment in (missing[0], missing[1] - MINUTE)}
    assert touched <= {open_time for open_time, *_ in over}
    assert [row[:2] for row in ask("Daily overview for operators")] == [
        ("BTCUSDT", "minutes missing")
    ]


def test_repair_is_shown_and_invisible_before_it(ask: Any, now: datetime) -> None:
    repaired = now - timedelta(hours=1)
    ((symbol, open_time, was_from, was, is_from, *_),) = ask("Repairs of the last week")
    assert (symbol, open_time, was_from, was, is_from) == (
        "BTCUSDT", repaired, "kline", 77, "rest"
    )  # fmt: skip
    known = {row[0]: row[1:] for row in ask("Candles as known at a moment")}
    assert repaired + MINUTE in known
    # The hour of the query may have moved past the minute.
    if repaired in known:
        assert known[repaired] == (77, 1, "kline", True)


def test_trade_joins_no_later_candle(ask: Any, now: datetime) -> None:
    rows = ask("Each trade with the last closed candle before it")
    # The trade's own minute is not closed at that time.
    assert [(row[0], row[3]) for row in rows] == [
        (1, now - 21 * MINUTE),
        (2, now - 21 * MINUTE),
    ]


def test_export_has_a_header_and_bars(ask: Any) -> None:
    header, *lines = ask("Export to CSV")
    assert header == ("symbol", "open_time", "open", "high", "low", "close", "volume")
    assert 23 <= len(lines) <= 25
