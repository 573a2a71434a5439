"""A server that takes over lacks stored rows: they are stored again, or recorded as lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.backoff import Backoff
from include.errors import TransientError
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from streamer.capture import writer as module
from streamer.capture.repair.stored_rows_check import LOST
from tests.integration.streamer.capture.queries import AGG_TRADES, Row, wait_until
from tests.integration.streamer.harness import settings_for, streaming
from tests.integration.streamer.storage.own_server import Server, own_server

SYMBOL = "BTCUSDT"
GONE_ROWS = 30
LAST_BOOK_TICKERS = (
    "SELECT update_id, received_at FROM market.book_tickers WHERE symbol = %s "
    "ORDER BY update_id DESC LIMIT %s"
)
GAPS = "SELECT cause, detail FROM ops.gaps WHERE dataset = 'book_tickers' AND symbol = %s"


@pytest.fixture
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


class Way:
    """The capture writer's way to PostgreSQL, which can be cut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_cut = False
        self._connect = module.connect_async
        monkeypatch.setattr(module, "connect_async", self.connect)
        monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.05, max_s=0.2))

    async def connect(self, *arguments: Any, **options: Any) -> Any:
        if self.is_cut:
            raise TransientError("the way is cut")
        return await self._connect(*arguments, **options)

    async def restart(self, server: Server, streamer: Streamer) -> None:
        """Kill PostgreSQL and start it; the way stays cut."""
        self.is_cut = True
        await asyncio.to_thread(server.kill)

        async def disconnected() -> bool:
            return streamer._capture.writer._connection is None

        await wait_until(disconnected)
        await asyncio.to_thread(server.start_again)


def query_rows(url: str, query: str, *arguments: object) -> list[Row]:
    with psycopg.connect(url) as connection:
        return connection.execute(query, arguments).fetchall()


async def test_rows_missing_on_a_standby_are_fetched_by_id_or_recorded_as_lost(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(monkeypatch)
    config = SimulatorConfig(speed=20, spot_symbols=(SYMBOL,), um_symbols=())
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, server.url, candelabra_home=tmp_path)
        datasets = ("agg_trades", "book_tickers")
        async with streaming(settings, SYMBOL, capture=datasets) as streamer:

            async def stored() -> bool:
                return all(
                    streamer._capture.writer.written[name] > 3 * GONE_ROWS for name in datasets
                )

            await wait_until(stored)
            await way.restart(server, streamer)
            trades = query_rows(server.url, AGG_TRADES, SYMBOL)
            quotes = query_rows(server.url, LAST_BOOK_TICKERS, SYMBOL, GONE_ROWS + 1)
            with psycopg.connect(server.url) as connection:  # as the new primary never had them
                connection.execute(
                    "DELETE FROM market.agg_trades WHERE agg_trade_id > %s",
                    (trades[-1 - GONE_ROWS][0],),
                )
                connection.execute(
                    "DELETE FROM market.book_tickers WHERE update_id > %s", (quotes[-1][0],)
                )
            way.is_cut = False
            goal = trades[-1][0] + 50

            async def is_complete() -> bool:
                rows = await asyncio.to_thread(query_rows, server.url, AGG_TRADES, SYMBOL)
                ids = [row[0] for row in rows]
                return ids[-1] > goal and ids == list(range(trades[0][0], ids[-1] + 1))

            await wait_until(is_complete)

            async def is_recorded() -> bool:
                gaps = await asyncio.to_thread(query_rows, server.url, GAPS, SYMBOL)
                return any(cause == LOST for cause, _ in gaps)

            await wait_until(is_recorded)
        ((_, detail),) = [gap for gap in query_rows(server.url, GAPS, SYMBOL) if gap[0] == LOST]
        (stretch,) = [name for name in detail if "/" in name]
        from_time, to_time = map(datetime.fromisoformat, stretch.split("/"))
        # A batch may be stored without an acknowledgement: it waits in memory and is sent again.
        assert from_time == quotes[-1][1] < to_time <= quotes[0][1]


async def test_server_that_returns_with_all_rows_causes_no_loss(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(monkeypatch)
    config = SimulatorConfig(speed=20, spot_symbols=(SYMBOL,), um_symbols=())
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, server.url, candelabra_home=tmp_path)
        async with streaming(settings, SYMBOL, capture=("book_tickers",)) as streamer:
            written = streamer._capture.writer.written

            async def more() -> bool:
                return written["book_tickers"] > goal

            goal = GONE_ROWS
            await wait_until(more)
            await way.restart(server, streamer)
            way.is_cut = False
            goal = written["book_tickers"] + GONE_ROWS
            await wait_until(more)
        assert query_rows(server.url, GAPS, SYMBOL) == []


async def test_rows_lost_between_the_read_of_a_start_and_its_first_write_are_stored_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(monkeypatch)
    config = SimulatorConfig(speed=20, spot_symbols=(SYMBOL,), um_symbols=())
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, server.url, candelabra_home=tmp_path)
        async with streaming(settings, SYMBOL, capture=("agg_trades",)) as streamer:

            async def stored() -> bool:
                return streamer._capture.writer.written["agg_trades"] > 3 * GONE_ROWS

            await wait_until(stored)
        way.is_cut = True
        async with streaming(settings, SYMBOL, capture=("agg_trades",)) as streamer:

            async def is_read() -> bool:
                return streamer._capture._resumption.is_complete

            await wait_until(is_read)
            await way.restart(server, streamer)
            trades = query_rows(server.url, AGG_TRADES, SYMBOL)
            with psycopg.connect(server.url) as connection:  # as the new primary never had them
                connection.execute(
                    "DELETE FROM market.agg_trades WHERE agg_trade_id > %s",
                    (trades[-1 - GONE_ROWS][0],),
                )
            way.is_cut = False
            goal = trades[-1][0] + 50

            async def is_complete() -> bool:
                rows = await asyncio.to_thread(query_rows, server.url, AGG_TRADES, SYMBOL)
                ids = [row[0] for row in rows]
                return ids[-1] > goal and ids == list(range(trades[0][0], ids[-1] + 1))

            await wait_until(is_complete, timeout_s=60)


async def test_rows_missing_on_a_standby_are_recorded_by_the_next_process_after_a_kill(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(monkeypatch)
    config = SimulatorConfig(speed=20, spot_symbols=(SYMBOL,), um_symbols=())
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, server.url, candelabra_home=tmp_path)
        with contextlib.suppress(asyncio.CancelledError):
            async with streaming(settings, SYMBOL, capture=("book_tickers",)) as streamer:
                capture = streamer._capture

                async def stored() -> bool:
                    return capture.writer.written["book_tickers"] > 3 * GONE_ROWS

                await wait_until(stored)
                await way.restart(server, streamer)

                async def is_spooled() -> bool:
                    return capture.spool.size_bytes > 0

                await wait_until(is_spooled)
                raise asyncio.CancelledError  # as killed: nothing is flushed
        quotes = query_rows(server.url, LAST_BOOK_TICKERS, SYMBOL, GONE_ROWS + 1)
        with psycopg.connect(server.url) as connection:  # as the new primary never had them
            connection.execute(
                "DELETE FROM market.book_tickers WHERE update_id > %s", (quotes[-1][0],)
            )
        way.is_cut = False
        async with streaming(settings, SYMBOL, capture=("book_tickers",)) as streamer:

            async def is_recorded() -> bool:
                gaps = await asyncio.to_thread(query_rows, server.url, GAPS, SYMBOL)
                return any(cause == LOST for cause, _ in gaps)

            await wait_until(is_recorded)
        ((_, detail),) = [gap for gap in query_rows(server.url, GAPS, SYMBOL) if gap[0] == LOST]
        (stretch,) = [name for name in detail if "/" in name]
        from_time, to_time = map(datetime.fromisoformat, stretch.split("/"))
        assert from_time == quotes[-1][1] < to_time <= quotes[0][1]
