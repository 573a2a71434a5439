"""The writer beside a database that takes its time: its pulse, and who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal

import pytest

from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import MINUTE_US
from include.store.candles.live import LiveCandle
from streamer.runtime.heartbeat import Heartbeat
from streamer.storage import writer as module
from streamer.storage.writer import CandleWriter
from tests.unit.streamer.played_database import T0, Aggregator, Connection, Database
from tests.unit.streamer.watched import Clock

CANDLE = silent_candle("BTCUSDT", T0 + MINUTE_US, Decimal(7))
BATCH_SIZE = 8
CANDIDATE = CandleCandidate(CANDLE, Status.VERIFIED, Source.KLINE, T0 + 2 * MINUTE_US)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr(module, "connect_async", database.connect)
    monkeypatch.setattr(module, "server_started_async", database.server_started)
    monkeypatch.setattr(module, "store_async", database.store)
    monkeypatch.setattr(module, "write_live_async", database.write_live)
    monkeypatch.setattr(module, "rotate_live_async", database.rotate_live)
    return database


def writer_of(*aggregators: Aggregator) -> CandleWriter:
    return CandleWriter(
        "postgresql://here/candles",
        lambda: list(aggregators),  # type: ignore[arg-type]
        batch_size=BATCH_SIZE,
        flush_timeout_s=0.01,
        buffer_rows=1_000,
        on_overflow=lambda *_: None,
    )


@contextlib.asynccontextmanager
async def running(writer: CandleWriter) -> AsyncIterator[None]:
    task = asyncio.create_task(writer.run())
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_slow_database_does_not_make_the_writer_stuck(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, clock = writer_of(*(Aggregator() for _ in range(3 * module.LIVE_SYMBOLS))), Clock()
    writer.heartbeat, late = Heartbeat(clock), []

    async def write_live(connection: Connection, rows: Sequence[LiveCandle]) -> int:
        clock.now_s += module.WRITE_TIMEOUT_S - 1
        late.append(writer.heartbeat.is_stuck)
        return await database.write_live(connection, rows)

    monkeypatch.setattr(module, "write_live_async", write_live)
    async with running(writer):
        while len(late) < 3:
            await asyncio.sleep(0.002)
    assert late[:3] == [False] * 3


async def test_wait_for_write_returns_when_the_running_write_is_over(database: Database) -> None:
    writer = writer_of()
    await writer.wait_for_write()  # nothing was begun
    database.gate = asyncio.Event()
    writer.enqueue(CANDIDATE)
    async with running(writer):
        await database.is_writing.wait()
        asking = asyncio.create_task(writer.wait_for_write())
        await asyncio.sleep(0.05)
        assert not asking.done()
        database.gate.set()
        await asking
        assert database.written == [1]


class Order:
    """What is written, in order; closed candles come in while open ones are written."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.comes: Callable[[], None] = lambda: None
        self._database = database
        monkeypatch.setattr(module, "write_live_async", self.write_live)
        monkeypatch.setattr(module, "store_async", self.store)

    async def write_live(self, connection: Connection, rows: Sequence[LiveCandle]) -> int:
        self.comes()
        self.done.append("open")
        return await self._database.write_live(connection, rows)

    async def store(self, connection: Connection, offers: Sequence[CandleCandidate]) -> None:
        self.done.append("closed")
        await self._database.store(connection, offers)


async def test_many_closed_candles_are_written_before_open_ones(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write the open ones of a whole market takes as long as three batches of closed ones."""
    aggregators = [Aggregator() for _ in range(3 * module.LIVE_SYMBOLS)]
    writer, order = writer_of(*aggregators), Order(database, monkeypatch)

    def comes() -> None:
        if not order.done:
            for _ in range(module.LIVE_SYMBOLS):
                writer.enqueue(CANDIDATE)

    order.comes = comes
    monkeypatch.setattr(module, "LIVE_INTERVAL_S", float("inf"))  # all in one pass
    writer.write_now()
    async with running(writer):
        while any(one.is_dirty for one in aggregators):
            await asyncio.sleep(0.001)
    batches = -(-module.LIVE_SYMBOLS // BATCH_SIZE)
    assert order.done == ["open", *["closed"] * batches, "open", "open"]


async def test_few_closed_candles_do_not_delay_open_ones(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed klines come over two seconds, and the busiest symbols change all the time."""
    aggregators = [Aggregator() for _ in range(3 * module.LIVE_SYMBOLS)]
    writer, order = writer_of(*aggregators), Order(database, monkeypatch)

    def comes() -> None:
        writer.enqueue(CANDIDATE)
        for one in aggregators[: module.LIVE_SYMBOLS]:
            one.is_dirty = True

    order.comes = comes
    async with running(writer):
        while len(order.done) < 3:
            await asyncio.sleep(0.001)
        assert order.done[:3] == ["open"] * 3
        assert not any(one.is_dirty for one in aggregators[-module.LIVE_SYMBOLS :])
        while len(database.written) < 3:
            await asyncio.sleep(0.001)
