"""History into the table: monthly dumps and REST, against bare tools on the same rows.

- Dumps, one file after the other: download, checksum, unzip, check, COPY, merge and ledgers of a
  year. The comparison is COPY and the same merge of rows that are already parsed and written as
  CSV. Both take turns, month by month, each in its own database.
- Dumps as ``candelabra backfill`` loads them, four at a time, with peak memory.
- The plain way: pandas' ``read_csv`` and ``to_sql`` of one month into a table without keys.
- REST: pages a second from a server without limits, against the exchange's limit, and the CPU time
  of a page. The table in docs/history.md uses these rates.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psycopg

from benchmarks.history_costs import costs_table
from benchmarks.load.served_history import (
    MINUTE_MS,
    PUBLISHED,
    SYMBOL,
    dump_path,
    month_bounds_ms,
    write_year,
)
from deploy.local.postgres import EmbeddedPostgres
from include.binance.files.kline_files import read_klines
from include.binance.rest.weights import WEIGHT_LIMITS
from include.config import Settings
from include.domain.candles import Source, Status
from include.domain.columns.candles import as_candidates
from include.domain.instruments import Market
from include.domain.timeframes import to_us
from include.jobs.klines.backfill import BackfillPlan, load_dump_piece, load_pieces
from include.jobs.klines.estimates import WEIGHT_SHARE, Rates
from include.jobs.klines.pieces import DumpPiece, RestPiece
from include.store.candles.merging import CANDIDATE_COLUMNS, CHUNK_ROWS
from include.store.migrate import migrate
from include.store.postgres.pools import connect

CEILING_S = 3_000 / 60
"""Requests a second that spot's request weight allows: 6,000 a minute, 2 for each page."""

REST_PIECES = 40
REST_PIECE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """Number of rows and seconds of a load."""

    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def run() -> None:
    """Print rates, their ratios, and the cost of a full history at these rates."""
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_year(folder / "site")
        with EmbeddedPostgres(folder / "pg") as server, _site(folder / "site") as url:

            def fresh(database: str) -> Settings:
                database_url = server.create_database(database)
                migrate(database_url)
                return Settings(
                    database_url=database_url,
                    binance_rest_url=url,
                    binance_dump_url=url,
                    binance_dump_list_url=url,
                    candelabra_home=folder,
                    log_level="WARNING",
                )

            _quiet()
            ours, bare = _year_by_turns(folder / "site", fresh("ours"), fresh("bare"))
            print(
                f"history: dumps {ours.rate:,.0f} rows/s, COPY and merge of the parsed rows "
                f"{bare.rate:,.0f}: ratio {ours.rate / bare.rate:.2f}"
            )
            settings = fresh("four")
            four, peak_mb = _in_a_process(settings)
            print(
                f"  four at once {four.rate:,.0f} rows/s: ratio {four.rate / bare.rate:.2f}, "
                f"at most {peak_mb:.0f} MB of memory"
            )
            pandas = _pandas(folder / "site", server.create_database("pandas"))
            print(
                f"  pandas {pandas.rate:,.0f} rows/s into a table without keys: "
                f"ours / pandas {ours.rate / pandas.rate:.1f}"
            )
            rest, page_s = _rest(fresh("rest"))
            pages_s = rest.rate / 1_000
            print(
                f"  REST {pages_s:.0f} pages/s, {rest.rate:,.0f} rows/s: "
                f"{pages_s / CEILING_S:.2f} of the exchange's ceiling, "
                f"{pages_s / CEILING_S / WEIGHT_SHARE:.2f} of the share in use; of our own "
                f"processor time {page_s * 1_000:.1f} ms a page, {page_s * 3_000:.0f} s for the "
                f"3,000 pages of a minute"
            )
            print(f"  {_row_bytes(settings):.0f} bytes a row on disk, loaded in order")
            zip_bytes = sum(one.stat().st_size for one in (folder / "site").rglob("*.zip"))
            print(costs_table(Rates(four.rate, rest.rate), zip_bytes / ours.rows))


@contextmanager
def _site(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.load.served_history", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=20)


def _quiet() -> None:
    from include.logs import configure_logging

    configure_logging("WARNING", "auto")


def pieces() -> list[DumpPiece]:
    """Return the year's monthly files."""
    found = []
    for month in range(1, 13):
        start_ms, end_ms = month_bounds_ms(month)
        path = dump_path(month)
        found.append(
            DumpPiece(SYMBOL, path[-11:], path, "dump_monthly", start_ms * 1_000, end_ms * 1_000)
        )
    return found


def _year_by_turns(site: Path, ours: Settings, bare: Settings) -> tuple[Loaded, Loaded]:
    rows, ours_s, bare_s = 0, 0.0, 0.0
    with connect(bare.database_url, application_name="benchmark") as connection:
        for piece in pieces():
            chunks = _rendered(site / piece.path)
            began = time.perf_counter()
            loaded = load_dump_piece(settings=ours, piece=piece)
            ours_s += time.perf_counter() - began
            began = time.perf_counter()
            for chunk in chunks:
                _copy_and_merge(connection, chunk)
            bare_s += time.perf_counter() - began
            assert loaded.inserted == (piece.end_us - piece.start_us) // 60_000_000, loaded
            rows += loaded.inserted
    return Loaded(rows, ours_s), Loaded(rows, bare_s)


def _rendered(file: Path) -> list[bytes]:
    """Yield the rows of a file as CSV with the merge's columns, in the file's chunks."""
    chunks = []
    for block in read_klines(file, SYMBOL):
        candidates = as_candidates(
            block.candles,
            status=Status.VERIFIED,
            source=Source.DUMP_MONTHLY,
            evidence_at_us=to_us(PUBLISHED),
        )
        for part in candidates.select(CANDIDATE_COLUMNS).iter_slices(CHUNK_ROWS):
            text = part.write_csv(include_header=False, datetime_format="%F %T%.f+00")
            chunks.append(text.encode())
    return chunks


def _copy_and_merge(connection: psycopg.Connection, chunk: bytes) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS candidates (LIKE ops.candle_candidates)"
            " ON COMMIT DELETE ROWS"
        )
        columns = ", ".join(CANDIDATE_COLUMNS)
        with cursor.copy(f"COPY pg_temp.candidates ({columns}) FROM STDIN (FORMAT csv)") as copy:
            copy.write(chunk)
        cursor.execute("SELECT * FROM ops.merge_candidates()")


def _in_a_process(settings: Settings) -> tuple[Loaded, float]:
    """Load the year with four workers in a separate process, to measure its memory."""
    command = [sys.executable, "-c", "from benchmarks.history import load_four; load_four()"]
    told = subprocess.run(
        command, input=settings.model_dump_json(), capture_output=True, text=True, check=True
    )
    rows, seconds, peak_kb = json.loads(told.stdout.splitlines()[-1])
    return Loaded(rows, seconds), peak_kb / 1024


def load_four() -> None:
    """Load the year with the settings on standard input; print rows, seconds and peak kB."""
    settings = Settings(**json.loads(sys.stdin.read()))
    _quiet()
    began = time.perf_counter()
    summary = load_pieces(settings=settings, plan=BackfillPlan(tuple(pieces())))
    seconds = time.perf_counter() - began
    assert summary.failed == (), summary.failed
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([summary.counts.inserted, seconds, peak_kb]))


def _pandas(site: Path, url: str) -> Loaded:
    """Load one month as pandas documents it: ``read_csv`` from the zip, then ``to_sql``."""
    import pandas as pd
    from sqlalchemy import create_engine

    names = [
        "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
        "trade_count", "taker_buy_volume", "taker_buy_quote_volume", "ignored",
    ]  # fmt: skip
    file = site / dump_path(1)
    with zipfile.ZipFile(file) as archive:
        assert len(archive.namelist()) == 1
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    began = time.perf_counter()
    frame = pd.read_csv(file, header=None, names=names)
    frame.to_sql("candles", engine, index=False, method="multi", chunksize=1_000)
    seconds = time.perf_counter() - began
    engine.dispose()
    return Loaded(len(frame), seconds)


def _rest(settings: Settings) -> tuple[Loaded, float]:
    """Fetch REST pages with four workers and an unlimited budget.

    The server and PostgreSQL share the cores, so the benchmark also prints the CPU time (s) of a
    page in this process, from parsing to COPY.
    """
    start_us = month_bounds_ms(1)[0] * 1_000
    width_us = REST_PIECE_ROWS * MINUTE_MS * 1_000
    found = tuple(
        RestPiece(SYMBOL, f"{n}", start_us + n * width_us, start_us + (n + 1) * width_us)
        for n in range(REST_PIECES)
    )
    with mock.patch.dict(WEIGHT_LIMITS, dict.fromkeys(Market, 1_000_000)):
        began, own_began = time.perf_counter(), time.process_time()
        summary = load_pieces(settings=settings, plan=BackfillPlan(rest=found))
        seconds, own_s = time.perf_counter() - began, time.process_time() - own_began
    assert summary.counts.inserted == REST_PIECES * REST_PIECE_ROWS, summary
    return Loaded(summary.counts.inserted, seconds), own_s / summary.counts.rest_pages


def _row_bytes(settings: Settings) -> float:
    """Return the bytes of a row on disk, with its index."""
    with psycopg.connect(settings.database_url) as connection:
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(inhrelid)), (SELECT count(*) FROM market.candles_1m)"
            " FROM pg_inherits WHERE inhparent = 'market.candles_1m'::regclass"
        ).fetchone()
    assert row is not None
    return float(row[0]) / row[1]
