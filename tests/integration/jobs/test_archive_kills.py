"""An archiving process that is killed leaves each row in its table or in a file."""

from __future__ import annotations

import os
import subprocess
import sys

import polars as pl
import pytest

from include.config import Settings
from include.store.raw import AGG_TRADES, write_raw
from tests.integration.jobs.raw_days import (
    Connection,
    agg_trade,
    archive,
    only,
    partitions,
    restore,
    rows_of,
)

KILLED = """
import os, sys
from datetime import UTC, date, datetime
from include.config import load_settings
from include.jobs import archive
name, when = sys.argv[1], sys.argv[2]
real = getattr(archive, name)
def killed(*arguments, **named):
    if when == "after":
        real(*arguments, **named)
    os._exit(9)  # as by SIGKILL: nothing is tidied up, the connection is cut
setattr(archive, name, killed)
archive.archive_days(
    settings=load_settings(), before=date(2026, 11, 19), now=datetime(2026, 11, 21, 3, tzinfo=UTC)
)
"""
STEPS = [
    ("write_day", "after"),
    ("content_of", "after"),
    ("record_archived", "after"),
    ("sync_folder", "before"),  # the file has its name
    ("drop_archived", "before"),
    ("drop_archived", "after"),
]


@pytest.mark.parametrize("is_late", [False, True], ids=["first", "late rows"])
@pytest.mark.parametrize(("step", "when"), STEPS)
def test_a_kill_at_any_step_leaves_each_row_somewhere_and_the_next_run_ends_the_same(
    raw_settings: Settings, jobs_connection: Connection, step: str, when: str, is_late: bool
) -> None:
    settings, connection = raw_settings, jobs_connection
    lines = [agg_trade(n) for n in range(1, 41)]
    write_raw(connection, AGG_TRADES, lines)
    everything = rows_of(connection)
    if is_late:
        connection.execute("DELETE FROM market.agg_trades WHERE agg_trade_id > 30")
        archive(settings)
        write_raw(connection, AGG_TRADES, lines[30:])

    done = subprocess.run(
        [sys.executable, "-c", KILLED, step, when],
        env=os.environ
        | {
            "JOBS_DATABASE_URL": settings.jobs_database_url,
            "CANDELABRA_HOME": str(settings.candelabra_home),
        },
        timeout=60,
    )

    assert done.returncode == 9
    in_files = [
        row
        for file in settings.archive.rglob("*.parquet")
        for row in pl.read_parquet(file, hive_partitioning=True).select(AGG_TRADES.columns).rows()
    ]
    assert set(in_files) | set(rows_of(connection)) == set(everything)
    archive(settings)
    assert rows_of(connection) == []
    assert partitions(connection) == set()
    assert [path.name for path in (settings.archive / "agg_trades").rglob("*.p*")] == [
        "agg_trades.parquet"
    ]
    restore(settings, only(settings))
    assert rows_of(connection) == everything
