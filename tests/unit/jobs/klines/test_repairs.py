"""Connections of repairs: kept while useful, and never shared by two threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from include.config import load_settings
from include.domain.instruments import Market
from include.errors import PermanentError, TransientError
from include.jobs.klines import repairs as module
from include.jobs.klines.pieces import LoadCounts
from include.jobs.klines.repairs import Repairs

URL = "postgresql://here/candles"


class World:
    """Connections and clients that are opened, and what is done with them."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.made: list[str] = []
        self.used: list[tuple[str, str, str]] = []
        self.answers: list[LoadCounts | Exception] = []
        self.inside: threading.Barrier | None = None

    @contextmanager
    def make(self, kind: str) -> Iterator[str]:
        name = f"{kind}-{len(self.made)}"
        self.made.append(name)
        self.open.append(name)
        yield name
        self.open.remove(name)

    def fetch(
        self, connection: str, rest: str, *, symbol: str, start_us: int, end_us: int,
        on_merged: object,
    ) -> LoadCounts:  # fmt: skip
        assert {connection, rest} <= set(self.open)
        self.used.append((connection, rest, symbol))
        if self.inside is not None:
            self.inside.wait(10)
        answer = self.answers.pop(0) if self.answers else LoadCounts(offered=end_us - start_us)
        if isinstance(answer, Exception):
            raise answer
        return answer


class PlayedConnection(str):
    """A connection: it is closed and never left as a context, which would commit.

    A hanging server answers the commit with an error for which no caller waits.
    """

    _world: World

    def __new__(cls, world: World) -> PlayedConnection:
        self = super().__new__(cls, f"connection-{len(world.made)}")
        self._world = world
        world.made.append(self)
        world.open.append(self)
        return self

    def close(self) -> None:
        self._world.open.remove(self)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    def open_rest(_settings: object, market: Market, url: str) -> object:
        assert url == URL
        return world.make(f"rest-{market.value}")

    monkeypatch.setattr(module, "connect", lambda _url, **_: PlayedConnection(world))
    monkeypatch.setattr(module, "open_shared_rest", open_rest)
    monkeypatch.setattr(module, "fetch_minutes", world.fetch)
    return world


@pytest.fixture
def repairs(world: World) -> Repairs:
    return Repairs(load_settings(database_url=URL), URL)


def test_sequential_repairs_share_connections(world: World, repairs: Repairs) -> None:
    assert repairs.repair("BTCUSDT", 0, 60).offered == 60
    repairs.repair("ETHUSDT", 0, 60)
    repairs.repair("BTCUSDT.P", 0, 60)
    assert world.made == ["connection-0", "rest-spot-1", "rest-um-2"]
    assert [rest for _, rest, _ in world.used] == ["rest-spot-1", "rest-spot-1", "rest-um-2"]


def test_concurrent_repairs_share_no_connection(world: World, repairs: Repairs) -> None:
    world.inside = threading.Barrier(2)
    threads = [
        threading.Thread(target=repairs.repair, args=(symbol, 0, 60))
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({connection for connection, _, _ in world.used}) == 2
    assert len({rest for _, rest, _ in world.used}) == 2


@pytest.mark.parametrize("error", [TransientError("away"), PermanentError("unknown")])
def test_repair_after_a_failure_reconnects(
    world: World, repairs: Repairs, error: Exception
) -> None:
    world.answers = [error]
    with pytest.raises(type(error)):
        repairs.repair("BTCUSDT", 0, 60)
    assert world.open == []
    repairs.repair("BTCUSDT", 0, 60)
    assert len(world.made) == 4


def test_minutes_without_a_final_row_are_a_transient_error(world: World, repairs: Repairs) -> None:
    world.answers = [LoadCounts(pending_minutes=2)]
    with pytest.raises(TransientError, match=r"BTCUSDT.* 2 minutes have no final row"):
        repairs.repair("BTCUSDT", 0, 120_000_000)
    assert len(world.open) == 2, "nothing is wrong with the connections"


def test_repair_after_a_close_reconnects(world: World, repairs: Repairs) -> None:
    repairs.repair("BTCUSDT", 0, 60)
    repairs.close()
    assert world.open == []
    repairs.close()
    repairs.repair("BTCUSDT", 0, 60)
    assert len(world.open) == 2
