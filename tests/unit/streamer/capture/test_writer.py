"""When raw rows are written: in batches, each write with its own time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from include.backoff import Backoff
from include.binance.quotes import BookTicker
from include.domain.instruments import Market
from include.store.raw import RawTable
from streamer.capture import writer as module
from streamer.capture.intake import Intake
from streamer.capture.losses import Loss, Losses
from streamer.capture.spool import Record, Spool
from streamer.capture.writer import CaptureWriter

BATCH_ROWS = 20


class Database:
    """Takes rows as slowly as told; keeps the sizes of the writes."""

    closed = False

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.writes: list[int] = []
        self.connects = 0

    async def connect(self, _url: str, **_: object) -> Database:
        self.connects += 1
        return self

    async def close(self) -> None:
        """Nothing to close."""

    async def write(
        self, _connection: Any, _table: RawTable, lines: list[str], *, expect_repeats: bool
    ) -> tuple[int, bool]:
        await asyncio.sleep(self.takes_s)
        self.writes.append(len(lines))
        return len(lines), expect_repeats


class Bench:
    def __init__(self, folder: Path) -> None:
        self.losses = Losses(folder / "losses.json")
        self.spool = Spool(folder, max_bytes=1 << 24)
        self.intake = Intake(["book_tickers"], most_rows=100_000, on_losses=self.losses.add)
        self.writer = CaptureWriter(
            "",
            self.intake.lanes,
            self.spool,
            self.losses,
            batch_rows=BATCH_ROWS,
            flush_timeout_s=0.2,
            spill_interval_s=0.01,
        )
        self.quoted = 0

    def quote(self) -> None:
        self.quoted += 1
        self.intake.on_quote(Market.SPOT, BookTicker(self.quoted, "BTCUSDT", "1", "2", "3", "4"))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    played = Database()
    monkeypatch.setattr(module, "connect_async", played.connect)
    monkeypatch.setattr(module, "write_raw_async", played.write)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.01, most_s=0.02))
    return played


@asynccontextmanager
async def working(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.writer.run())
    try:
        yield bench
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.002)


async def test_rows_that_never_stop_coming_are_no_failure_of_the_database(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.15)
    database.takes_s = 0.01
    async with working(Bench(tmp_path)) as bench:
        for _ in range(300):  # some three times the time that one write has
            bench.quote()
            await asyncio.sleep(0.0015)
        await until(lambda: bench.writer.written["book_tickers"] == 300)
        assert bench.writer.replayed == 0
        assert not bench.writer.is_spooling
    assert database.connects == 1


async def test_a_write_waits_until_a_batch_is_full_though_rows_keep_coming(
    database: Database, tmp_path: Path
) -> None:
    database.takes_s = 0.005
    async with working(Bench(tmp_path)) as bench:
        for _ in range(200):
            bench.quote()
            await asyncio.sleep(0.002)
        await until(lambda: bench.writer.written["book_tickers"] == 200)
    assert len(database.writes) <= 200 // BATCH_ROWS + 2, database.writes


async def test_a_write_that_hangs_ends_and_its_rows_are_kept_on_the_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.05)
    database.takes_s = 60
    async with working(Bench(tmp_path)) as bench:
        for _ in range(BATCH_ROWS):
            bench.quote()
        await until(lambda: not bench.spool.is_empty)
        database.takes_s = 0
        await until(lambda: bench.spool.is_empty and not bench.writer.is_spooling)
    assert sum(database.writes) >= BATCH_ROWS


async def test_what_was_lost_is_on_disk_before_a_later_row_is_stored(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(tmp_path)
    saved: list[bool] = []
    write = database.write

    async def noting(*arguments: Any, **options: Any) -> tuple[int, bool]:
        saved.append(bench.losses.is_saved)
        return await write(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_raw_async", noting)
        patch.setattr(module, "SPILL_SHARE", 1.0)
        async with working(bench):
            for number in range(3):
                opened = Loss("book_tickers", "BTCUSDT", "killed", None, number)
                bench.losses.add([opened])
                bench.quote()
                await until(lambda: len(saved) > number)  # noqa: B023 - awaited at once
    assert saved == [True] * 3


async def test_rows_in_flight_go_to_the_disk_before_younger_ones(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(tmp_path)
    stored: list[str] = []
    append = bench.spool.append

    def noting(record: Record) -> list[Loss]:
        dropped = append(record)
        stored.extend(line.split("\t")[2] for line in record.lines)
        return dropped

    bench.spool.append = noting  # type: ignore[method-assign]
    database.takes_s = 60.0  # a write that hangs
    async with working(bench):
        bench.quote()
        await until(lambda: bench.intake.lanes.waiting == 0)
        bench.writer.is_spooling = True
        bench.quote()
        await until(lambda: len(stored) >= 2)
    assert stored == ["1", "2"]
