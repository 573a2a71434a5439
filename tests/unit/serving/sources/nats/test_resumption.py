from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from include.domain.candles import Source, Status
from include.domain.timeframes import MINUTE_US, SECOND_US
from include.errors import TransientError
from include.store.candles.resumed_minutes import MinutesRequest, StoredMinute
from serving.sources.candle_mailbox import CandleMailbox
from serving.sources.nats import resumption as module
from serving.sources.nats.minute_states import MinuteStates
from serving.sources.nats.resumption import (
    MAX_BACK_US,
    OVERLAP_US,
    WRITTEN_BEFORE_US,
    CandleResumption,
)
from streamer.hub.subscription import CandleUpdate
from tests.unit.serving.sources.nats.test_minute_states import T0, closed, live, minute

WALL_US = 1_000 * SECOND_US


class Table:
    def __init__(self, *rows: StoredMinute, failures: int = 0) -> None:
        self.rows = list(rows)
        self.failures = failures
        self.asked: list[tuple[dict[str, MinutesRequest], int]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, asked: Mapping[str, MinutesRequest], first_us: int) -> list[StoredMinute]:
        self.asked.append((dict(asked), first_us))
        if len(self.asked) <= self.failures:
            raise TransientError("PostgreSQL is away")
        rows = list(self.rows)
        assert self.go_on.wait(30)
        return rows


class Played:
    def __init__(self, table: Table) -> None:
        self.states, self.mailbox = MinuteStates(), CandleMailbox()
        self.told: list[CandleUpdate] = []
        self.resumption = CandleResumption(
            self.states, self.mailbox, table, self.put, wall_us=lambda: WALL_US
        )

    def put(self, update: CandleUpdate) -> None:
        told = self.states.add(update)
        if told is not None:
            self.resumption.note_received(told.candle.symbol)
            self.told.append(told)


@asynccontextmanager
async def playing(table: Table) -> AsyncIterator[Played]:
    played = Played(table)
    running = asyncio.create_task(played.resumption.run())
    try:
        yield played
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def row(index: int, close: str = "1") -> StoredMinute:
    return StoredMinute(minute(index, close=close), Status.VERIFIED, Source.KLINE)


async def test_minutes_from_before_the_newest_are_delivered_and_changed_ones_marked() -> None:
    table = Table(row(-50, "2"), row(0), row(1, "2"), *map(row, range(2, 29)))
    async with playing(table) as played:
        for index in (0, 1):
            played.put(closed(index=index))
        played.resumption.request("BTCUSDT")
        played.put(closed(index=30))  # it goes on meanwhile
        await until(lambda: not played.resumption.waiting)
        assert played.resumption.resumed == 30
    newest_us = T0 + MINUTE_US
    asked = MinutesRequest(newest_us - OVERLAP_US, WALL_US - WRITTEN_BEFORE_US)
    assert table.asked == [({"BTCUSDT": asked}, T0 + 30 * MINUTE_US - MAX_BACK_US)]
    found = [
        ((one.candle.open_time_us - T0) // MINUTE_US, one.is_revision) for one in played.told[3:]
    ]
    assert found == [(-50, True), (1, True), *((index, False) for index in range(2, 29))]


async def test_undelivered_symbol_is_not_read() -> None:
    table = Table()
    async with playing(table) as played:
        played.resumption.request("BTCUSDT")
        assert not played.resumption.waiting


async def test_read_is_retried_while_postgresql_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.01, max_s=0.02))
    table = Table(row(1), failures=2)
    async with playing(table) as played:
        played.put(closed())
        played.resumption.request("BTCUSDT")
        await until(lambda: played.resumption.resumed == 1)
    assert len(table.asked) == 3


async def test_after_more_than_a_day_the_minutes_before_are_missed() -> None:
    async with playing(Table()) as played:
        played.put(closed())
        played.resumption.request("BTCUSDT")
        played.put(closed(index=3 * 1_440))
        batch = await asyncio.wait_for(played.mailbox.receive(), 30)
        assert batch is not None
        first_us = T0 + 3 * 1_440 * MINUTE_US - MAX_BACK_US
        assert batch.missed == {"BTCUSDT": (T0 - OVERLAP_US, first_us)}


async def test_repeated_request_reads_from_the_earlier_start() -> None:
    table = Table()
    async with playing(table) as played:
        played.put(closed())
        played.resumption.request("BTCUSDT")
        played.put(closed(index=1))
        played.resumption.request("BTCUSDT")
        await until(lambda: not played.resumption.waiting)
    assert table.asked[0][0]["BTCUSDT"].start_us == T0 - OVERLAP_US


async def test_request_during_a_read_causes_another_read() -> None:
    table = Table()
    table.go_on.clear()
    async with playing(table) as played:
        played.put(closed())
        played.resumption.request("BTCUSDT")
        await until(lambda: len(table.asked) == 1)
        table.rows = [row(1)]
        played.resumption.request("BTCUSDT")
        table.go_on.set()
        await until(lambda: played.resumption.resumed == 1)
        await until(lambda: not played.resumption.waiting)
    assert len(table.asked) == 2


async def test_reads_repeat_until_the_minutes_are_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL was away too, and the streamer writes what waited."""
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.01, max_s=0.02))
    table = Table()
    async with playing(table) as played:
        played.put(live())  # delivered open, and not closed yet
        played.resumption.request("BTCUSDT")
        for index in (*range(8, 15), 15):
            played.put(closed(index=index))
        await until(lambda: len(table.asked) >= 3)
        table.rows = [row(index) for index in range(4)]
        await until(lambda: played.resumption.resumed >= 8)
        assert played.resumption.waiting == 1
        table.rows = [row(index) for index in range(8)]
        await until(lambda: not played.resumption.waiting)
        found = {one.candle.open_time_us for one in played.told if one.status is not None}
        assert found == {T0 + index * MINUTE_US for index in range(16)}
        played.mailbox.report_missed_minutes("X", 0, 1)
        batch = await asyncio.wait_for(played.mailbox.receive(), 30)
        assert batch is not None
        assert batch.missed == {"X": (0, 1)}


async def test_minutes_that_are_never_stored_are_reported_as_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.01, max_s=0.02))
    monkeypatch.setattr(module, "MAX_ABSENT_S", 0.1)
    table = Table(row(1), row(5))
    async with playing(table) as played:
        played.put(closed())
        played.resumption.request("BTCUSDT")
        played.put(live(7))
        batch = await asyncio.wait_for(played.mailbox.receive(), 30)
        assert batch is not None
        assert batch.missed == {"BTCUSDT": (T0 + 2 * MINUTE_US, T0 + 5 * MINUTE_US)}
        assert not played.resumption.waiting
    assert len(table.asked) > 1
    assert capsys.readouterr().out.count("minutes_absent") == 1


async def test_minutes_before_the_first_delivered_one_are_not_awaited() -> None:
    table = Table()
    async with playing(table) as played:
        played.put(closed(index=3))
        played.put(closed(index=4))
        played.resumption.request("BTCUSDT")
        await until(lambda: not played.resumption.waiting)
    assert len(table.asked) == 1
