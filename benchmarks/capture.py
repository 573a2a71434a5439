"""Sustained rate of captured rows into PostgreSQL, against bare COPY of the same rows.

Prepared combined frames go through a capture connection's ``on_text`` as fast as its memory bound
allows: decode, check the id, format the line, queue, COPY. Three other ways are measured for
comparison:

- the same path from trades and quotes that are already decoded;
- bare COPY of the same rows as prepared text in one statement, into a table with the same columns
  and key but without partitions and checks;
- the obvious first implementation: ``executemany`` of ``INSERT … ON CONFLICT DO NOTHING`` from
  decoded rows, in transactions of the same number of rows.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.messages import AggTrade
from include.domain.instruments import Market
from include.store.migrate import migrate
from include.store.trades.captured import AGG_TRADES, BOOK_TICKERS, RawTable
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.rows import DATASETS, Intake
from streamer.capture.spool.losses import Losses
from streamer.capture.spool.spool import Spool
from streamer.capture.writer import CaptureWriter

ROWS = 3_000_000
"""Number of rows of the sustained run."""
DECODED_ROWS = 600_000
NAIVE_ROWS = 60_000
SYMBOLS = 100
START_US = 1_763_716_800_000_000
BATCH_ROWS = 20_000
BUFFER_ROWS = 100_000
"""Batch size and memory bound: the defaults of the settings."""
MAX_WAITING = 2 * BATCH_ROWS
"""Send frames while at most this many rows wait: one batch being written and one being filled."""
FRAMES_A_TURN = 200
"""Frames that a busy socket delivers before the event loop runs other tasks."""

NOON = datetime(2025, 11, 21, 12, tzinfo=UTC)


def agg_trades(rows: int) -> list[bytes]:
    """Return aggTrade frames of many symbols, round-robin."""
    made = []
    for number in range(rows):
        at, name = START_US + number * 5, f"SYM{number % SYMBOLS}USDT"
        trade = {
            "e": "aggTrade", "E": at + 500, "s": name, "a": 1_000 + number // SYMBOLS,
            "p": f"{60_000 + number % 977 / 100:.8f}", "q": f"{(number % 89 + 1) / 1000:.8f}",
            "f": 2 * number, "l": 2 * number + 1, "T": at, "m": number % 2 == 0, "M": True,
        }  # fmt: skip
        made.append(msgspec.json.encode({"stream": f"{name.lower()}@aggTrade", "data": trade}))
    return made


def quotes(rows: int) -> list[bytes]:
    """Return bookTicker frames of many symbols, round-robin."""
    made = []
    for number in range(rows):
        name = f"SYM{number % SYMBOLS}USDT"
        quote = {
            "u": 9_000_000 + number, "s": name,
            "b": f"{60_000 + number % 977 / 100:.8f}", "B": f"{(number % 89 + 1) / 1000:.8f}",
            "a": f"{60_001 + number % 977 / 100:.8f}", "A": f"{(number % 83 + 1) / 1000:.8f}",
        }  # fmt: skip
        made.append(msgspec.json.encode({"stream": f"{name.lower()}@bookTicker", "data": quote}))
    return made


@dataclass
class Run:
    """Rate, late rate and memory of a run."""

    rows: int
    took_s: float
    last_quarter: float
    """Rate of the last quarter of the rows as a share of the whole run's."""
    grown_mb: float
    """Peak memory of the run, above the prepared frames."""


def run() -> None:
    """Print all rates and their ratios to bare COPY, for trades and for quotes."""
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            for table, prepare in ((AGG_TRADES, agg_trades), (BOOK_TICKERS, quotes)):
                url = server.create_database(table.name)
                migrate(url)
                _measure(url, table, prepare(ROWS), Path(folder) / table.name)


def _measure(url: str, table: RawTable, frames: Sequence[bytes], home: Path) -> None:
    for name in ("decoded", "frames"):
        (home / name).mkdir(parents=True)
    decoded = [decode_captured(frame) for frame in frames[:DECODED_ROWS]]
    ready = asyncio.run(_captured(url, table, decoded, home / "decoded"))
    _empty(url, table)
    sustained = asyncio.run(_captured(url, table, frames, home / "frames"))
    bare_s = copy_seconds(url, table)
    naive_s = _naive(url, table, decoded[:NAIVE_ROWS])
    bare = sustained.rows / bare_s
    shown = {
        "frame to table": sustained.rows / sustained.took_s,
        "decoded to table": ready.rows / ready.took_s,
        "executemany": NAIVE_ROWS / naive_s,
    }
    rates = ", ".join(f"{name} {rate:,.0f} ({rate / bare:.2f})" for name, rate in shown.items())
    print(
        f"capture: {table.name}: {rates}; bare COPY {bare:,.0f} rows/s; "
        f"{sustained.took_s:.0f} s sustained, last quarter at {sustained.last_quarter:.2f} "
        f"of the whole, memory +{sustained.grown_mb:.0f} MB"
    )


async def _captured(url: str, table: RawTable, given: Sequence[Any], home: Path) -> Run:
    """Send frames, or the decoded values, until all rows are in the table."""
    losses, spool = Losses(home / "losses.json"), Spool(home, max_bytes=1 << 30)
    received = iter(range(START_US, START_US + 5 * len(given), 5))
    intake = Intake(
        DATASETS, max_rows=BUFFER_ROWS, on_losses=losses.add, now_us=partial(next, received)
    )
    writer = CaptureWriter(
        url, intake.lanes, spool, losses, batch_rows=BATCH_ROWS, flush_timeout_s=0.5
    )
    take = _taker(intake, given[0])
    working = asyncio.create_task(writer.run())
    resident_mb = max_mb = _resident_mb()
    began = quarter_began = time.perf_counter()
    for first in range(0, len(given), FRAMES_A_TURN):
        if first == len(given) * 3 // 4:
            quarter_began = time.perf_counter()
        for one in given[first : first + FRAMES_A_TURN]:
            take(one)
        if first % (100 * FRAMES_A_TURN) == 0:
            max_mb = max(max_mb, _resident_mb())
        await asyncio.sleep(0)
        await until(lambda: intake.lanes.waiting <= MAX_WAITING)
    await until(lambda: writer.written[table.name] == len(given))
    ended = time.perf_counter()
    working.cancel()
    await asyncio.wait([working])
    took_s = ended - began
    last_quarter = (took_s / 4) / (ended - quarter_began)
    return Run(len(given), took_s, last_quarter, max_mb - resident_mb)


def _taker(intake: Intake, first: object) -> Callable[[Any], None]:
    if isinstance(first, AggTrade):
        return partial(intake.on_trade, Market.SPOT)
    if isinstance(first, BookTicker):
        return partial(intake.on_book_ticker, Market.SPOT)
    return CaptureFeed(
        "ws://127.0.0.1:1", Market.SPOT, (), [f"SYM{n}USDT" for n in range(SYMBOLS)],
        intake, name="bench", stale_after_s=15, now_us=lambda: START_US,
        on_missed=lambda *_: None, on_revived=lambda *_: None,
    ).on_text  # fmt: skip


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def _empty(url: str, table: RawTable) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("TRUNCATE {}").format(table.path))


def _columns(table: RawTable) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, table.columns))


def copy_seconds(url: str, table: RawTable) -> float:
    """Return the seconds of a COPY of the captured rows, prepared as text."""
    columns = _columns(table)
    with psycopg.connect(url) as connection:
        with connection.cursor().copy(
            sql.SQL("COPY {} ({}) TO STDOUT").format(_day_of(connection, table), columns)
        ) as copy:
            text = b"".join(bytes(part) for part in copy)
        connection.execute(
            sql.SQL("CREATE TABLE bare (LIKE {} INCLUDING DEFAULTS, PRIMARY KEY ({}))").format(
                table.path,
                sql.SQL(", ").join(map(sql.Identifier, ("symbol", "day", table.id_column))),
            )
        )
        connection.commit()
        began = time.perf_counter()
        with connection.cursor().copy(sql.SQL("COPY bare ({}) FROM STDIN").format(columns)) as copy:
            copy.write(text)
        connection.commit()
        return time.perf_counter() - began


def _day_of(connection: psycopg.Connection[Any], table: RawTable) -> sql.Identifier:
    """Return the name of the partition that holds all captured rows, in order of arrival."""
    found = connection.execute(
        "SELECT ops.ensure_partition(%s::regclass, %s)", (f"market.{table.name}", NOON)
    ).fetchone()
    assert found is not None
    return sql.Identifier("market", found[0])


def _naive(url: str, table: RawTable, decoded: Sequence[Any]) -> float:
    """Return the seconds to insert the same rows, dated to the next day, by INSERT."""
    rows = [_row(one, n) for n, one in enumerate(decoded)]
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        table.path, _columns(table), sql.SQL(", ").join([sql.Placeholder()] * len(table.columns))
    )
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT ops.ensure_partition(%s::regclass, %s)",
            (f"market.{table.name}", NOON + timedelta(days=1)),
        )
        connection.commit()
        began = time.perf_counter()
        for start in range(0, len(rows), BATCH_ROWS):
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(statement, rows[start : start + BATCH_ROWS])
        return time.perf_counter() - began


def _row(one: AggTrade | BookTicker, number: int) -> tuple[Any, ...]:
    """Return the row's values in the order of the table's columns."""
    at = NOON + timedelta(days=1, microseconds=number)
    if isinstance(one, AggTrade):
        return (
            one.symbol, at.date(), one.id, one.price, one.quantity, one.first_trade_id,
            one.last_trade_id, at, one.is_buyer_maker,
        )  # fmt: skip
    return (
        one.symbol, at.date(), one.update_id, one.bid_price, one.bid_quantity, one.ask_price,
        one.ask_quantity, None, at,
    )  # fmt: skip
