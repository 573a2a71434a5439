"""Order books of 100 symbols at 100 ms: capture, size, and books rebuilt by SQL.

Prepared frames go through a capture connection's ``on_text``: decode, check the ids, apply to the
live book, format the line, queue, COPY. Each has 36 levels, the mean of BTCUSDT on spot in a
recording of 2024-08-08, and moves around a random walk. Compared with bare COPY of the same rows as
prepared text, into a table with the same columns and key but without partitions and checks.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import quantiles

import psycopg

from benchmarks.capture import BATCH_ROWS, BUFFER_ROWS, copy_seconds, until
from deploy.local.postgres import EmbeddedPostgres
from include.binance.streams.depth import DEPTH_STREAM
from include.domain.books.order_book import BookSnapshot, LevelText
from include.domain.instruments import Market
from include.domain.timeframes import from_us
from include.store.migrate import migrate
from include.store.trades.captured import DEPTH_DIFFS, tables_of
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.rows import Intake
from streamer.capture.spool.losses import Losses
from streamer.capture.spool.spool import Spool
from streamer.capture.writer import CaptureWriter
from streamer.hub.books.live_books import LiveBooks

SYMBOLS = 100
MINUTES = 2
STEPS = MINUTES * 600
"""Diffs of each symbol, one in 100 ms."""
START_US = 1_763_716_800_000_000
MAX_WAITING = 4_000
LEVELS = 17
"""Changed levels of each side of a diff."""
SNAPSHOT_LEVELS = 1_000
REBUILDS = 300


def run() -> None:
    """Print rates, size and the time of a rebuilt book."""
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            url = server.create_database("depth")
            migrate(url)
            rows, took_s, cpu_s = asyncio.run(_captured(url, Path(folder)))
            bare = rows / copy_seconds(url, DEPTH_DIFFS)
            needed = 10 * SYMBOLS
            print(
                f"depth: frame to table {rows / took_s:,.0f} rows/s "
                f"({rows / took_s / bare:.2f} of bare COPY, {bare:,.0f} rows/s); "
                f"{SYMBOLS} symbols need {needed:,}, which take {needed * cpu_s / rows:.0%} of a "
                "processor in the streamer"
            )
            print(f"depth: {_sizes(url)}")
            print(f"depth: {_rebuilds(url)}")


async def _captured(url: str, home: Path) -> tuple[int, float, float]:
    """Return rows, seconds and processor seconds from frames to the table."""
    names = [f"SYM{number}USDT" for number in range(SYMBOLS)]
    losses, spool, books = Losses(home / "losses.json"), Spool(home, max_bytes=1 << 30), LiveBooks()
    intake = Intake(
        tables_of(["depth"]),
        max_rows=BUFFER_ROWS,
        on_losses=losses.add,
        books=books,
        now_us=lambda: START_US,
    )
    writer = CaptureWriter(
        url, intake.lanes, spool, losses, batch_rows=BATCH_ROWS, flush_timeout_s=0.5
    )
    take = CaptureFeed(
        "ws://127.0.0.1:1", Market.SPOT, (DEPTH_STREAM,), names, intake, name="bench",
        stale_after_s=15, now_us=lambda: START_US, on_missed=lambda *_: None,
        on_revived=lambda *_: None,
    ).on_text  # fmt: skip
    market = _Market()
    frames = list(market.frames(STEPS))
    working = asyncio.create_task(writer.run())
    began, cpu_began, made_s = time.perf_counter(), time.process_time(), 0.0
    for step, frame in enumerate(frames):
        made = time.perf_counter()
        step_frames = [frame.replace(b"SYMBOL", name.encode()) for name in names]
        made_s += time.perf_counter() - made
        for one in step_frames:
            take(one)
        if step == 0:
            for book in books.synced_books:
                book.request_sent()
                assert book.snapshot_received(market.snapshot)
        await asyncio.sleep(0)
        await until(lambda: intake.lanes.waiting <= MAX_WAITING)
    rows = STEPS * SYMBOLS
    await until(lambda: writer.written[DEPTH_DIFFS.name] == rows and not intake.lanes.waiting)
    took_s, cpu_s = time.perf_counter() - began - made_s, time.process_time() - cpu_began - made_s
    working.cancel()
    await asyncio.wait([working])
    assert all(book.book is not None and book.breaks == 0 for book in books.synced_books)
    return rows, took_s, cpu_s


class _Market:
    """A book on a random walk of its middle, in ticks of 0.01."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._middle = 6_000_000
        self.snapshot = BookSnapshot(10, *self._sides(SNAPSHOT_LEVELS), None, None)

    def frames(self, steps: int) -> Iterator[bytes]:
        for step in range(steps):
            moved = self._random.choice((-4, 0, 0, 4)) if step else 0
            self._middle += moved
            bids, asks = self._sides(LEVELS)
            # What the move has crossed is removed.
            if moved > 0:
                asks = [(_price(self._middle - n), "0.00000000") for n in range(moved)] + asks
            elif moved < 0:
                bids = [(_price(self._middle + n), "0.00000000") for n in range(-moved)] + bids
            update = {
                "e": "depthUpdate", "E": START_US + step * 100_000, "s": "SYMBOL",
                "U": 10 * step + 1, "u": 10 * step + 10, "b": bids, "a": asks,
            }  # fmt: skip
            yield json.dumps(
                {"stream": f"symbol@{DEPTH_STREAM}", "data": update}, separators=(",", ":")
            ).encode()

    def _sides(self, levels: int) -> tuple[list[LevelText], list[LevelText]]:
        drawn = self._random
        away = sorted(drawn.sample(range(1, max(3 * levels, 600)), levels))
        return (
            [(_price(self._middle - n), f"{drawn.random() * 3:.5f}000") for n in away],
            [(_price(self._middle + n), f"{drawn.random() * 3:.5f}000") for n in away],
        )


def _price(ticks: int) -> str:
    return f"{ticks // 100}.{ticks % 100:02d}000000"


def _sizes(url: str) -> str:
    """Return the bytes of a symbol and day, from the tables' sizes."""
    shown = []
    with psycopg.connect(url) as connection:
        for table, a_day in (("depth_diffs", 864_000), ("depth_snapshots", 1_440)):
            found = connection.execute(
                "SELECT sum(pg_total_relation_size(inhrelid)) / (SELECT count(*) FROM market."  # noqa: S608
                f"{table}) FROM pg_inherits WHERE inhparent = 'market.{table}'::regclass"
            ).fetchone()
            assert found is not None
            a_row = float(found[0])
            shown.append(f"{table} {a_row:,.0f} bytes a row, {a_row * a_day / 1e6:,.0f} MB")
    return "; ".join(shown) + " a symbol and day"


def _rebuilds(url: str) -> str:
    """Return the time of a book at a random time, each of another symbol."""
    drawn, took_ms = random.Random(3), []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE market.depth_diffs, market.depth_snapshots")
        for _ in range(REBUILDS):
            at = from_us(START_US) + timedelta(seconds=drawn.uniform(61, 60 * MINUTES - 1))
            symbol = f"SYM{drawn.randrange(SYMBOLS)}USDT"
            began = time.perf_counter()
            rows = connection.execute(
                "SELECT * FROM market.book_at(%s, %s)", (symbol, at)
            ).fetchall()
            took_ms.append((time.perf_counter() - began) * 1000)
            assert len(rows) == 40
    cuts = quantiles(took_ms, n=100)
    return f"book_at: median {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms of {REBUILDS}"
