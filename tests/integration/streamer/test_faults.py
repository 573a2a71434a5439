"""The streamer where its surroundings fail: database, sockets, frames and REST."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import CapturingLogger
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from include.backoff import Backoff
from include.domain.timeframes import MINUTE_US, SECOND_US, minute_of
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer import app
from streamer.candles import feed
from streamer.exchange import connection
from streamer.exchange import feed as connection_feed
from streamer.health import watchdog
from streamer.storage import repair_queue as repair
from streamer.symbols import startup
from tests.integration.streamer.harness import (
    minutes_continue,
    minutes_of,
    passed,
    rows_of,
    settings_for,
    streaming,
    wait_for_rows,
)
from tests.integration.streamer.storage.own_server import Server, own_server

SYMBOLS = ["BTCUSDT", "ETHBTC", "BTCUSDT.P"]
FAST = SimulatorConfig(speed=40)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """What the streamer's modules say."""
    log = CapturingLogger()
    for module in (app, connection, connection_feed, feed, repair, startup, watchdog):
        monkeypatch.setattr(module, "log", log)
    return log


def events(log: CapturingLogger) -> list[str]:
    return [call.args[0] for call in log.calls]


async def logged(log: CapturingLogger, event: str) -> None:
    async with asyncio.timeout(30):
        while event not in events(log):
            await asyncio.sleep(0.01)


# --- the database


async def test_database_restart_loses_no_minute(server: Server) -> None:
    url = server.database("dies")
    async with Exchange(FAST) as exchange, streaming(settings_for(exchange, url), *SYMBOLS):
        await wait_for_rows(url, lambda rows: all(minutes_of(rows, s) for s in SYMBOLS))
        await asyncio.to_thread(server.kill)
        try:
            await passed(exchange, exchange.clock.now_us() + 2 * MINUTE_US)
        finally:
            await asyncio.to_thread(server.start_again)
        await minutes_continue(exchange, url, SYMBOLS)


async def test_start_waits_for_an_unavailable_database(
    server: Server, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "BACKOFF", Backoff(first_s=0.5, max_s=0.5, min_s=0.1))
    url = server.database("down")
    await asyncio.to_thread(server.kill)
    async with Exchange(FAST) as exchange, streaming(settings_for(exchange, url), "BTCUSDT"):
        try:
            await logged(log, "start_postponed")
        finally:
            await asyncio.to_thread(server.start_again)
        await minutes_continue(exchange, url, ["BTCUSDT"])


# --- stops


async def test_stop_soon_after_a_disconnect_leaves_no_missing_minute(
    database_url: str, log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repairs that were waiting when the streamer stopped are requested at the next start."""
    symbols = ["BTCUSDT", "ETHBTC"]  # one whose candles can be aggregated, one whose cannot
    monkeypatch.setattr(connection, "BACKOFF", Backoff(first_s=0.12, max_s=30.0, min_s=0.05))
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        with monkeypatch.context() as patch:
            patch.setattr(repair, "REST_DELAY_US", 3_600 * SECOND_US)  # it stops before that
            async with streaming(settings, *symbols):
                await wait_for_rows(
                    database_url, lambda rows: all(minutes_of(rows, s) for s in symbols)
                )
                now_us = exchange.clock.now_us()
                cut_us = minute_of(now_us + 20 * SECOND_US)
                at = f"+{(cut_us + MINUTE_US - now_us) / SECOND_US - 2:.1f}s"
                exchange.faults.add(  # the minute's closed kline does not arrive
                    [
                        {"kind": "refuse", "market": "spot", "at": at, "duration_s": 6},
                        {"kind": "cut", "market": "spot", "at": at},
                    ]
                )
                await passed(exchange, cut_us + MINUTE_US + 4 * SECOND_US)
                rows = await wait_for_rows(
                    database_url,
                    lambda rows: all(minutes_of(rows, s)[-1] > cut_us for s in symbols),
                )
        unsure = {rows[s, cut_us]["status"] if (s, cut_us) in rows else "" for s in symbols}
        assert "verified" not in unsure
        async with streaming(settings, *symbols):
            await minutes_continue(exchange, database_url, symbols, minutes=1)
        assert (await rows_of(database_url))["ETHBTC", cut_us]["source"] == "rest"


async def test_reconnect_does_not_mark_streams_as_dead(
    database_url: str, log: CapturingLogger
) -> None:
    async with (
        Exchange(SimulatorConfig(speed=20)) as exchange,  # a late kline shall not be the cause
        streaming(settings_for(exchange, database_url), *SYMBOLS) as streamer,
    ):
        await wait_for_rows(database_url, lambda rows: all(minutes_of(rows, s) for s in SYMBOLS))
        await passed(exchange, minute_of(exchange.clock.now_us()) + MINUTE_US - 5 * SECOND_US)
        exchange.stream_servers["spot"].cut()
        exchange.stream_servers["um"].cut()
        await minutes_continue(exchange, database_url, SYMBOLS)
        assert sum(one.connection.reconnects for one in streamer.telemetry.feeds) == 2
    assert "stream_dead" not in events(log)


# --- sockets


async def test_silent_connection_is_noticed_and_repaired(
    database_url: str, log: CapturingLogger
) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url, stale_stream_s=1.0)
        async with streaming(settings, "BTCUSDT", "ETHBTC") as streamer:
            await wait_for_rows(database_url, lambda rows: len(rows) >= 2)
            async with httpx.AsyncClient(base_url=exchange.control_url, timeout=60) as client:
                answer = await client.post("/sim/stall")
            assert answer.json() == {"stalled": 1}
            await minutes_continue(exchange, database_url, ["BTCUSDT", "ETHBTC"])
            assert streamer.telemetry.feeds[0].connection.reconnects == 1
    reasons = [c.kwargs["reason"] for c in log.calls if c.args[0] == "stream_disconnected"]
    assert reasons == ["no frame for 1 s"]


# --- frames


class Relay:
    """A proxy between streamer and exchange that injects frames."""

    def __init__(self, exchange_url: str) -> None:
        self._exchange_url = exchange_url
        self._clients: set[ServerConnection] = set()
        self.url = ""

    async def send(self, text: str) -> None:
        """Send a frame to the connected streamer."""
        assert self._clients
        for client in self._clients:
            await client.send(text)

    async def _serve(self, client: ServerConnection) -> None:
        assert client.request is not None
        async with connect(
            self._exchange_url + client.request.path, compression=None, proxy=None
        ) as upstream:
            self._clients.add(client)
            passing = asyncio.create_task(self._pass_on(client, upstream))
            try:
                async for message in upstream:
                    await client.send(message)
            except ConnectionClosed:
                pass  # one side left: so does the other
            finally:
                passing.cancel()
                self._clients.discard(client)

    async def _pass_on(self, client: ServerConnection, upstream: object) -> None:
        async for message in client:
            await upstream.send(message)  # type: ignore[attr-defined]
        await upstream.close()  # type: ignore[attr-defined]


@asynccontextmanager
async def relay(exchange: Exchange) -> AsyncIterator[Relay]:
    one = Relay(exchange.spot_ws_url)
    async with serve(
        one._serve, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=0.5
    ) as serving:
        one.url = f"ws://127.0.0.1:{serving.sockets[0].getsockname()[1]}"
        yield one


def trade(exchange: Exchange, **changes: object) -> str:
    now_us = exchange.clock.now_us()
    data = {
        "e": "aggTrade", "E": now_us, "s": "BTCUSDT", "a": 1 << 40, "p": "1.0", "q": "1",
        "f": 1 << 40, "l": 1 << 40, "T": now_us, "m": False, "M": True,
    }  # fmt: skip
    return json.dumps({"stream": "btcusdt@aggTrade", "data": data | changes})


async def test_invalid_frames_are_counted_logged_and_skipped(
    database_url: str, log: CapturingLogger
) -> None:
    async with Exchange(FAST) as exchange, relay(exchange) as between:
        settings = settings_for(exchange, database_url).model_copy(
            update={"binance_ws_url": between.url}
        )
        async with streaming(settings, "BTCUSDT") as streamer:
            await wait_for_rows(database_url, lambda rows: len(rows) >= 1)
            await between.send("<html>502 Bad Gateway</html>")
            await between.send(trade(exchange, p="NaN"))
            await between.send(trade(exchange, q="Infinity"))
            await between.send(trade(exchange, p=None))
            await between.send(trade(exchange, e="bookTicker"))
            await between.send(trade(exchange, s="DOGEUSDT"))
            await minutes_continue(exchange, database_url, ["BTCUSDT"])
            (feeding,) = streamer.telemetry.feeds
            assert feeding.bad_frames == 4
            assert feeding.unknown == {"event bookTicker": 1, "symbol DOGEUSDT": 1}
            assert feeding.connection.reconnects == 0
            (aggregator,) = streamer._aggregators
            assert aggregator.duplicates == 0
    said = events(log)
    assert (said.count("bad_frame"), said.count("unknown_frame")) == (4, 2)
    assert not {"trades_missing", "kline_differs"} & set(said)


# --- REST


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_streamer_stops_while_rest_hangs(database_url: str, number: signal.Signals) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(60)
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "stream", "--symbols", "BTCUSDT"],
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "BINANCE_WS_URL": f"ws://{host}",
                "BINANCE_REST_URL": f"http://{host}",
                "HTTP_TIMEOUT_S": "120",
                "LOG_FORMAT": "json",
                "PYTHONPATH": str(Path(__file__).parents[3]),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            asked, _ = silent.accept()
            with asked:
                asked.settimeout(30)
                assert asked.recv(4096).startswith(b"GET /api/v3/")
                process.send_signal(number)
                said = process.communicate(timeout=30)[1]
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, said
    assert "Traceback" not in said
