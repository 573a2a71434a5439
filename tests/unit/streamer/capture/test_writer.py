"""When raw rows are written: in batches, each write with its own time, whatever the disk does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.backoff import Backoff
from include.binance.streams.book_tickers import BookTicker
from include.binance.streams.depth import DEPTH_STREAM, DepthUpdate, decode_book_frame
from include.binance.streams.liquidations import ForceOrder, decode_with_liquidations
from include.binance.streams.messages import AggTrade, Trade
from include.config import load_settings
from include.domain.books.order_book import BookSnapshot
from include.domain.instruments import Market, symbol_of
from include.errors import TransientError
from include.jobs.trades.by_id import RawGap
from include.store.trades.captured import RAW_TABLES, RawTable
from streamer.capture import writer as module
from streamer.capture.app import STREAM_OF, Capture
from streamer.capture.intake.rows import Intake
from streamer.capture.repair.resumption import is_streamed
from streamer.capture.spool.losses import Loss, Losses
from streamer.capture.spool.segments import Record
from streamer.capture.spool.spool import DAMAGED, GONE, Spool
from streamer.capture.writer import CaptureWriter

BATCH_ROWS = 20


class Database:
    """Stores rows as slowly as configured; records the sizes of the writes, and the ids of the
    rows."""

    closed = False

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.is_away = False
        self.writes: list[int] = []
        self.ids: dict[str, list[int]] = {table: [] for table in RAW_TABLES}
        self.symbols: dict[str, list[str]] = {table: [] for table in RAW_TABLES}
        self.gaps: list[RawGap] = []
        self.connects = 0

    async def connect(self, _url: str, **_: object) -> Database:
        self.connects += 1
        return self

    async def close(self) -> None:
        """Nothing to close."""

    async def write(
        self, _connection: Any, table: RawTable, lines: list[str], *, expect_repeats: bool
    ) -> tuple[int, bool]:
        await asyncio.sleep(self.takes_s)
        if self.is_away:
            raise TransientError("away")
        self.writes.append(len(lines))
        self.ids[table.name] += [int(line.split("\t")[2]) for line in lines]
        self.symbols[table.name] += [line.split("\t")[0] for line in lines]
        return len(lines), expect_repeats

    def record(self, *, database_url: str, gaps: Sequence[RawGap]) -> None:
        self.gaps += gaps


class Bench:
    def __init__(
        self, folder: Path, datasets: Iterable[str] = ("agg_trades", "book_tickers")
    ) -> None:
        self.losses = Losses(folder / "losses.json")
        self.spool = Spool(folder, max_bytes=1 << 24, segment_bytes=500)
        self.intake = Intake(datasets, max_rows=100_000, on_losses=self.losses.add)
        self.writer = CaptureWriter(
            "",
            self.intake.lanes,
            self.spool,
            self.losses,
            batch_rows=BATCH_ROWS,
            flush_timeout_s=0.2,
            spill_interval_s=0.01,
        )
        self.quoted = self.traded = 0

    def trade(self) -> None:
        self.traded += 1
        number, price = self.traded, Decimal(1)
        self.intake.on_trade(
            Market.SPOT, AggTrade(0, "BTCUSDT", number, price, price, number, number, 0, True)
        )

    def publish_book_ticker(self) -> None:
        self.quoted += 1
        self.intake.on_book_ticker(
            Market.SPOT, BookTicker(self.quoted, "BTCUSDT", "1", "2", "3", "4")
        )


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    played = Database()
    monkeypatch.setattr(module, "connect_async", played.connect)
    monkeypatch.setattr(module, "write_raw_async", played.write)
    monkeypatch.setattr(module, "record_raw_gaps", played.record)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.01, max_s=0.02))
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


async def test_steady_rows_do_not_count_as_a_database_failure(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.15)
    database.takes_s = 0.01
    async with working(Bench(tmp_path)) as bench:
        for _ in range(300):  # some three times the time that one write has
            bench.publish_book_ticker()
            await asyncio.sleep(0.0015)
        await until(lambda: bench.writer.written["book_tickers"] == 300)
        assert bench.writer.replayed == 0
        assert not bench.writer.is_spooling
    assert database.connects == 1


async def test_steady_rows_are_written_in_full_batches(database: Database, tmp_path: Path) -> None:
    database.takes_s = 0.005
    async with working(Bench(tmp_path)) as bench:
        for _ in range(200):
            bench.publish_book_ticker()
            await asyncio.sleep(0.002)
        await until(lambda: bench.writer.written["book_tickers"] == 200)
    assert len(database.writes) <= 200 // BATCH_ROWS + 2, database.writes


async def test_hanging_write_times_out_and_its_rows_are_spooled(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.05)
    database.takes_s = 60
    async with working(Bench(tmp_path)) as bench:
        for _ in range(BATCH_ROWS):
            bench.publish_book_ticker()
        await until(lambda: not bench.spool.is_empty)
        database.takes_s = 0
        await until(lambda: bench.spool.is_empty and not bench.writer.is_spooling)
    assert sum(database.writes) >= BATCH_ROWS


async def test_losses_are_saved_before_later_rows_are_stored(
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
                bench.publish_book_ticker()
                await until(lambda: len(saved) > number)  # noqa: B023 - awaited here
    assert saved == [True] * 3


async def test_rows_in_flight_are_spooled_before_newer_ones(
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
        bench.publish_book_ticker()
        await until(lambda: bench.intake.lanes.waiting == 0)
        bench.writer.is_spooling = True
        bench.publish_book_ticker()
        await until(lambda: len(stored) >= 2)
    assert stored == ["1", "2"]


# --- a disk that fails


async def spooled(bench: Bench, database: Database, batches: int) -> list[Path]:
    """Spool batches of ten book tickers, each of which fills a file; return the files."""
    database.is_away = True
    bench.writer.is_spooling = True
    folder = bench.spool._folder
    for number in range(batches):
        for _ in range(10):
            bench.publish_book_ticker()
        await until(lambda: len(list(folder.glob("*.spool"))) > number)  # noqa: B023 - awaited here
    return sorted(folder.glob("*.spool"))


async def test_zeros_in_the_spool_are_reported_and_later_rows_stored(
    database: Database, tmp_path: Path
) -> None:
    async with working(Bench(tmp_path)) as killed:
        files = await spooled(killed, database, 2)
    for file in files:
        file.write_bytes(file.read_bytes() + bytes(64))
    database.is_away = False
    async with working(Bench(tmp_path)) as bench:
        bench.quoted = 20
        await until(lambda: bench.spool.is_empty)
        bench.publish_book_ticker()
        await until(lambda: 21 in database.ids["book_tickers"] and bool(database.gaps))
    assert database.ids["book_tickers"] == list(range(1, 22))
    assert {(gap.symbol, gap.cause) for gap in database.gaps} == {("BTCUSDT", DAMAGED)}


async def test_deleted_spool_file_is_reported_and_later_rows_stored(
    database: Database, tmp_path: Path
) -> None:
    async with working(Bench(tmp_path)) as bench:
        files = await spooled(bench, database, 3)
        files[1].unlink()
        database.is_away = False
        await until(lambda: bench.spool.is_empty)
        bench.publish_book_ticker()
        await until(lambda: 31 in database.ids["book_tickers"] and bool(database.gaps))
    assert database.ids["book_tickers"] == [*range(1, 11), *range(21, 32)]
    assert [gap.cause for gap in database.gaps] == [GONE]


async def test_unremovable_spool_delays_no_row(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    async with working(Bench(tmp_path)) as bench:
        await spooled(bench, database, 3)
        monkeypatch.setattr(Path, "unlink", refuse)
        database.is_away = False
        await until(lambda: bench.spool.is_empty and not bench.writer.is_spooling)
        bench.publish_book_ticker()
        await until(lambda: 31 in database.ids["book_tickers"])
        monkeypatch.undo()
    assert database.ids["book_tickers"] == list(range(1, 32))


async def test_rows_in_memory_do_not_wait_for_an_unreadable_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def fail() -> None:
        nonlocal asked
        asked += 1
        raise OSError(5, "Input/output error")

    async with working(Bench(tmp_path)) as bench:
        await spooled(bench, database, 2)
        with monkeypatch.context() as patch:
            patch.setattr(bench.spool, "read", fail)
            await until(lambda: asked >= 1)  # else a record may have been read before
            database.is_away = False
            for number in range(1, 4):
                bench.trade()
                await until(lambda: number in database.ids["agg_trades"])  # noqa: B023 - awaited here
            bench.publish_book_ticker()
            await until(lambda: asked >= 4)
            assert database.ids["book_tickers"] == []
        await until(lambda: bench.spool.is_empty and 21 in database.ids["book_tickers"])
    assert database.ids["book_tickers"] == list(range(1, 22))


async def test_rows_waiting_for_the_disk_do_not_count_for_a_batch(
    database: Database, tmp_path: Path
) -> None:
    bench, loop = Bench(tmp_path), asyncio.get_running_loop()
    bench.writer.is_spooling = True
    for _ in range(2 * BATCH_ROWS):
        bench.publish_book_ticker()
    began_s = loop.time()
    await bench.writer._pause()
    assert loop.time() - began_s > 0.15


# --- a stop


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    settings = load_settings(
        database_url="postgresql://nobody@127.0.0.1:1/none", candelabra_home=tmp_path
    )
    one = Capture(settings, ["book_tickers"], trade_stream="aggTrade", traded_us=lambda _: 0)
    one.losses.add([Loss("book_tickers", "BTCUSDT", "cut", 1, 2)])
    one.intake.on_book_ticker(Market.SPOT, BookTicker(1, "BTCUSDT", "1", "2", "3", "4"))
    return one


async def stopped_beside_candles(capture: Capture, timeout_s: float) -> float:
    """Stop while candles are written, as the streamer does; how long it took."""
    written = 0

    async def write_candles() -> None:
        nonlocal written
        for _ in range(5):
            await asyncio.sleep(0.01)
            written += 1

    began_s = time.monotonic()
    await asyncio.gather(write_candles(), capture.stop(timeout_s))
    assert written == 5
    return time.monotonic() - began_s


async def test_full_disk_does_not_block_a_stop(
    capture: Capture, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(capture.losses, "save", refuse)
    monkeypatch.setattr(capture.spool, "close", refuse)
    await stopped_beside_candles(capture, 5.0)
    assert database.ids["book_tickers"] == [1]


@pytest.mark.parametrize("hangs", ["save", "close"])
@pytest.mark.parametrize("database_takes_s", [0.0, 60.0])
async def test_hanging_disk_does_not_block_a_stop(
    capture: Capture,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    hangs: str,
    database_takes_s: float,
) -> None:
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(20)

    monkeypatch.setattr(module, "LAST_DISK_S", 0.3)
    monkeypatch.setattr(capture.losses if hangs == "save" else capture.spool, hangs, hang)
    database.takes_s = database_takes_s
    try:
        assert await stopped_beside_candles(capture, 0.3) < 5
    finally:
        let_go.set()


async def test_unwritten_rows_are_on_disk_after_a_stop(
    capture: Capture, database: Database
) -> None:
    database.takes_s = 60.0
    await stopped_beside_candles(capture, 0.2)
    after = Spool(capture.spool._folder, max_bytes=1 << 20)
    found = after.read()
    assert isinstance(found, Record)
    assert [line.split("\t")[2] for line in found.lines] == ["1"]


# --- every dataset

AT = b'"E":1763716800000,"s":"BTCUSDT","T":1763716800000'
ORDER = (
    b'{"s":"BTCUSDT","S":"BUY","o":"LIMIT","f":"IOC","q":"1","p":"2","ap":"2","X":"FILLED","l":"1",'
    b'"z":"1","T":1763716800000}'
)
FRAMES = {
    kind: b'{"stream":"btcusdt@%b","data":{"e":"%b",%b,%b}}'
    % (kind.encode(), kind.encode(), AT, rest)
    for kind, rest in {
        "aggTrade": b'"a":7,"p":"2.5","q":"0.1","f":3,"l":4,"m":true',
        "trade": b'"t":7,"p":"2.5","q":"0.1","m":true',
        "bookTicker": b'"u":7,"b":"1","B":"2","a":"3","A":"4"',
        "forceOrder": b'"o":' + ORDER,
    }.items()
}
FRAMES[DEPTH_STREAM] = (
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate",%b,"U":6,"u":7,'
    b'"b":[["1","2"]],"a":[]}}' % AT
)

SNAPSHOT = BookSnapshot(7, [("1", "2")], [("3", "4")], None, "3")


@pytest.mark.parametrize("tapped", ["aggTrade", "trade"])
@pytest.mark.parametrize("dataset", STREAM_OF)
async def test_rows_of_each_dataset_and_market_reach_their_table(
    database: Database, tmp_path: Path, dataset: str, tapped: str
) -> None:
    settings = load_settings(
        database_url="postgresql://nobody@127.0.0.1:1/none", candelabra_home=tmp_path
    )
    capture = Capture(settings, RAW_TABLES, trade_stream=tapped, traded_us=lambda _: 0)
    capture.add(["BTCUSDT", "BTCUSDT.P", "BTCUSD_PERP"])
    kind = STREAM_OF[dataset]
    markets = [one for one in Market if is_streamed(dataset, one)]
    for market in markets:
        text = FRAMES[kind]
        if market is Market.CM:
            text = text.replace(b"BTCUSDT", b"BTCUSD_PERP").replace(b"btcusdt", b"btcusd_perp")
        if kind == tapped:
            tap, frame = capture.tap(market), decode_book_frame(text)
            assert tap is not None
            assert isinstance(frame, AggTrade | Trade)
            tap(frame)
        else:
            (feed,) = (one for one in capture.feeds if one.market is market and kind in one.kinds)
            feed.on_texts([text])
    await capture.stop(5.0)
    symbols = {name: sorted(found) for name, found in database.symbols.items() if found}
    names = {Market.SPOT: "BTCUSDT", Market.UM: "BTCUSDT.P", Market.CM: "BTCUSD_PERP"}
    assert symbols == {dataset: [names[one] for one in markets]}
    expected_id = 3698782214554944448 if dataset == "liquidations" else 7
    assert database.ids[dataset] == [expected_id] * len(markets)


async def test_rows_of_each_dataset_survive_an_outage_of_the_database(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, datasets=RAW_TABLES)
    database.is_away = True
    async with working(bench):
        for market in Market:
            for message in FRAMES.values():
                frame = decode_book_frame(message, decode_other=decode_with_liquidations)
                if isinstance(frame, ForceOrder):
                    if is_streamed("liquidations", market):
                        bench.intake.on_liquidation(market, frame)
                elif isinstance(frame, BookTicker):
                    bench.intake.on_book_ticker(market, frame)
                elif isinstance(frame, AggTrade | Trade):
                    bench.intake.on_trade(market, frame)
                elif isinstance(frame, DepthUpdate):
                    bench.intake.on_depth(market, frame)
                    bench.intake.book_snapshot(
                        symbol_of(market, frame.symbol), SNAPSHOT, "rest", 1_672_515_782_136_000
                    )
        # Rows that the exchange serves again by id wait in memory, all others on disk.
        await until(lambda: bench.intake.lanes.waiting == 3 and not bench.spool.is_empty)
        database.is_away = False
        # A row that was in flight may come twice: the table takes one of them.
        expected = {
            (name, symbol_of(one, "BTCUSDT"))
            for name in RAW_TABLES
            for one in Market
            if is_streamed(name, one)
        }
        await until(
            lambda: (
                {(name, symbol) for name, found in database.symbols.items() for symbol in found}
                == expected
            )
        )
        await until(lambda: bench.spool.is_empty)
