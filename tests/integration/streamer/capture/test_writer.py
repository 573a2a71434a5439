"""Captured rows while PostgreSQL is away, slow, back, or refuses a row."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from include.backoff import Backoff
from include.binance.streams.book_tickers import BookTicker
from include.binance.streams.messages import AggTrade
from include.domain.instruments import Market
from include.store.trades.captured import RAW_TABLES
from streamer.capture import writer as module
from streamer.capture.intake.rows import Intake
from streamer.capture.spool.losses import Losses
from streamer.capture.spool.spool import FULL, Spool
from streamer.capture.writer import CaptureWriter
from tests.integration.streamer.storage.own_server import Server, own_server

AT_US = 1_763_716_800_000_000
DATASETS = ("agg_trades", "book_tickers")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.05, max_s=0.2))


class Bench:
    """A writer with its queues, as ``Capture`` wires them."""

    def __init__(
        self, url: str, folder: Path, *, max_rows: int = 20_000, max_bytes: int = 1 << 24
    ) -> None:
        self.losses = Losses(folder / "losses.json")
        self.losses.load()
        self.spool = Spool(folder, max_bytes=max_bytes)
        self.intake = Intake(
            DATASETS, max_rows=max_rows, on_losses=self.losses.add, now_us=self._now_us
        )
        self.writer = CaptureWriter(
            url,
            self.intake.lanes,
            self.spool,
            self.losses,
            batch_rows=500,
            flush_timeout_s=0.05,
            spill_interval_s=0.02,
        )
        self._received_us = AT_US

    def _now_us(self) -> int:
        self._received_us += 1
        return self._received_us

    def publish_book_ticker(self, number: int, *, symbol: str = "BTCUSDT") -> None:
        self.intake.on_book_ticker(Market.SPOT, BookTicker(number, symbol, "1", "2", "3", "4"))

    def trade(self, number: int, *, price: str = "1.5", symbol: str = "BTCUSDT") -> None:
        at = AT_US + number
        self.intake.on_trade(
            Market.SPOT,
            AggTrade(at, symbol, number, Decimal(price), Decimal(1), number, number, at, True),
        )


@asynccontextmanager
async def working(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.writer.run())
    try:
        yield bench
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def stored(url: str, symbol: str) -> tuple[list[int], list[int]]:
    """Ids of book tickers and of trades."""
    with psycopg.connect(url) as connection:
        quotes = connection.execute(
            "SELECT update_id FROM market.book_tickers WHERE symbol = %s ORDER BY 1", (symbol,)
        ).fetchall()
        trades = connection.execute(
            "SELECT agg_trade_id FROM market.agg_trades WHERE symbol = %s ORDER BY 1", (symbol,)
        ).fetchall()
    return [row[0] for row in quotes], [row[0] for row in trades]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def tear(segment: Path) -> None:
    """As after a kill."""
    with segment.open("ab") as file:
        file.write(b"\x00\x00\x10\x00half a record")


async def until(holds: object, *, timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def test_book_tickers_of_an_outage_are_spooled_and_replayed(
    server: Server, tmp_path: Path
) -> None:
    async with working(Bench(server.url, tmp_path)) as bench:
        for number in range(1_000):
            bench.publish_book_ticker(number, symbol="AWAY")
        await until(lambda: bench.writer.written["book_tickers"] == 1_000)
        server.kill()
        for number in range(1_000, 6_000):
            bench.publish_book_ticker(number, symbol="AWAY")
            bench.trade(number, symbol="AWAY")
        await until(lambda: bench.spool.size_bytes > 100_000)
        await until(lambda: not bench.intake.lanes.lanes[3].rows)
        assert bench.intake.lanes.waiting == 5_000  # trades wait in memory
        server.start_again()
        await until(lambda: bench.spool.is_empty and not bench.intake.lanes.waiting)
        await until(lambda: not bench.writer.is_spooling)
        bench.publish_book_ticker(6_000, symbol="AWAY")
        await until(lambda: bench.writer.written["book_tickers"] == 6_001)
        await until(lambda: bench.writer.written["agg_trades"] == 5_000)
    assert stored(server.url, "AWAY") == (list(range(6_001)), list(range(1_000, 6_000)))
    assert bench.writer.replayed == 5_000


async def test_killed_process_leaves_its_spool_to_the_next(server: Server, tmp_path: Path) -> None:
    away = "postgresql://candelabra@127.0.0.1:1/capture"
    async with working(Bench(away, tmp_path)) as killed:
        for number in range(700):
            killed.publish_book_ticker(number, symbol="KILLED")
        await until(lambda: killed.spool.size_bytes > 0 and not killed.intake.lanes.waiting)
    (segment,) = segments(tmp_path)
    tear(segment)

    async with working(Bench(server.url, tmp_path)) as after:
        after.publish_book_ticker(700, symbol="KILLED")
        await until(lambda: after.writer.written["book_tickers"] == 701)
    assert stored(server.url, "KILLED")[0] == list(range(701))
    assert segments(tmp_path) == []


async def test_rows_dropped_by_the_spool_are_recorded(server: Server, tmp_path: Path) -> None:
    away = "postgresql://candelabra@127.0.0.1:1/capture"
    async with working(Bench(away, tmp_path, max_bytes=100_000)) as killed:
        for number in range(3_000):
            killed.publish_book_ticker(number, symbol="FULL")
        await until(lambda: killed.losses.rows > 1_000 and not killed.intake.lanes.waiting)
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= 100_000
        lost = killed.losses.rows
        await until(lambda: f'"rows":{lost}' in read(tmp_path / "losses.json"))

    async with working(Bench(server.url, tmp_path)) as after:
        await until(lambda: after.spool.is_empty and not len(after.losses))
    assert stored(server.url, "FULL")[0] == list(range(lost, 3_000))
    with psycopg.connect(server.url) as connection:
        rows = connection.execute(
            "SELECT dataset, cause, (detail ->> 'rows')::int, repaired_at FROM ops.gaps "
            "WHERE symbol = 'FULL'"
        ).fetchall()
    assert rows == [("book_tickers", FULL, lost, None)]


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """The kernel refuses this process any byte beyond the first pages of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_rows_refused_by_a_full_disk_are_recorded_as_lost(
    server: Server, tmp_path: Path
) -> None:
    away = "postgresql://candelabra@127.0.0.1:1/capture"
    async with working(Bench(away, tmp_path)) as bench:
        with full_disk():
            for number in range(1_000):
                bench.publish_book_ticker(number, symbol="DISK")
            await until(lambda: bench.losses.rows == 1_000)
        assert bench.spool.is_empty or all(one.stat().st_size == 0 for one in segments(tmp_path))
        for number in range(1_000, 1_500):
            bench.publish_book_ticker(number, symbol="DISK")
        await until(lambda: bench.spool.size_bytes > 0 and not bench.intake.lanes.waiting)
        await until(lambda: '"rows":1000' in read(tmp_path / "losses.json"))

    async with working(Bench(server.url, tmp_path)) as after:
        await until(lambda: after.spool.is_empty and not len(after.losses))
    assert stored(server.url, "DISK")[0] == list(range(1_000, 1_500))
    with psycopg.connect(server.url) as connection:
        rows = connection.execute(
            "SELECT dataset, cause, (detail ->> 'rows')::int FROM ops.gaps WHERE symbol = 'DISK'"
        ).fetchall()
    assert rows == [("book_tickers", module.DISK_REFUSED, 1_000)]


async def test_hanging_database_does_not_let_memory_grow(server: Server, tmp_path: Path) -> None:
    with psycopg.connect(server.url) as blocker:
        blocker.execute("LOCK TABLE market.book_tickers, market.agg_trades")
        async with working(Bench(server.url, tmp_path, max_rows=4_000)) as bench:
            for number in range(20_000):
                bench.publish_book_ticker(number, symbol="HANGS")
                bench.trade(number, symbol="HANGS")
                assert bench.intake.lanes.waiting <= 4_000
                if number % 100 == 0:
                    await asyncio.sleep(0.005)
            assert bench.writer.is_spooling
            assert bench.losses.rows == 0
            blocker.rollback()
            await until(lambda: bench.writer.written["book_tickers"] == 20_000)
            asked_for = {
                number
                for missing_range in bench.intake.sequence("agg_trades", "HANGS").missing_ranges
                for number in range(missing_range.first_id, missing_range.last_id + 1)
            }
            await until(lambda: bench.writer.written["agg_trades"] + len(asked_for) >= 20_000)
    quotes, trades = stored(server.url, "HANGS")
    assert quotes == list(range(20_000))
    assert asked_for | set(trades) == set(range(20_000))
    assert asked_for


async def test_refused_row_does_not_affect_others(server: Server, tmp_path: Path) -> None:
    async with working(Bench(server.url, tmp_path)) as bench:
        for number in range(100):
            bench.trade(number, symbol="BAD")
        lane = bench.intake.lanes.lanes[0]
        bad = lane.rows[50].split("\t")
        bad[5:7] = ["9", "8"]  # ids that descend
        lane.rows[50] = "\t".join(bad)
        bad_time = bad[RAW_TABLES["agg_trades"].time_index]
        await until(lambda: bench.writer.written["agg_trades"] == 99)
        assert bench.writer.refused == 1
        await until(lambda: not len(bench.losses))
    assert stored(server.url, "BAD")[1] == [n for n in range(100) if n != 50]
    with psycopg.connect(server.url) as connection:
        gaps = connection.execute(
            "SELECT dataset, cause, (detail ->> 'rows')::int,"
            " from_time <= %(at)s AND to_time > %(at)s FROM ops.gaps WHERE symbol = 'BAD'",
            {"at": bad_time},
        ).fetchall()
    assert gaps == [("agg_trades", "refused by the database", 1, True)]


async def test_stop_writes_or_spools_waiting_rows(server: Server, tmp_path: Path) -> None:
    bench = Bench(server.url, tmp_path)
    for number in range(1_200):
        bench.publish_book_ticker(number, symbol="STOP")
    await bench.writer.flush()
    assert stored(server.url, "STOP")[0] == list(range(1_200))

    away = Bench("postgresql://candelabra@127.0.0.1:1/capture", tmp_path)
    for number in range(1_200, 2_400):
        away.publish_book_ticker(number, symbol="STOP")
    with pytest.raises(module.TransientError):
        await away.writer.flush()
    assert away.intake.lanes.waiting == 0

    async with working(Bench(server.url, tmp_path)) as after:
        await until(lambda: after.spool.is_empty)
    assert stored(server.url, "STOP")[0] == list(range(2_400))


async def test_two_streamers_store_each_row_of_a_symbol_once(
    server: Server, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    one, other = (Bench(server.url, folder) for folder in folders)
    async with working(one), working(other):
        for number in range(8_000):
            for bench in (one, other):
                bench.publish_book_ticker(number, symbol="TWICE")
                bench.trade(number, symbol="TWICE")
            if number % 200 == 0:
                await asyncio.sleep(0.01)
        await until(lambda: not one.intake.lanes.waiting and not other.intake.lanes.waiting)
        await until(lambda: one.spool.is_empty and other.spool.is_empty)
        await until(
            lambda: sum(bench.writer.written["agg_trades"] for bench in (one, other)) == 8_000
        )
    assert stored(server.url, "TWICE") == (list(range(8_000)), list(range(8_000)))
    assert one.losses.rows == other.losses.rows == 0
