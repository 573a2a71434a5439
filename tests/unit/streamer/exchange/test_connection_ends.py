"""Connections that nobody needs any more are cancelled, and waited for; not for ever."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from streamer.exchange import connection_ends as module
from streamer.exchange.connection_ends import end_connections


async def test_all_are_cancelled_and_their_ends_waited_for() -> None:
    ended = 0

    async def connection() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # it says goodbye
            ended += 1

    tasks = [asyncio.create_task(connection()) for _ in range(3)]
    await asyncio.sleep(0)
    with capture_logs() as logged:
        await end_connections(tasks, of="best prices")
        await end_connections([], of="best prices")
    assert ended == 3
    assert logged == []


async def test_one_that_does_not_end_is_left_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_TIMEOUT_S", 0.05)
    freed = asyncio.Event()

    async def stuck() -> None:
        while not freed.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await freed.wait()

    task = asyncio.create_task(stuck())
    await asyncio.sleep(0)
    with capture_logs() as logged:
        await end_connections([task], of="raw capture")
    freed.set()
    await task
    assert [(one["event"], one["of"], one["connections"]) for one in logged] == [
        ("connections_left", "raw capture", 1)
    ]
