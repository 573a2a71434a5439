"""What each role can and cannot do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from include.domain.candles import Source
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import acquire_weight, add_coverage, open_gap
from include.store.migrate import DBT, FIRST_ROLES, JOBS, READER, STREAMER
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle

Connection = psycopg.Connection[Any]
ActingAs = Callable[[str], AbstractContextManager[Connection]]

MINUTE = (NOVEMBER_END_US, NOVEMBER_END_US + 60_000_000)


@pytest.mark.parametrize("role", [STREAMER, JOBS])
def test_writers_can_insert_confirm_change_and_lose(acting_as: ActingAs, role: str) -> None:
    with acting_as(role) as connection:
        inserted = merge_candidates(connection, [candidate(Source.STREAM)])
        confirmed = merge_candidates(connection, [candidate(Source.KLINE)])
        changed = merge_candidates(connection, [candidate(Source.REST, candle(price="11"))])
        lost = merge_candidates(connection, [candidate(Source.KLINE)])
        add_coverage(connection, "BTCUSDT", "kline", [MINUTE])
        open_gap(connection, symbol="A", start_us=MINUTE[0], end_us=MINUTE[1], cause="cut")
        granted = acquire_weight(connection, "api.example.com", 2).granted
        connection.execute("SELECT ops.delete_live_candles('{A}', '{2025-11-21}')")
        connection.execute("SELECT ops.rotate_live_candles()")
        for table in ("agg_trades", "trades", "book_tickers", "liquidations"):
            connection.execute(
                "SELECT ops.ensure_partition(%s::regclass, '2026-11-21')", (f"market.{table}",)
            )

    assert (inserted.inserted, confirmed.confirmed, changed.changed) == (1, 1, 1)
    assert (changed.discrepancies, lost.unchanged) == (1, 1)
    assert granted


FORBIDDEN = {
    STREAMER: [
        "DELETE FROM market.candles_1m",
        "TRUNCATE market.candles_1m",
        "DROP TABLE market.candles_1m",
        "DROP TABLE ops.live_candles_1",
        "DELETE FROM ops.live_candles_1",
        "UPDATE ops.live_candle_table SET number = 2",
        "CREATE TABLE market.mine (x int)",
        "INSERT INTO ops.candle_changes (symbol, minutes) VALUES ('X', '{}')",
        "DELETE FROM ops.candle_changes",
        "DELETE FROM ops.gaps",
        "UPDATE ops.weight_budget SET used = 0",
        "CREATE TABLE marts.mine (x int)",
        "SELECT ops.log_outage('spot', NULL, '{}')",
        "ALTER TABLE market.candles_1m DISABLE TRIGGER ALL",
    ],
    JOBS: [
        "TRUNCATE market.candles_1m",
        "DROP TABLE market.candles_1m",
        "CREATE TABLE ops.mine (x int)",
        "DELETE FROM ops.candle_changes",
        "DELETE FROM ops.build_cursors",
        "CREATE TABLE marts.mine (x int)",
        "CREATE SCHEMA mine",
    ],
    DBT: [
        "INSERT INTO market.instruments DEFAULT VALUES",
        "UPDATE market.candles_1m SET revision = 0",
        "DELETE FROM market.candles_1m",
        "INSERT INTO ops.candle_changes (symbol, minutes) VALUES ('X', '{}')",
        "SELECT * FROM ops.merge_candidates()",
        "SELECT ops.ensure_partition('market.candles_1m', now())",
        "CREATE SCHEMA mine",
    ],
    READER: [
        "DELETE FROM market.candles_1m",
        "DELETE FROM ops.build_cursors",
        "CREATE TABLE marts.mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "SELECT * FROM ops.merge_candidates()",
        "SELECT * FROM ops.acquire_weight('h', 1)",
        "CREATE TABLE public.mine (x int)",
    ],
}


@pytest.mark.parametrize(
    ("role", "statement"), [(role, each) for role, some in FORBIDDEN.items() for each in some]
)
def test_statements_without_rights_are_refused(
    acting_as: ActingAs, connection: Connection, role: str, statement: str
) -> None:
    # A copied database has lost what the migration granted and revoked on it as a whole.
    grants = "REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT ON DATABASE {0} TO PUBLIC"
    connection.execute(sql.SQL(grants).format(sql.Identifier(connection.info.dbname)))
    merge_candidates(connection, [candidate()])

    with acting_as(role), pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)


def test_readers_keep_access_to_a_mart_that_dbt_recreates(acting_as: ActingAs) -> None:
    for value in (1, 2):
        with acting_as(DBT) as connection:
            connection.execute("DROP TABLE IF EXISTS marts.candles_5m")
            connection.execute("CREATE TABLE marts.candles_5m AS SELECT %s::int AS value", (value,))
            connection.execute("DROP TABLE IF EXISTS marts_audit.failures")
            connection.execute("CREATE TABLE marts_audit.failures AS SELECT 1 AS value")
        for role in (READER, JOBS):
            with acting_as(role) as connection:
                seen = connection.execute("SELECT value FROM marts.candles_5m").fetchone()
                connection.execute("SELECT value FROM marts_audit.failures")
            assert seen == (value,)


def test_dbt_can_build_from_the_market_and_keep_its_cursors(acting_as: ActingAs) -> None:
    with acting_as(JOBS) as connection:
        merge_candidates(connection, [candidate()])
    with acting_as(DBT) as connection, connection.transaction():
        connection.execute("CREATE TEMPORARY TABLE touched AS SELECT * FROM ops.candle_changes")
        connection.execute("CREATE TABLE marts.bars AS SELECT * FROM market.candles_1m")
        connection.execute("SELECT * FROM ops.outages")
        connection.execute(
            """
            INSERT INTO ops.build_cursors (relation, target, system_identifier, snapshot)
            VALUES ('marts.bars', 'prod', ops.system_identifier(), pg_current_snapshot())
            """
        )
        connection.execute("UPDATE ops.build_cursors SET snapshot = pg_current_snapshot()")
        connection.execute("DELETE FROM ops.candle_changes")
        connection.execute("DELETE FROM ops.build_cursors")
        built = connection.execute("SELECT count(*) FROM marts.bars").fetchone()

    assert built == (1,)


@pytest.mark.parametrize("role", FIRST_ROLES)
def test_every_role_reads_every_table_of_market_and_ops(
    acting_as: ActingAs, connection: Connection, role: str
) -> None:
    merge_candidates(connection, [candidate()])
    names = connection.execute(
        """
        SELECT c.oid::regclass::text FROM pg_class AS c
        WHERE
            c.relnamespace::regnamespace::text IN ('market', 'ops')
            AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
        """
    ).fetchall()
    with acting_as(role):
        for (name,) in names:
            connection.execute(f"SELECT * FROM {name} LIMIT 1")  # noqa: S608 - from the catalog

    assert len(names) >= 18
