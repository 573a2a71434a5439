"""Captured rows a second into PostgreSQL, against bare COPY of the same rows.

Combined frames, prepared ahead, go through a capture connection's ``on_text`` as fast as the
bound of its memory lets them: decode, look at the id, queue, batch, COPY. Bare COPY is given the
same rows as ready text in one statement, into a table with the same columns and key.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psycopg
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.domain.instruments import Market
from include.store.migrate import migrate
from include.store.raw import AGG_TRADES, BOOK_TICKERS, RawTable
from streamer.capture.feed import CaptureFeed
from streamer.capture.intake import DATASETS, Intake
from streamer.capture.losses import Losses
from streamer.capture.spool import Spool
from streamer.capture.writer import CaptureWriter

ROWS = 400_000
SYMBOLS = 100
START_US = 1_763_716_800_000_000
BATCH_ROWS = 5_000
BUFFER_ROWS = 50_000
FRAMES_A_TURN = 200
"""As many as a busy socket delivers between two turns of other tasks."""


def agg_trades() -> list[bytes]:
    """aggTrade frames of many symbols, in turn."""
    made = []
    for number in range(ROWS):
        at, name = START_US + number * 50, f"SYM{number % SYMBOLS}USDT"
        trade = {
            "e": "aggTrade", "E": at + 500, "s": name, "a": 1_000 + number // SYMBOLS,
            "p": f"{60_000 + number % 977 / 100:.8f}", "q": f"{(number % 89 + 1) / 1000:.8f}",
            "f": 2 * number, "l": 2 * number + 1, "T": at, "m": number % 2 == 0, "M": True,
        }  # fmt: skip
        made.append(msgspec.json.encode({"stream": f"{name.lower()}@aggTrade", "data": trade}))
    return made


def quotes() -> list[bytes]:
    """bookTicker frames of many symbols, in turn."""
    made = []
    for number in range(ROWS):
        name = f"SYM{number % SYMBOLS}USDT"
        quote = {
            "u": 9_000_000 + number, "s": name,
            "b": f"{60_000 + number % 977 / 100:.8f}", "B": f"{(number % 89 + 1) / 1000:.8f}",
            "a": f"{60_001 + number % 977 / 100:.8f}", "A": f"{(number % 83 + 1) / 1000:.8f}",
        }  # fmt: skip
        made.append(msgspec.json.encode({"stream": f"{name.lower()}@bookTicker", "data": quote}))
    return made


def run() -> None:
    """Print both rates and their ratio, for trades and for quotes."""
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            for table, frames in ((AGG_TRADES, agg_trades()), (BOOK_TICKERS, quotes())):
                url = server.create_database(table.name)
                migrate(url)
                home = Path(folder) / table.name
                home.mkdir()
                captured_s = asyncio.run(_captured(url, table, frames, home))
                bare_s = _bare(url, table)
                print(
                    f"capture: {table.name} {ROWS / captured_s:,.0f} rows/s from frame to table, "
                    f"bare COPY {ROWS / bare_s:,.0f}: ratio {bare_s / captured_s:.2f}"
                )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"capture: peak memory {peak_mb:,.0f} MB, the prepared frames included")


async def _captured(url: str, table: RawTable, frames: Sequence[bytes], home: Path) -> float:
    losses, spool = Losses(home / "losses.json"), Spool(home, max_bytes=1 << 30)
    intake = Intake(DATASETS, most_rows=2 * BUFFER_ROWS, on_losses=losses.add)
    writer = CaptureWriter(
        url, intake.lanes, spool, losses, batch_rows=BATCH_ROWS, flush_timeout_s=0.5
    )
    feed = CaptureFeed(
        "ws://127.0.0.1:1", Market.SPOT, (), [f"SYM{n}USDT" for n in range(SYMBOLS)],
        intake, name="bench", stale_after_s=15, on_missed=lambda *_: None, now_us=lambda: START_US,
    )  # fmt: skip
    working = asyncio.create_task(writer.run())
    began = time.perf_counter()
    for first in range(0, len(frames), FRAMES_A_TURN):
        for frame in frames[first : first + FRAMES_A_TURN]:
            feed.on_text(frame)
        await asyncio.sleep(0)
        # below what would go to the disk
        await _until(lambda: intake.lanes.waiting <= BUFFER_ROWS // 4)
    await _until(lambda: writer.written[table.name] == len(frames))
    took_s = time.perf_counter() - began
    working.cancel()
    await asyncio.wait([working])
    return took_s


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


def _bare(url: str, table: RawTable) -> float:
    """COPY of the rows that were captured, as text that is ready."""
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    with psycopg.connect(url) as connection:
        with connection.cursor().copy(
            sql.SQL("COPY (SELECT {} FROM {} ORDER BY ctid) TO STDOUT").format(columns, table.path)
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
