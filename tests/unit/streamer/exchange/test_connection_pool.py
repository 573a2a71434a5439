"""Symbols fill connections, and connections follow the symbols; feeds are played here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from structlog.testing import CapturingLogger

from streamer.exchange import connection_pool as module
from streamer.exchange.connection_pool import ConnectionPool
from streamer.runtime import supervisor


class Connection:
    """Runs until it is cancelled, or until the test lets it fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_running = False
        self.ignores_cancel: asyncio.Event | None = None
        self.failure: asyncio.Future[None] | None = None

    async def run(self) -> None:
        self.is_running = True
        self.failure = asyncio.get_running_loop().create_future()
        try:
            await self.failure
        except asyncio.CancelledError:
            if self.ignores_cancel is None:
                raise
            await self.ignores_cancel.wait()
        finally:
            self.is_running = False


class Feed:
    def __init__(self, route: str, number: int, members: Mapping[str, str]) -> None:
        self.connection = Connection(f"{route}-{number}")
        self.carried = dict(members)

    @property
    def names(self) -> list[str]:
        return list(self.carried)

    def add(self, members: Mapping[str, str]) -> None:
        self.carried.update(members)

    def remove(self, name: str) -> None:
        del self.carried[name]


Pool = ConnectionPool[str, Feed]


@pytest.fixture
def pool() -> Pool:
    return ConnectionPool(Feed, max_symbols=lambda route: 3, name="test")


def add(pool: Pool, *names: str, route: str = "spot") -> None:
    pool.add(route, dict.fromkeys(names, "member"))


def carried(pool: Pool) -> dict[str, list[str]]:
    return {feed.connection.name: feed.names for feed in pool.feeds}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(pool.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=5)


def test_symbols_fill_connections_before_new_ones_open(pool: Pool) -> None:
    add(pool, *"ABCD")
    assert carried(pool) == {"spot-1": ["A", "B", "C"], "spot-2": ["D"]}
    add(pool, *"EFG")
    assert carried(pool) == {"spot-1": [*"ABC"], "spot-2": [*"DEF"], "spot-3": ["G"]}
    assert pool.feed_of("spot", "E") is pool.feeds[1]


def test_symbol_is_streamed_once(pool: Pool) -> None:
    add(pool, *"AB")
    add(pool, *"BC")
    assert carried(pool) == {"spot-1": ["A", "B", "C"]}


def test_routes_do_not_share_connections(pool: Pool) -> None:
    add(pool, "A")
    add(pool, "A", "B", route="um")
    assert carried(pool) == {"spot-1": ["A"], "um-1": ["A", "B"]}


def test_removed_symbol_makes_room_and_an_empty_connection_is_closed(pool: Pool) -> None:
    add(pool, *"ABCD")
    assert pool.remove("spot", "B") is None
    second = pool.feeds[1]
    assert pool.remove("spot", "D") is second
    assert carried(pool) == {"spot-1": ["A", "C"]}
    add(pool, *"EF")
    assert carried(pool) == {"spot-1": ["A", "C", "E"], "spot-3": ["F"]}  # names are not reused
    assert pool.feed_of("spot", "B") is None


async def test_connections_run_while_their_feeds_have_symbols(pool: Pool) -> None:
    async with running(pool):
        await asyncio.sleep(0)
        add(pool, *"ABCD")
        first, second = pool.feeds
        await until(lambda: first.connection.is_running and second.connection.is_running)
        pool.remove("spot", "D")
        await until(lambda: not second.connection.is_running)
        assert first.connection.is_running
    assert not first.connection.is_running


async def test_bug_in_a_connection_ends_the_pool(pool: Pool) -> None:
    add(pool, *"ABCD")
    first, second = pool.feeds
    async with running(pool) as task:
        await until(lambda: first.connection.is_running and second.connection.is_running)
        assert first.connection.failure is not None
        first.connection.failure.set_exception(ValueError("a bug"))
        await asyncio.wait({task}, timeout=5)
        with pytest.raises(ValueError, match="a bug"):
            task.result()
    assert not second.connection.is_running


async def test_connections_that_do_not_close_delay_the_end_only_briefly(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "CLOSED_TIMEOUT_S", -0.24)
    monkeypatch.setattr(supervisor, "log", log)
    add(pool, "A")
    connection = pool.feeds[0].connection
    connection.ignores_cancel = asyncio.Event()
    async with running(pool) as task:
        await until(lambda: connection.is_running)
    assert task.done()
    assert [(call.args, call.kwargs) for call in log.calls] == [
        (("tasks_not_ended",), {"of": "test", "tasks": 1})
    ]
    connection.ignores_cancel.set()
    await asyncio.sleep(0)
