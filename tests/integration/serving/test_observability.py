"""Metrics and probes of a whole streamer over HTTP, through faults."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from include.errors import PermanentError
from serving.beside_streamer import BESIDE_STREAMER
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from streamer.health.metrics import METRICS
from streamer.symbols.startup import StreamOptions
from tests.integration.streamer.harness import (
    minutes_of,
    settings_for,
    streaming,
    wait_for_rows,
)

FAST = SimulatorConfig(speed=20)
SYMBOLS = ["BTCUSDT", "ETHBTC", "BTCUSDT.P"]
OWN_PORT = {"streamer_http_port": 0}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def ask(streamer: Streamer, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=streamer.telemetry.http_url, timeout=60) as client:
        return await client.get(path)


async def scrape(streamer: Streamer) -> Samples:
    """All samples, as a Prometheus reads them."""
    answer = await ask(streamer, "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def until_ready(streamer: Streamer, wanted: Callable[[dict[str, Any]], bool]) -> Any:
    """The body of /ready once it is as wanted; its status code always fits it."""
    body: dict[str, Any] = {}
    try:
        async with asyncio.timeout(45):
            while True:
                if streamer.telemetry.http_url:
                    answer = await ask(streamer, "/ready")
                    body = answer.json()
                    assert (answer.status_code == 200) == (body["status"] == "ready"), body
                    assert (body["reasons"] == []) == (body["status"] == "ready"), body
                    if wanted(body):
                        return body
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"/ready stayed {body}") from None


def is_ready(body: dict[str, Any]) -> bool:
    return bool(body["status"] == "ready")


def has_reason(code: str) -> Callable[[dict[str, Any]], bool]:
    return lambda body: any(reason["code"] == code for reason in body["reasons"])


async def test_metrics_account_for_every_frame_and_row(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url, **OWN_PORT)
        async with streaming(settings, *SYMBOLS) as streamer:
            rows = await wait_for_rows(
                database_url,
                lambda rows: all(len(minutes_of(rows, symbol)) >= 3 for symbol in SYMBOLS),
            )
            found = await scrape(streamer)
            feeds = {feed.connection.name: feed.frames for feed in streamer.telemetry.feeds}
    assert value(found, "candelabra_rows_written_total") >= len(rows)
    assert value(found, "candelabra_batch_rows_sum") == value(
        found, "candelabra_rows_written_total"
    )
    assert value(found, "candelabra_candles_closed_total", status="verified") >= len(rows)
    assert value(found, "candelabra_verifications_total", verdict="equal") > 0
    differing = value(found, "candelabra_verifications_total", verdict="differing")
    assert differing <= streamer.telemetry.counts["differing"]
    for connection, frames in feeds.items():
        kinds = ("trade", "kline", "answer", "shutdown", "unknown", "bad")
        by_kind = {
            kind: value(found, "candelabra_frames_total", connection=connection, kind=kind)
            for kind in kinds
        }
        assert 0 < sum(by_kind.values()) <= frames
        assert by_kind["trade"] > by_kind["kline"] > by_kind["answer"] > 0
        assert by_kind["bad"] == by_kind["unknown"] == 0
    of_spot = {"market": "spot", "carries": "candles"}
    assert value(found, "candelabra_connections", **of_spot, state="delivering") == 1
    assert value(found, "candelabra_symbols", market="spot", state="live") == 2
    assert value(found, "candelabra_symbols", market="um", state="live") == 1
    assert value(found, "candelabra_lag_seconds_count", market="spot") > 0
    assert value(found, "candelabra_queue_bound", queue="candles") == settings.buffer_rows
    assert value(found, "candelabra_database_up") == 1
    assert value(found, "process_resident_memory_bytes") > 10_000_000
    names = {name for name, _ in found}
    suffix = {"counter": "_total", "gauge": "", "histogram": "_bucket"}
    missing = {
        name
        for name, one in METRICS.items()
        if name + suffix[one.kind] not in names
        and not name.startswith(("candelabra_capture", "candelabra_nats"))  # neither is switched on
    }
    assert missing <= {
        "candelabra_repairs_requested"
    }  # has a series for each cause, once there is one


async def test_disconnected_streamer_is_not_ready_until_its_streams_deliver(
    database_url: str,
) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url, **OWN_PORT)
        async with streaming(settings, *SYMBOLS) as streamer:
            ready = await until_ready(streamer, is_ready)
            assert sum(ready["symbols"].values()) == len(SYMBOLS)
            before = await scrape(streamer)
            exchange.stream_servers["spot"].cut()
            unready = await until_ready(streamer, has_reason("disconnected"))
            assert [r["message"] for r in unready["reasons"]] == ["connection spot-1 is not open"]
            alive = await ask(streamer, "/health")
            assert (alive.status_code, alive.json()["status"]) == (200, "alive")
            await until_ready(streamer, is_ready)
            after = await scrape(streamer)
    name = "candelabra_reconnects_total"
    assert value(after, name, connection="spot-1") > value(before, name, connection="spot-1")
    assert value(after, name, connection="um-1") == value(before, name, connection="um-1")


class Gateway:
    """The way to PostgreSQL, which can be closed."""

    def __init__(self, database_url: str) -> None:
        self.to = urlsplit(database_url)
        self.is_closed = False
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        """The database's URL by way of here."""
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            login = self.to.netloc.rpartition("@")[0]
            yield self.to._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()
            self.close()

    def close(self) -> None:
        self.is_closed = True
        for writer in self._writers:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_closed:
            writer.close()
            return
        there, back = await asyncio.open_connection(self.to.hostname, self.to.port)
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()


async def test_streamer_without_database_is_alive_but_not_ready(
    database_url: str,
) -> None:
    gateway = Gateway(database_url)
    async with Exchange(FAST) as exchange, gateway.opened() as url:
        settings = settings_for(exchange, url, **OWN_PORT)
        async with streaming(settings, *SYMBOLS) as streamer:
            await until_ready(streamer, is_ready)
            gateway.close()
            unready = await until_ready(streamer, has_reason("database"))
            assert {reason["code"] for reason in unready["reasons"]} == {"database"}
            away = await scrape(streamer)
            assert value(away, "candelabra_database_up") == 0
            assert (await ask(streamer, "/health")).status_code == 200
            gateway.is_closed = False
            await until_ready(streamer, is_ready)
            back = await scrape(streamer)
    assert value(back, "candelabra_write_failures_total") > 0
    assert value(back, "candelabra_database_up") == 1


async def test_starting_streamer_is_alive_but_not_ready(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url, **OWN_PORT)
    # The exchange is gone: the start waits for it.
    async with streaming(settings, "BTCUSDT") as streamer:
        body = await until_ready(streamer, has_reason("starting"))
        assert body["symbols"]["live"] == 0
        assert (await ask(streamer, "/health")).status_code == 200
        assert value(await scrape(streamer), "candelabra_started") == 0


async def test_disabled_http_server_does_not_listen(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url, streamer_http=False)
        async with streaming(settings, "BTCUSDT") as streamer:
            await wait_for_rows(database_url, lambda rows: len(rows) >= 1)
            assert streamer.telemetry.http_url == ""


async def test_port_in_use_ends_the_start_with_a_remedy(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with Exchange(FAST) as exchange:
            settings = settings_for(exchange, database_url, streamer_http_port=port)
            streamer = Streamer(settings, StreamOptions(symbols=("BTCUSDT",)), BESIDE_STREAMER)
            with pytest.raises(PermanentError, match=rf"STREAMER_HTTP_PORT={port}.*free the port"):
                await asyncio.wait_for(streamer.run(), 20)
