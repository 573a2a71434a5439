"""The streamer while PostgreSQL is slow, full, read-only, restarted or taken over by another."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from structlog.testing import CapturingLogger

from deploy.local.postgres import EmbeddedPostgres
from include.backoff import Backoff
from include.domain.timeframes import MINUTE_US
from include.store.migrate import migrate
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from streamer.storage import gap_ledger as ledger
from streamer.storage import writer
from tests.integration.streamer.harness import (
    minutes_continue,
    minutes_of,
    passed,
    settings_for,
    streaming,
    wait_for_rows,
)
from tests.integration.streamer.storage.test_gap_ledger import until_gaps

SYMBOLS = ["BTCUSDT", "ETHBTC", "BTCUSDT.P"]
FAST = SimulatorConfig(speed=30)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (writer, ledger):
        monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.1, max_s=0.3, min_s=0.05))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(writer, "log", log)
    return log


def events_named(log: CapturingLogger, event: str) -> list[dict[str, object]]:
    return [call.kwargs for call in log.calls if call.args[0] == event]


@contextmanager
def owner(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    with connect(postgres.url("postgres"), application_name="test") as connection:
        yield connection


def drop_sessions(connection: psycopg.Connection, database: str) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid()",
        (database,),
    )


@asynccontextmanager
async def at_work(
    exchange: Exchange, url: str, *, buffer_rows: int = 10_000
) -> AsyncIterator[Streamer]:
    settings = settings_for(exchange, url).model_copy(update={"buffer_rows": buffer_rows})
    async with streaming(settings, *SYMBOLS) as streamer:
        await wait_for_rows(url, lambda rows: all(minutes_of(rows, s) for s in SYMBOLS))
        yield streamer


async def minutes_pass(exchange: Exchange, minutes: float) -> None:
    await passed(exchange, exchange.clock.now_us() + round(minutes * MINUTE_US))


@pytest.mark.long
async def test_read_only_primary_is_waited_out_without_refusing_rows(
    postgres: EmbeddedPostgres, database_url: str, log: CapturingLogger
) -> None:
    name = database_url.rsplit("/", 1)[1]
    read_only = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    async with Exchange(FAST) as exchange, at_work(exchange, database_url):
        with owner(postgres) as connection:
            connection.execute(read_only.format(sql.Identifier(name), sql.SQL("on")))
            drop_sessions(connection, name)
            await minutes_pass(exchange, 2.5)
            connection.execute(read_only.format(sql.Identifier(name), sql.SQL("off")))
            drop_sessions(connection, name)
        await minutes_continue(exchange, database_url, SYMBOLS)
    assert events_named(log, "candle_refused") == []
    errors = " ".join(str(one["error"]) for one in events_named(log, "write_postponed"))
    assert "read-only" in errors
    (backlog_written, *_) = events_named(log, "backlog_written")
    assert int(str(backlog_written["rows"])) >= 6


FULL = """
CREATE FUNCTION public.no_space() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100';
END
$$;
CREATE TRIGGER full_disk BEFORE INSERT ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION public.no_space();
"""


@pytest.mark.long
async def test_writer_waits_for_a_full_disk_in_bounded_memory(
    database_url: str, log: CapturingLogger
) -> None:
    async with (
        Exchange(FAST) as exchange,
        at_work(exchange, database_url, buffer_rows=4) as streamer,
    ):
        writer = streamer.telemetry.writer
        with connect(database_url, application_name="test") as connection:
            tables = ("market.candles_1m", "market.live_candles", "ops.gaps")
            for number, table in enumerate(tables):
                statement = FULL.replace("{table}", table).replace("no_space", f"full_{number}")
                connection.execute(statement)  # type: ignore[arg-type]
            async with asyncio.timeout(60):
                while writer.overflowed < 4 * len(SYMBOLS):
                    assert writer.waiting <= 4
                    await asyncio.sleep(0.01)
            for table in tables:
                connection.execute(f"DROP TRIGGER full_disk ON {table}")  # type: ignore[arg-type]
        await minutes_continue(exchange, database_url, SYMBOLS)
        # Not by cause: a late kline may have opened the gap before the buffer was full.
        await until_gaps(database_url, lambda gaps: {gap["symbol"] for gap in gaps} == set(SYMBOLS))
    assert max(int(str(one["waiting"])) for one in events_named(log, "write_postponed")) <= 4
    assert events_named(log, "candle_refused") == []


@pytest.mark.long
async def test_statement_that_waits_for_a_lock_is_cancelled_and_retried(
    database_url: str, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WRITE_TIMEOUT_S", 0.5)
    async with Exchange(FAST) as exchange, at_work(exchange, database_url):
        with connect(database_url, application_name="test") as connection:
            with connection.transaction():
                connection.execute("LOCK TABLE market.candles_1m IN ACCESS EXCLUSIVE MODE")
                await minutes_pass(exchange, 4)
            left = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'candelabra-streamer'"
            ).fetchone()
        await minutes_continue(exchange, database_url, SYMBOLS)
    assert len(events_named(log, "write_postponed")) >= 2
    assert left is not None
    assert left[0] <= 1  # nothing that was given up goes on behind our back
    assert len(events_named(log, "backlog_written")) >= 1


@pytest.mark.long
async def test_sessions_ended_by_the_server_lose_no_minute(
    postgres: EmbeddedPostgres, database_url: str, log: CapturingLogger
) -> None:
    name = database_url.rsplit("/", 1)[1]
    async with Exchange(FAST) as exchange, at_work(exchange, database_url):
        with owner(postgres) as connection:
            for _ in range(5):
                drop_sessions(connection, name)
                await minutes_pass(exchange, 0.5)
        await minutes_continue(exchange, database_url, SYMBOLS)
    assert events_named(log, "candle_refused") == []


@contextmanager
def two_servers() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres, str]]:
    """The first takes writes, the second is read-only as a standby; a URL that names both."""
    with tempfile.TemporaryDirectory(prefix="candelabra-failover-") as folder:
        Path(folder).chmod(0o755)
        few = {"fsync": "off", "shared_buffers": "32MB"}
        with (
            EmbeddedPostgres(Path(folder) / "one", settings=few) as one,
            EmbeddedPostgres(Path(folder) / "two", settings=few) as two,
        ):
            for server in (one, two):
                migrate(server.create_database("candles"))
                with connect(server.url("candles"), application_name="test") as connection:
                    connection.execute("ALTER ROLE candelabra PASSWORD 'the-same'")
            with connect(at(two), application_name="test") as connection:
                connection.execute("ALTER DATABASE candles SET default_transaction_read_only = on")
            yield one, two, at(one).replace("/candles", f",127.0.0.1:{two.port}/candles")


def at(server: EmbeddedPostgres) -> str:
    return server.url("candles", password="the-same")


@pytest.mark.long
async def test_after_a_failover_the_writable_server_is_found(log: CapturingLogger) -> None:
    with two_servers() as (one, two, url):
        async with Exchange(FAST) as exchange, streaming(settings_for(exchange, url), *SYMBOLS):
            await wait_for_rows(at(one), lambda rows: all(minutes_of(rows, s) for s in SYMBOLS))
            await asyncio.to_thread(one.kill)
            await minutes_pass(exchange, 2)
            with connect(at(two), application_name="test") as connection:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute("ALTER DATABASE candles SET default_transaction_read_only = off")
            await minutes_continue(exchange, at(two), SYMBOLS)
    assert events_named(log, "candle_refused") == []
    assert "read-only" in " ".join(
        str(one["error"]) for one in events_named(log, "write_postponed")
    )
