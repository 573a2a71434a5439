"""A year of a symbol from monthly files, loaded twice: the second time changes nothing."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import psycopg
import pytest

from include.config import Settings
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, from_us, to_us
from include.jobs.klines.backfill import load_pieces
from include.jobs.klines.dump_loading import window_of
from include.jobs.klines.pieces import BackfillPlan, DumpPiece
from include.store.candles.minutes import missing_minutes

MONTH = TIMEFRAMES["1M"]
START = to_us(datetime(2023, 1, 1, tzinfo=UTC))
END = to_us(datetime(2024, 1, 1, tzinfo=UTC))
MINUTES = 525_600

STATE = """
SELECT
    count(*),
    sum(hashtextextended(c::text, 0)),
    max(updated_at),
    max(revision)
FROM market.candles_1m AS c
"""
LEDGERS = (
    "SELECT changed_by, symbol, minutes::text FROM ops.candle_changes ORDER BY 1, 2, 3",
    "SELECT symbol, source, day, minutes::text FROM ops.coverage ORDER BY 1, 2, 3",
    "SELECT count(*) FROM ops.discrepancies",
    "SELECT path, checksum, rows, verdict FROM ops.dump_files ORDER BY 1, 2",
)


def state_of(connection: psycopg.Connection) -> list[object]:
    """Everything that a second load must not change."""
    return [connection.execute(statement).fetchall() for statement in (STATE, *LEDGERS)]


def write_month(folder: Path, start_us: int) -> DumpPiece:
    """A file of every minute of a month, and its checksum."""
    end_us = MONTH.next_open_us(start_us)
    n = pl.int_range(start_us // MINUTE_US, end_us // MINUTE_US, eager=True).alias("n")
    price, volume = 100 + n % 9_973, 2 + n % 90_017

    def text(whole: pl.Series, places: pl.Series) -> pl.Series:
        digits = places.cast(pl.String).str.zfill(5)
        return (whole.cast(pl.String) + "." + digits + "000").alias("")

    rows = pl.DataFrame(
        {
            "open_time": n * 60_000,
            "open": text(price, n % 97),
            "high": text(price + 40, n % 89),
            "low": text(price - 31, n % 83),
            "close": text(price + n % 13, n % 79),
            "volume": text(volume, n % 99_991),
            "close_time": n * 60_000 + 59_999,
            "quote_volume": text(volume * price, n % 99_989),
            "trades": 1 + n % 3_000,
            "taker_volume": text(volume // 2, n % 99_961),
            "taker_quote_volume": text(volume // 2 * price, n % 99_929),
            "ignored": n * 0,
        }
    )
    name = f"YEARUSDT-1m-{from_us(start_us):%Y-%m}"
    file = folder / f"{name}.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"{name}.csv", rows.write_csv(include_header=False))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    Path(f"{file}.CHECKSUM").write_text(f"{digest}  {file.name}\n")
    assert window_of(file.name) == (start_us, end_us)
    return DumpPiece("YEARUSDT", name, file.name, "dump_monthly", start_us, end_us)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """pytest shows what matters."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, list[DumpPiece]]]:
    """A dump site with a year of one symbol."""
    folder = tmp_path / "site"
    folder.mkdir()
    pieces, start_us = [], START
    while start_us < END:
        pieces.append(write_month(folder, start_us))
        start_us = MONTH.next_open_us(start_us)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", pieces
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.mark.long
def test_second_load_of_a_year_changes_nothing(
    site: tuple[str, list[DumpPiece]],
    make_settings: Callable[..., Settings],
    connection: psycopg.Connection,
) -> None:
    url, pieces = site
    settings = make_settings(binance_dump_url=url, binance_dump_list_url=url)
    plan = BackfillPlan(tuple(pieces))

    first = load_pieces(settings=settings, plan=plan, workers=2)
    assert (first.failed, first.counts.inserted) == ((), MINUTES)
    before = state_of(connection)
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (MINUTES,)

    second = load_pieces(settings=settings, plan=plan, workers=2)
    assert (second.failed, second.counts.offered, second.counts.unchanged) == (
        (),
        MINUTES,
        MINUTES,
    )
    assert state_of(connection) == before
    assert missing_minutes(connection, "YEARUSDT", START, END, unsure=True) == []
