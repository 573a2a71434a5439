"""A month of BTCUSDT aggTrades from the dump site: zip to candles, against only reading the zip.

The default is three million rows (``ROWS=30000000`` for a whole month: 30 million rows, 3 GB
unpacked). Each step runs in its own process, to measure its peak memory. Measured are:
``TradeReader`` from the zip to candles; polars reading the unpacked CSV into a frame; polars
reading the same CSV out of the zip; and inflating the zip in the reader's block size, which is the
limit for any reader of the zip.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import polars as pl

from include.binance.files.archives import read_blocks
from include.binance.files.columns import Layout
from include.binance.files.trade_files import SPOT_AGG_TRADES, TradeReader

ROWS = 3_000_000
CHUNK_ROWS = 500_000
FIRST_US = 1_730_419_200_000_000
"""2024-11-01; times are in ms, as in that month's files."""
STEP_US = 86_400
"""Microseconds between two rows: 30 million rows fill a month of 30 days."""
SYMBOL = "BTCUSDT"
GOAL = 0.7


@dataclass(frozen=True, slots=True)
class Reading:
    """Result of reading a file in one process.

    Attributes:
        rows: rows of the file.
        minutes: resulting candles; 0 if none were made.
        took_s: seconds from opening the file to the end of the last row.
        cpu_s: CPU seconds of all its threads.
        peak_mb: largest resident memory of the process; at_start_mb: before it opened the file.
    """

    rows: int
    minutes: int
    took_s: float
    cpu_s: float
    peak_mb: float
    at_start_mb: float


def write_month(folder: Path, rows: int, *, seed: int = 7) -> tuple[Path, Path]:
    """Write aggTrades of one symbol as a zip and as the CSV in it.

    Prices move by cents, most rows are one trade, and the amounts are spread as in a real market.
    """
    name = f"{SYMBOL}-aggTrades-2024-11"
    unpacked, packed = folder / f"{name}.csv", folder / f"{name}.zip"
    chance = Random(seed)
    cents, trade_id = 7_000_000, 4_000_000_000
    with (
        unpacked.open("wb") as csv,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.csv", "w", force_zip64=True) as text,
    ):
        for first in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - first)
            frame = pl.DataFrame(
                {
                    "id": range(3_000_000_000 + first, 3_000_000_000 + first + count),
                    "step": chance.choices((0, 0, 0, 0, 1, -1, 2, -2, 37, -37), k=count),
                    "units": [min(int(chance.paretovariate(0.9)), 10**7) for _ in range(count)],
                    "trades": chance.choices((1, 1, 1, 1, 2, 3, 9), k=count),
                    "maker": chance.choices(("True", "False"), k=count),
                }
            )
            last = trade_id + pl.col("trades").cum_sum()
            at_us = FIRST_US + (pl.col("id") - 3_000_000_000) * STEP_US
            price = cents + pl.col("step").cum_sum()
            made = frame.select(
                "id",
                price=price // 100,
                price_cents=price % 100,
                quantity=pl.col("units") // 100_000,
                quantity_units=pl.col("units") % 100_000,
                first=last - pl.col("trades") + 1,
                last=last,
                at=at_us // 1000,
                maker="maker",
            )
            cents, trade_id = cents + int(frame["step"].sum()), int(made["last"][-1])
            content = made.select(
                "id",
                pl.format("{}.{}000000", "price", _padded("price_cents", 2)),
                pl.format("{}.{}000", "quantity", _padded("quantity_units", 5)),
                "first", "last", "at", "maker", best=pl.lit("True"),
            ).write_csv(include_header=False).encode()  # fmt: skip
            csv.write(content)
            text.write(content)
    return packed, unpacked


def _padded(column: str, digits: int) -> pl.Expr:
    return pl.col(column).cast(pl.String).str.zfill(digits)


def aggregate(packed: Path) -> tuple[int, int]:
    """Read rows and candles of a zip with our reader."""
    rows = minutes = 0
    for block in TradeReader(SYMBOL, SPOT_AGG_TRADES).read_file(packed):
        rows += block.trades
        minutes += block.whole.height + block.partial.height
    return rows, minutes


def read_unpacked(unpacked: Path) -> tuple[int, int]:
    """Read the rows of a CSV file with polars."""
    return pl.read_csv(unpacked, has_header=False, new_columns=_names(SPOT_AGG_TRADES)).height, 0


def read_packed(packed: Path) -> tuple[int, int]:
    """Read the rows of the CSV in a zip with polars."""
    with zipfile.ZipFile(packed) as archive:
        content = archive.read(archive.namelist()[0])
    return pl.read_csv(content, has_header=False, new_columns=_names(SPOT_AGG_TRADES)).height, 0


def inflate(packed: Path) -> tuple[int, int]:
    """Count the rows of a zip by their line ends only."""
    return sum(block.count(b"\n") for block in read_blocks(packed)), 0


def _names(layout: Layout) -> list[str]:
    return list(layout.columns)


READERS: dict[str, Callable[[Path], tuple[int, int]]] = {
    "aggregate": aggregate,
    "inflate": inflate,
    "read_unpacked": read_unpacked,
    "read_packed": read_packed,
}


def measured(reader: str, path: Path) -> Reading:
    """Run a reader in its own process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.trade_dumps", reader, str(path)],
        stdout=subprocess.PIPE, check=True, timeout=600,
    )  # fmt: skip
    return Reading(**json.loads(done.stdout))


def _memory_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")


def _here(reader: str, path: Path) -> None:
    """Read in this process and print the result."""
    at_start_mb = _memory_mb("VmRSS")
    begun, cpu_begun = time.perf_counter(), time.process_time()
    rows, minutes = READERS[reader](path)
    took_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
    told = {
        "rows": rows, "minutes": minutes, "took_s": took_s, "cpu_s": cpu_s,
        "peak_mb": _memory_mb("VmHWM"), "at_start_mb": at_start_mb,
    }  # fmt: skip
    print(json.dumps(told))


def run() -> None:
    """Print rows a second, peak memory and the ratios."""
    rows = int(os.environ.get("ROWS", ROWS))
    with tempfile.TemporaryDirectory(prefix="candelabra-benchmark-") as name:
        packed, unpacked = write_month(Path(name), rows)
        print(
            f"trade dumps: {rows:,} aggTrades, zip {packed.stat().st_size / 1e6:,.0f} MB, "
            f"unpacked {unpacked.stat().st_size / 1e6:,.0f} MB"
        )
        found = {}
        for reader, path in (
            ("read_unpacked", unpacked), ("read_packed", packed), ("inflate", packed),
            ("aggregate", packed),
        ):  # fmt: skip
            found[reader] = one = measured(reader, path)
            if one.rows != rows:
                raise ValueError(f"{reader} read {one.rows:,} of {rows:,} rows")
            print(
                f"  {reader:14} {one.took_s:6.2f} s {rows / one.took_s / 1e6:6.2f} M rows/s, "
                f"{one.cpu_s:.2f} s of both cores, peak {one.peak_mb:,.0f} MB"
            )
    ours, unpacked_s = found["aggregate"], found["read_unpacked"].took_s
    for reader in ("read_unpacked", "read_packed"):
        print(
            f"  aggregation against {reader}: {found[reader].took_s / ours.took_s:.2f} "
            f"(goal {GOAL})"
        )
    print(
        f"  inflating alone against read_unpacked: {unpacked_s / found['inflate'].took_s:.2f}; "
        f"aggregation against inflating alone: {found['inflate'].took_s / ours.took_s:.2f}"
    )


if __name__ == "__main__":
    _here(sys.argv[1], Path(sys.argv[2]))
