"""Figures of a streamer for its API and its log."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import CapturingLogger

from streamer.health import statistics as module
from streamer.health.states import SymbolState
from streamer.health.statistics import report, statistics
from streamer.hub.subscription import DeliveryCounts
from tests.unit.streamer.watched import Parts


async def test_statistics_list_each_connection_with_its_counters() -> None:
    parts = Parts()
    feed = parts.add("spot-1", "BTCUSDT", "ETHUSDT")
    feed.frames, feed.klines, feed.bad_frames, feed.other_frames["answer"] = 20, 5, 2, 1
    feed.exchange_us = 1_700_000_040_000_000
    feed.connection.reconnects = 3
    parts.add("um-1", "BTCUSDT.P").delivering_since_us = None
    parts.telemetry.counts.update({"verified": 5})
    parts.hub._counts_before = DeliveryCounts(delivered=9)
    parts.add_capture("spot-capture-1", "BTCUSDT").on_text(b"{")
    parts.captured["captured_market.trades"] = 4
    told = statistics(parts.telemetry)
    first, second = told["connections"]
    assert (first["name"], first["market"], first["symbols"]) == ("spot-1", "spot", 2)
    assert (first["trades"], first["klines"], first["bad_frames"]) == (12, 5, 2)
    assert (first["reconnects"], first["is_delivering"]) == (3, True)
    assert first["exchange_time"].isoformat() == "2023-11-14T22:14:00+00:00"
    assert (second["is_delivering"], second["exchange_time"]) == (False, None)
    assert (told["candles"], told["updates_delivered"]) == ({"verified": 5}, 9)
    assert told["capture"] == {"captured_market.trades": 4}
    assert told["capture_connections"] == [
        {
            "name": "spot-capture-1", "market": "spot", "is_open": False, "is_subscribed": False,
            "streams": ["bookTicker"], "symbols": 1, "frames": 1, "bad_frames": 1,
            "reconnects": 0, "rotations": 0, "refused": 0,
        }
    ]  # fmt: skip


async def test_report_is_logged_regularly(monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    parts = Parts()
    feed = parts.add("spot-1", "BTCUSDT", "ETHUSDT")
    feed.frames, feed.bad_frames, feed.connection.reconnects = 7, 1, 2
    parts.writer.written = 5
    parts.telemetry.states.enter("ETHUSDT", SymbolState.SILENT)
    parts.telemetry.counts.update({"verified": 5})
    task = asyncio.create_task(report(parts.telemetry, interval_s=0.001))
    async with asyncio.timeout(30):
        while len(log.calls) < 2:
            await asyncio.sleep(0.001)
    task.cancel()
    first = log.calls[0]
    assert first.args == ("stream_report",)
    expected = {"frames": 7, "bad_frames": 1, "reconnects": 2, "written": 5, "verified": 5}
    assert expected.items() <= first.kwargs.items()
    assert first.kwargs["silent_symbols"] == 1
