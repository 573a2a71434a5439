"""What an operator sees of candles and ledgers, and how few rows are read for it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.config import load_settings
from include.errors import WrongValueError
from include.jobs.status import newest_revision, read_status
from include.store.ledgers import health
from include.store.ledgers.health import SymbolHealth, known_symbols, read_health, schema_revision
from include.store.postgres.pools import connect

ROOT = Path(__file__).parents[4]
NOW = datetime.now(UTC).replace(second=30, microsecond=0)
MINUTE = timedelta(minutes=1)
NEWEST = NOW.replace(second=0) - MINUTE
SINCE = NOW.replace(second=0) - timedelta(days=1)

FILL = """
INSERT INTO market.candles_1m (
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, status, source, source_rank, evidence_at
)
SELECT %(symbol)s, t, 1, 1, 1, 1, 1, 1, 1, 1, 1, %(status)s, %(source)s, %(rank)s,
    CASE WHEN %(status)s = 'verified' THEN t + interval '1 minute' END
FROM generate_series(%(start)s::timestamptz, %(last)s::timestamptz, interval '1 minute') AS t
"""


def fill(
    connection: psycopg.Connection[Any],
    symbol: str,
    start: datetime,
    last: datetime,
    *,
    status: str = "verified",
    source: str = "kline",
) -> None:
    rank = {"kline": 50, "dump_daily": 70}.get(source, 10 if status == "partial" else 40)
    month = start
    while month < last + timedelta(days=31):
        connection.execute("SELECT ops.ensure_partition('market.candles_1m', %s)", (month,))
        month += timedelta(days=28)
    connection.execute(
        FILL,
        {
            "symbol": symbol,
            "start": start,
            "last": last,
            "status": status,
            "source": source,
            "rank": rank,
        },
    )


def leave_open(connection: psycopg.Connection[Any], symbol: str, open_time: datetime) -> None:
    """Write an open candle that no closed one follows."""
    connection.execute(
        "INSERT INTO ops.live_candles_1 (symbol, open_time, open, high, low, close, volume, "
        "quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, is_closed, "
        "event_time, updated_at) VALUES (%(symbol)s, %(at)s, 1, 1, 1, 1, 1, 1, 1, 1, 1, false, "
        "%(at)s, %(at)s)",
        {"symbol": symbol, "at": open_time},
    )


def read(connection: psycopg.Connection[Any], *symbols: str) -> health.Health:
    return read_health(
        connection, symbols, since=SINCE, now=NOW, patience_s=600, gap_patience_s=1800
    )


def one(connection: psycopg.Connection[Any], symbol: str) -> SymbolHealth:
    (found,) = read(connection, symbol).symbols
    return found


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(database_url, application_name="test") as opened:
        yield opened


def test_rows_of_the_window_are_counted_by_status(connection) -> None:
    fill(connection, "A", SINCE - timedelta(days=2), NEWEST - 20 * MINUTE)
    fill(
        connection,
        "A",
        NEWEST - 19 * MINUTE,
        NEWEST - 1 * MINUTE,
        status="unconfirmed",
        source="stream",
    )
    fill(connection, "A", NEWEST, NEWEST, status="partial", source="stream")
    found = one(connection, "A")
    assert (found.minutes, found.verified, found.unconfirmed, found.partial) == (1440, 1420, 19, 1)
    # opened more than ten minutes ago: those from NEWEST - 19 up to NEWEST - 9 minutes
    assert found.unsure == 11
    assert (found.newest, found.behind_s, found.missing) == (NEWEST, 30.0, 0)
    assert (found.is_streamed, found.live_age_s) == (True, None)


def test_minutes_between_rows_without_an_outage_are_missing(connection) -> None:
    fill(connection, "A", SINCE - timedelta(hours=1), SINCE - 30 * MINUTE)
    fill(connection, "A", SINCE + 5 * MINUTE, NEWEST - 100 * MINUTE)
    fill(connection, "A", NEWEST - 79 * MINUTE, NEWEST - 9 * MINUTE)
    fill(connection, "A", NEWEST - 3 * MINUTE, NEWEST)
    connection.execute(
        "INSERT INTO ops.outages (market, symbol, minutes, cause) VALUES"
        " ('spot', NULL, tstzmultirange(tstzrange(%s, %s)), 'halt')",
        (NEWEST - 99 * MINUTE, NEWEST - 89 * MINUTE),
    )
    found = one(connection, "A")
    # 5 at the window's beginning, 20 with 10 in an outage, and 5 too young to count
    assert (found.missing, found.overdue) == (5 + 10 + 5, 5 + 10)


def test_minutes_of_closed_gaps_and_revised_minutes_are_repaired(connection) -> None:
    fill(connection, "A", SINCE, NEWEST)
    fill(connection, "B", SINCE, NEWEST)
    connection.execute(
        "INSERT INTO ops.gaps (symbol, from_time, to_time, cause, repaired_at) VALUES"
        " ('A', %(a)s, %(b)s, 'connection lost', now()),"  # five minutes
        " ('A', %(c)s, %(d)s, 'trades missing', now()),"  # overlaps it, two minutes more
        " ('A', %(e)s, %(f)s, 'connection lost', NULL),"  # still open
        " ('A', %(g)s, %(h)s, 'connection lost', now())",  # before the window, but for a minute
        {
            "a": NEWEST - 60 * MINUTE,
            "b": NEWEST - 55 * MINUTE,
            "c": NEWEST - 56 * MINUTE,
            "d": NEWEST - 53 * MINUTE,
            "e": NEWEST - 3 * MINUTE,
            "f": NEWEST,
            "g": SINCE - 60 * MINUTE,
            "h": SINCE + MINUTE,
        },
    )
    connection.execute(
        "UPDATE market.candles_1m SET revision = 1 WHERE symbol = 'A' AND open_time = ANY(%s)",
        ([NEWEST - 54 * MINUTE, NEWEST - 10 * MINUTE],),  # one of them in a gap
    )
    assert one(connection, "A").repaired == 7 + 1 + 1
    assert one(connection, "B").repaired == 0


STEPS = ("follows", "follows", "skips", "overlaps", "silent", "no_ids", "count_mismatch")


def with_ids(chance: random.Random, minutes: int) -> list[tuple[int, int | None, int | None]]:
    """Count, first and last id of minutes, some of which do not follow those before."""
    rows, following = [], 1_000
    for _ in range(minutes):
        step, count = chance.choice(STEPS), chance.randint(1, 9)
        if step == "silent":
            rows.append((0, None, None))
            continue
        if step == "no_ids":
            rows.append((count, None, None))
            following += count
            continue
        first = following + {"skips": 3, "overlaps": -2}.get(step, 0)
        last = first + count - 1 + (chance.choice((-1, 2)) if step == "count_mismatch" else 0)
        last = max(first, last)
        rows.append((count, first, last))
        following = last + 1
    return rows


@pytest.mark.parametrize("symbol", ["A", "A.P"])
def test_rows_with_broken_ids_equal_those_of_candle_evidence(connection, symbol) -> None:
    fill(connection, symbol, SINCE, SINCE)
    for seed in range(5):
        connection.execute("DELETE FROM market.candles_1m")
        rows = with_ids(random.Random(seed), 300)
        connection.cursor().executemany(
            "INSERT INTO market.candles_1m (symbol, open_time, open, high, low, close, volume,"
            " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, status, source,"
            " source_rank, evidence_at, first_trade_id, last_trade_id)"
            " VALUES"
            " (%s, %s, 1, 1, 1, 1, %s, %s, %s, 0, 0, 'verified', 'kline', 50, now(), %s, %s)",
            [
                (symbol, SINCE + number * MINUTE, count, count, count, first, last)
                for number, (count, first, last) in enumerate(rows)
            ],
        )
        proofs = connection.execute(
            "SELECT count(*) FROM ops.candle_evidence(%s, %s, %s) WHERE is_broken",
            (symbol, SINCE, NOW),
        ).fetchone()
        assert proofs is not None
        assert proofs[0] > 10
        assert one(connection, symbol).broken == proofs[0], seed


def test_ids_of_a_new_listing_need_not_follow_and_young_rows_may_still_change(connection) -> None:
    fill(connection, "A", SINCE, NEWEST)

    def count_from(first_id: int, since: datetime) -> None:
        connection.execute(
            "UPDATE market.candles_1m SET first_trade_id = %(id)s + n, last_trade_id = %(id)s + n"
            " FROM (SELECT open_time AS t, row_number() OVER (ORDER BY open_time) AS n"
            " FROM market.candles_1m) AS r WHERE open_time = t AND open_time >= %(since)s",
            {"id": first_id, "since": since},
        )

    count_from(5_000, SINCE)
    count_from(9_000, NEWEST - 2 * MINUTE)  # younger than the patience
    assert one(connection, "A").broken == 0
    count_from(0, NEWEST - 100 * MINUTE)
    assert one(connection, "A").broken == 1
    connection.execute(
        "INSERT INTO market.instruments (symbol, listed_from, market, exchange_symbol, base_asset,"
        " quote_asset, status, tick_size, step_size, quote_volume_is_exact, seen_at)"
        " VALUES ('A', %s, 'spot', 'A', 'A', 'B', 'TRADING', 1, 1, true, now())",
        (NEWEST - 100 * MINUTE,),
    )
    assert one(connection, "A").broken == 0


def test_symbol_that_starts_in_the_window_misses_nothing_before(connection) -> None:
    fill(connection, "NEW", NEWEST - 60 * MINUTE, NEWEST)
    assert one(connection, "NEW").missing == 0


def test_symbol_without_rows_in_the_window_has_its_last_row(connection) -> None:
    fill(connection, "OLD", SINCE - timedelta(days=40), SINCE - timedelta(days=39))
    found = one(connection, "OLD")
    assert found.newest == SINCE - timedelta(days=39)
    assert (found.minutes, found.is_streamed, found.missing) == (0, False, 0)
    assert one(connection, "NONE").newest is None


def test_history_from_files_does_not_count_as_streamed(connection) -> None:
    fill(connection, "FILE", SINCE, NEWEST, source="dump_daily")
    assert one(connection, "FILE").is_streamed is False
    connection.execute(
        "INSERT INTO ops.live_candles_1 (symbol, open_time, open, high, low, close, volume,"
        " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, is_closed,"
        " updated_at) VALUES ('FILE', %s, 1, 1, 1, 1, 1, 1, 1, 1, 1, false, %s)",
        (NEWEST + MINUTE, NOW - timedelta(seconds=2)),
    )
    found = one(connection, "FILE")
    assert (found.is_streamed, found.live_age_s) == (True, 2.0)


def test_ledgers_are_counted(connection) -> None:
    connection.execute(
        "INSERT INTO ops.gaps (symbol, from_time, to_time, cause, opened_at) VALUES"
        " ('A', %(t)s, %(now)s, 'x', %(now)s), ('A', %(s)s, %(now)s, 'x', %(s)s)",
        {"t": SINCE, "s": SINCE - MINUTE, "now": NOW},
    )
    connection.execute(
        "INSERT INTO ops.quality_results (run_id, run_at, check_name, success) VALUES"
        " ('old', %(s)s, 'a', false), ('new', %(now)s, 'a', true), ('new', %(now)s, 'b', false)",
        {"s": SINCE, "now": NOW},
    )
    connection.execute(
        "INSERT INTO ops.dump_files (path, checksum, kind, fetched_at, rows, verdict) VALUES"
        " ('p', 'c', 'klines', %(s)s, 1440, 'loaded'), ('q', 'c', 'klines', %(s)s, 60, 'loaded')",
        {"s": SINCE},
    )
    connection.execute("SELECT ops.acquire_weight('api.test', 40)")
    found = read(connection, "A")
    assert (found.symbols[0].gaps, found.symbols[0].overdue_gaps) == (2, 1)
    assert found.quality is not None
    assert (found.quality.run_id, found.quality.checks) == ("new", 2)
    assert found.quality.broken == ["b"]
    assert [(one.verdict, one.files, one.rows) for one in found.files] == [("loaded", 2, 1500)]
    assert [(one.host, one.blocked_until) for one in found.weights] == [("api.test", None)]


def test_empty_database_has_no_schema(empty_database_url: str) -> None:
    with connect(empty_database_url, application_name="test") as connection:
        assert schema_revision(connection) is None


def rows_read(plan: Mapping[str, Any]) -> int:
    """Rows of candles that the nodes of a plan read, those they threw away among them."""
    own = 0
    if str(plan.get("Relation Name", "")).startswith("candles_1m"):
        thrown = plan.get("Rows Removed by Filter", 0) + plan.get(
            "Rows Removed by Index Recheck", 0
        )
        own = round((plan["Actual Rows"] + thrown) * plan["Actual Loops"])
    return own + sum(rows_read(part) for part in plan.get("Plans", ()))


def test_long_history_is_not_read(connection) -> None:
    symbols = ["A", "B", "C"]
    for symbol in symbols:
        fill(connection, symbol, SINCE - timedelta(days=40), NEWEST)
    connection.execute("ANALYZE market.candles_1m")
    asked = {
        "symbols": symbols,
        "since": SINCE,
        "now": NOW,
        "patience": "600 s",
        "gap_patience": "1800 s",
    }
    for query, most in ((health._SYMBOLS, 10), (health._SYMBOL_ROWS, 2 * 3 * 1440 + 10)):
        row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", asked).fetchone()
        assert row is not None
        assert 0 < rows_read(row[0][0]["Plan"]) <= most
    assert known_symbols(connection, since=SINCE) == symbols


def test_command_reports_by_json_and_exit_code(connection, database_url: str) -> None:
    fill(connection, "A", SINCE - MINUTE, datetime.now(UTC).replace(second=0, microsecond=0))

    def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", "status", *arguments],
            cwd=ROOT,
            env={"DATABASE_URL": url, "PATH": "", "CANDELABRA_HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    well = run(database_url, "--json")
    assert (well.returncode, json.loads(well.stdout)["findings"]) == (0, []), well.stderr
    connection.execute("DELETE FROM market.candles_1m WHERE open_time > %s", (NOW - 20 * MINUTE,))
    leave_open(connection, "A", NOW - 5 * MINUTE)  # the database server may have just started
    ill = run(database_url, "--symbols", "a")
    assert (ill.returncode, "no new minute for over 3 minutes: A" in ill.stdout) == (1, True)
    away = run("postgresql://me:s3cret@127.0.0.1:1/db", "--json")
    assert (away.returncode, json.loads(away.stdout)["healthy"]) == (2, False)
    assert "127.0.0.1:1/db" in away.stderr
    assert "s3cret" not in away.stderr + away.stdout
    assert run(database_url, "--since", "yesterday").returncode == 2


def test_reader_role_can_query_health(connection) -> None:
    connection.execute("SET ROLE candelabra_reader")
    assert schema_revision(connection) == newest_revision()
    assert known_symbols(connection, since=SINCE) == []
    assert read(connection, "A").quality is None


def test_unknown_symbol_is_refused_and_a_listed_one_has_no_candle(connection, database_url) -> None:
    settings = load_settings(reader_database_url=database_url)
    assert read_status(settings=settings, symbols=["NOPE"]).health  # nothing is known yet
    fill(connection, "A", NEWEST - MINUTE, NEWEST)
    with pytest.raises(WrongValueError, match=r"--symbols NOPE: no candle, .*; there are A$"):
        read_status(settings=settings, symbols=["A", "NOPE"])
    connection.execute(
        "INSERT INTO market.instruments (symbol, listed_from, market, exchange_symbol, base_asset, "
        "quote_asset, status, tick_size, step_size, quote_volume_is_exact, seen_at) "
        "VALUES ('NOPE', now(), 'spot', 'NOPE', 'N', 'OPE', 'TRADING', 1, 1, true, now())"
    )
    assert read_status(settings=settings, symbols=["NOPE"]).health is not None


def test_oldest_open_candle_and_newest_klines_show_a_start_and_a_load(connection) -> None:
    fill(connection, "A", NEWEST - MINUTE, NEWEST)
    assert one(connection, "A").oldest_live is None
    for age in (2_000, 5, 1):  # the first was left by a streamer that ended
        leave_open(connection, "A", NEWEST - age * MINUTE)
    assert one(connection, "A").oldest_live == NEWEST - 5 * MINUTE
    assert read(connection, "A").klines_loaded_at is None
    for kind, at in (("klines", NEWEST - MINUTE), ("agg_trades", NEWEST)):
        connection.execute(
            "INSERT INTO ops.dump_files (path, checksum, kind, fetched_at, rows, verdict) "
            "VALUES (%s, 'x', %s, %s, 1, 'loaded')",
            (kind, kind, at),
        )
    assert read(connection, "A").klines_loaded_at == NEWEST - MINUTE
