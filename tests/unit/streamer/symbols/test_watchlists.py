"""Watchlists are read after each notification and disconnect; PostgreSQL is played here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.backoff import Backoff
from include.errors import PermanentError, TransientError
from streamer.symbols import watchlists as module
from streamer.symbols.watchlists import follow_watchlists


class Played:
    """Notifications that come, and what the view has."""

    def __init__(self, *happens: object) -> None:
        self._happens: Iterator[object] = iter(happens)
        self.connections = 0
        self.watched: frozenset[str] = frozenset()

    async def heard(self, *_: object, **__: object) -> AsyncIterator[tuple[None, frozenset[str]]]:
        self.connections += 1
        for one in self._happens:
            if isinstance(one, Exception):
                raise one
            self.watched = frozenset(str(one).split())
            yield None, frozenset({"candelabra_watchlists"})
        await asyncio.sleep(60)

    async def read(self, _connection: None) -> frozenset[str]:
        return self.watched


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.001, max_s=0.01))
    return log


async def watchlists_read(
    played: Played, monkeypatch: pytest.MonkeyPatch, count: int
) -> list[set[str]]:
    monkeypatch.setattr(module, "notified_channels", played.heard)
    monkeypatch.setattr(module, "watched_async", played.read)
    found: list[Any] = []
    enough = asyncio.Event()

    def on_watched(watched: frozenset[str]) -> None:
        found.append(set(watched))
        if len(found) == count:
            enough.set()

    task = asyncio.create_task(follow_watchlists("postgresql://h/d", on_watched))
    async with asyncio.timeout(30):
        await enough.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return found


async def test_each_notification_reads_all_watchlists(
    log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played("A", "A B", "")
    assert await watchlists_read(played, monkeypatch, 3) == [{"A"}, {"A", "B"}, set()]
    assert played.connections == 1
    assert log.calls == []


async def test_watchlists_are_read_again_after_a_disconnect(
    log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, refused = TransientError("server is away"), PermanentError("no schema accounts")
    played = Played("A", away, refused, "B")
    assert await watchlists_read(played, monkeypatch, 2) == [{"A"}, {"B"}]
    assert played.connections == 3
    assert [call.args[0] for call in log.calls] == ["watchlists_not_read"] * 2
    assert [call.kwargs["error"] for call in log.calls] == ["server is away", "no schema accounts"]
