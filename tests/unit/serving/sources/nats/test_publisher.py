"""What a streamer publishes; on a real NATS server in the integration tests."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from nats.aio.client import Client

from serving.bars.live_bars import LiveBars
from serving.sources.nats import publisher as module
from serving.sources.nats.publisher import NatsPublisher
from serving.sources.nats.tick_publisher import TickPublisher
from streamer.hub.hub import Hub
from tests.unit.serving.sources.nats.played import PlayedConnection, until

FAILURES = 3


class Ticks:
    """A task that fails a few times unexpectedly."""

    def __init__(self) -> None:
        self.sessions: list[int] = []

    async def session(self, _client: Client, _streamer: str, connection: int) -> None:
        self.sessions.append(connection)
        if len(self.sessions) <= FAILURES:
            raise KeyError("ours")
        await asyncio.sleep(3_600)


async def test_bug_is_logged_and_the_publisher_restarts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.01, max_s=0.02))
    nats, ticks = PlayedConnection(), Ticks()
    live_bars = LiveBars(Hub().subscribe, lambda *_: ((), (), ()))
    one = NatsPublisher(nats, live_bars, streamer="a", ticks=cast(TickPublisher, ticks))
    running = asyncio.create_task(one.run())
    try:
        await until(lambda: len(ticks.sessions) == FAILURES + 1)
        await until(lambda: bool(nats.client.said))
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert ticks.sessions == [1, 2, 3, 4]
    assert one.statistics()["failures"] == FAILURES
    said = capsys.readouterr().out
    assert said.count("nats_publisher_failed") == FAILURES
    assert "KeyError: 'ours'" in said
