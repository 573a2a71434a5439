"""The line of each minute in the log."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import CapturingLogger

from streamer.health import report as module
from streamer.health.report import report
from streamer.health.states import SymbolState
from tests.unit.streamer.watched import Parts


async def test_it_tells_again_and_again_how_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    parts = Parts()
    feed = parts.add("spot-1", "BTCUSDT", "ETHUSDT")
    feed.frames, feed.bad_frames, feed.connection.reconnects = 7, 1, 2
    parts.writer.written = 5
    parts.observed.states.enter("ETHUSDT", SymbolState.SILENT)
    parts.observed.counts.update({"verified": 5})
    task = asyncio.create_task(report(parts.observed, interval_s=0.001))
    async with asyncio.timeout(30):
        while len(log.calls) < 2:
            await asyncio.sleep(0.001)
    task.cancel()
    first = log.calls[0]
    assert first.args == ("stream_report",)
    expected = {"frames": 7, "bad_frames": 1, "reconnects": 2, "written": 5, "verified": 5}
    assert expected.items() <= first.kwargs.items()
    assert first.kwargs["silent_symbols"] == 1
