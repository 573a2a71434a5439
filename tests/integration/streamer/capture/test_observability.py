"""Metrics of raw capture's own connections and of what was lost with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from include.domain.instruments import Market
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from streamer.capture.app import Capture
from tests.integration.streamer.capture.queries import wait_until
from tests.integration.streamer.harness import settings_for, streaming

FAST = SimulatorConfig(speed=20)
BOOK_TICKERS = ("book_tickers",)
LOSSES = "candelabra_capture_losses_total"


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """The URL of a server that turns everybody away."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def scrape(streamer: Streamer) -> dict[tuple[str, frozenset[str]], float]:
    """Samples by name and the values of their labels."""
    async with httpx.AsyncClient(base_url=streamer.telemetry.http_url, timeout=60) as client:
        answer = await client.get("/metrics")
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_refused_capture_connection_is_down_while_candles_are_delivered(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Exchange(FAST) as exchange, refusing() as url:

        def routes(_: Capture, market: Market) -> dict[str, list[str]]:
            return {url: ["bookTicker"]}

        monkeypatch.setattr(Capture, "_routes", routes)
        settings = settings_for(
            exchange, database_url, candelabra_home=tmp_path, streamer_http_port=0
        )
        async with streaming(settings, "BTCUSDT", capture=BOOK_TICKERS) as streamer:

            async def is_reported() -> bool:
                if not streamer.telemetry.http_url:
                    return False
                found = await scrape(streamer)
                down = [
                    found.get(("candelabra_connections", frozenset({"spot", carries, state})))
                    for carries, state in (("candles", "delivering"), ("capture", "down"))
                ]
                refused = found.get(
                    ("candelabra_connects_refused_total", frozenset({"spot-capture-1"})), 0
                )
                return down == [1, 1] and refused > 0

            await wait_until(is_reported)


async def test_book_tickers_lost_by_a_disconnect_are_counted(
    database_url: str, tmp_path: Path
) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(
            exchange, database_url, candelabra_home=tmp_path, streamer_http_port=0
        )
        async with streaming(settings, "BTCUSDT", capture=BOOK_TICKERS) as streamer:

            async def delivers() -> bool:
                if not streamer.telemetry.http_url:
                    return False
                found = await scrape(streamer)
                key = ("candelabra_frames_total", frozenset({"spot-capture-1", "captured"}))
                return found.get(key, 0) > 20

            await wait_until(delivers)
            before = (await scrape(streamer))[LOSSES, frozenset()]
            exchange.stream_servers["spot"].cut()

            async def is_counted() -> bool:
                return (await scrape(streamer))[LOSSES, frozenset()] > before

            await wait_until(is_counted)
            found = await scrape(streamer)
            assert found["candelabra_capture_events_total", frozenset({"lost"})] == 0
            assert found["candelabra_reconnects_total", frozenset({"spot-capture-1"})] > 0
