"""A quote stream that the exchange has lost, while its neighbours on the connection deliver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.capture.app import SILENT
from streamer.capture.intake import watch
from tests.integration.streamer.capture.queries import BOOK_TICKERS, wait_until
from tests.integration.streamer.harness import settings_for, streaming


async def test_dead_book_ticker_stream_is_subscribed_again_and_recorded(
    database_url: str,
    rows_of: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "POLL_INTERVAL_S", 0.3)
    monkeypatch.setattr(watch, "DEAD_AFTER_S", 1.5)
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        symbols = ("BTCUSDT", "ETHUSDT")
        async with streaming(settings, *symbols, capture=("book_tickers",)) as streamer:

            async def has_book_tickers() -> bool:
                return all([len(await rows_of(BOOK_TICKERS, one)) > 20 for one in symbols])

            await wait_until(has_book_tickers)
            spot = exchange.stream_servers["spot"]
            for connection in spot.connections:
                spot.hub.unsubscribe(connection, ["btcusdt@bookTicker"])
            before = len(await rows_of(BOOK_TICKERS, "BTCUSDT"))

            async def is_recorded() -> bool:
                gaps = await rows_of(
                    "SELECT symbol, cause FROM ops.gaps WHERE dataset <> 'candles'"
                )
                return ("BTCUSDT", SILENT) in gaps

            await wait_until(is_recorded)

            async def revived() -> bool:
                return len(await rows_of(BOOK_TICKERS, "BTCUSDT")) > before + 50

            await wait_until(revived)
            assert streamer._capture._watch.dead == 1
            assert all(feed.connection.reconnects == 0 for feed in streamer._capture._feeds.feeds)
        lost = await rows_of("SELECT DISTINCT symbol FROM ops.gaps WHERE cause = %s", SILENT)
        assert lost == [("BTCUSDT",)]
