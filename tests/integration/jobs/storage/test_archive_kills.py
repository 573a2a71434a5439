"""Archiving is killed at each of its steps: no row is in neither place, the next run ends it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.config import Settings
from include.errors import TransientError
from include.jobs.storage.archive import ArchiveSummary, list_days, verify_day
from include.store.trades.captured import AGG_TRADES, write_raw
from tests.integration.jobs.killing import run_killed
from tests.integration.jobs.storage.raw_days import (
    DAY,
    Connection,
    agg_trade,
    archive,
    fill,
    only,
    partitions,
    restore,
    rows_of,
)

ROOT = Path(__file__).parents[4]
STEPS = [
    ("write_day", "before"),
    ("write_day", "after"),
    ("content_of", "after"),
    ("record_archived", "before"),
    ("record_archived", "after"),
    ("replace", "after"),
    ("sync_folder", "after"),
    ("drop_archived", "before"),
    ("drop_archived", "after"),
]

PARTITION = f"agg_trades_y{DAY:%Y}m{DAY:%m}d{DAY:%d}"

Rows = set[tuple[Any, ...]]


def killed(settings: Settings, step: str, when: str) -> None:
    run_killed(settings, "-m", "tests.integration.jobs.storage.killed_archive", step, when)


def archived_again(settings: Settings) -> ArchiveSummary:
    """The server may need a moment to notice that the killed client is gone."""
    until_s = time.monotonic() + 10
    while True:
        try:
            return archive(settings)
        except TransientError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.05)


def in_table(connection: Connection) -> Rows:
    return {row for row in rows_of(connection) if row[1] == DAY}


def in_files(settings: Settings) -> Rows:
    """Of the day, in files that have their name."""
    files = sorted(settings.archive.glob("agg_trades/*/*.parquet"))
    found = [pl.read_parquet(one, hive_partitioning=True) for one in files]
    return {row for one in found for row in one.select(AGG_TRADES.columns).rows()}


def assert_archived(settings: Settings, connection: Connection, rows: Rows) -> None:
    assert in_table(connection) == set()
    assert in_files(settings) == rows
    for entry in list_days(settings=settings):
        verify_day(settings=settings, archived=entry)
        assert entry.dropped_at is not None
    assert PARTITION not in partitions(connection)
    assert [path for path in settings.archive.rglob("*") if path.suffix == ".part"] == []
    restore(settings, only(settings))
    assert in_table(connection) == rows


@pytest.mark.parametrize(("step", "when"), STEPS)
def test_killed_archiving_loses_no_row_and_the_next_run_completes_it(
    raw_settings: Settings, jobs_connection: Connection, step: str, when: str
) -> None:
    fill(jobs_connection)
    rows = in_table(jobs_connection)
    assert len(rows) == 600
    assert PARTITION in partitions(jobs_connection)
    killed(raw_settings, step, when)
    assert in_table(jobs_connection) | in_files(raw_settings) == rows
    archived_again(raw_settings)
    assert_archived(raw_settings, jobs_connection, rows)


@pytest.mark.parametrize(
    ("step", "when"), [("restore_rows", "before"), ("restore_rows", "after"), *STEPS]
)
def test_late_rows_of_an_archived_day_survive_a_kill(
    raw_settings: Settings, jobs_connection: Connection, step: str, when: str
) -> None:
    fill(jobs_connection)
    rows = in_table(jobs_connection)
    archive(raw_settings)
    before = only(raw_settings).sha256
    write_raw(jobs_connection, AGG_TRADES, [agg_trade(n) for n in range(5_000, 5_050)])
    rows |= in_table(jobs_connection)
    assert len(rows) == 650
    killed(raw_settings, step, when)
    assert in_table(jobs_connection) | in_files(raw_settings) == rows
    archived_again(raw_settings)
    assert only(raw_settings).sha256 != before
    assert_archived(raw_settings, jobs_connection, rows)
