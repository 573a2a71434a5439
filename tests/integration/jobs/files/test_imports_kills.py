"""An import that is killed at any moment and done again ends in the table of one that was not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from include.config import Settings
from include.jobs.files.imports import import_file
from tests.integration.jobs.killing import run_killed

AT_MS = 1_735_689_600_000  # 2025-01-01
ROWS = 4_000
BAD = (100, 1_700, 3_999)

# Kills itself at the third block: in its transaction, or after it.
KILLED = """
import sys
from pathlib import Path
import include.binance.files.parquet_files as parquet_files
import include.jobs.files.imports as imports
from include.config import load_settings
from tests.integration.jobs.killing import kill_at

parquet_files.BATCH_ROWS = 500
name, when, path = sys.argv[1:]
kill_at(imports, name, when, 3)
imports.import_file(settings=load_settings(), path=Path(path), market="spot")
"""


@pytest.fixture
def klines(tmp_path: Path) -> Path:
    """Klines with three bad rows, in eight batches."""
    opened = [AT_MS + minute * 60_000 for minute in range(ROWS)]
    prices = [f"{1 + minute % 97}.25" for minute in range(ROWS)]
    frame = pl.DataFrame(
        {
            "open_time": opened,
            **{
                name: ["none" if row in BAD and name == "close" else price
                       for row, price in enumerate(prices)]
                for name in ("open", "high", "low", "close")
            },
            "volume": ["3"] * ROWS,
            "close_time": [one + 59_999 for one in opened],
            "quote_volume": ["4"] * ROWS,
            "count": [5] * ROWS,
            "taker_buy_volume": ["1"] * ROWS,
            "taker_buy_quote_volume": ["1"] * ROWS,
        }
    )  # fmt: skip
    path = tmp_path / "ABC-1m-2025-01.parquet"
    frame.write_parquet(path)
    return path


def stored(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    return {
        "candles": connection.execute(
            "SELECT symbol, open_time, open, high, low, close, volume, quote_volume, trade_count, "
            "status, source, revision FROM market.candles_1m ORDER BY symbol, open_time"
        ).fetchall(),
        "rejected": connection.execute(
            "SELECT file, line, reason, raw FROM ops.rejected_rows ORDER BY file, line"
        ).fetchall(),
        "coverage": connection.execute(
            "SELECT symbol, source, day, minutes FROM ops.coverage ORDER BY 1, 2, 3"
        ).fetchall(),
        "files": connection.execute(
            "SELECT path, checksum, rows, rejected, verdict FROM ops.dump_files ORDER BY path"
        ).fetchall(),
    }


@pytest.mark.parametrize(
    ("name", "when", "rows"),
    [
        ("add_coverage", "before", 999),
        ("record_rejected_rows", "before", 999),
        ("record_dump_file", "after", 999),
        ("merge_frames", "after", 1_499),
    ],
)
def test_repeated_import_after_a_kill_gives_the_same_table(
    settings: Settings, connection: psycopg.Connection[Any], klines: Path, name: str, when: str,
    rows: int,
) -> None:  # fmt: skip
    run_killed(settings, "-c", KILLED, name, when, str(klines))
    killed = stored(connection)
    assert len(killed["candles"]) == rows
    assert [entry[2:] for entry in killed["files"]] == [(rows, 1, "importing")]
    assert len(killed["rejected"]) == 1
    covered = connection.execute(
        "SELECT sum(extract(epoch FROM upper(m) - lower(m)) / 60)::int "
        "FROM ops.coverage, unnest(minutes) AS m"
    ).fetchone()
    assert covered == (rows,)

    summary = import_file(settings=settings, path=klines, market="spot")

    assert (summary.rows, summary.rejected) == (ROWS - len(BAD), len(BAD))
    after_the_kill = stored(connection)
    assert [row[1] for row in after_the_kill["rejected"]] == [row + 1 for row in BAD]
    assert summary.quarantine is not None
    with Path(summary.quarantine).open(newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [str(row + 1) for row in BAD]
    connection.execute(
        "TRUNCATE market.candles_1m, ops.rejected_rows, ops.coverage, ops.dump_files"
    )
    connection.commit()
    import_file(settings=settings, path=klines, market="spot")
    assert stored(connection) == after_the_kill
