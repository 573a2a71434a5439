"""Verdicts are stored by day, and newer files are detected."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import psycopg

from include.domain.timeframes import DAY_US, from_us
from include.store.ledgers.files import DumpFile, record_dump_file
from include.store.ledgers.reconciliation import DayVerdict
from include.store.ledgers.verdicts import (
    LoadedFile,
    days_before_file,
    find_loaded,
    read_verdicts,
    record_verdicts,
)

Connection = psycopg.Connection[Any]

DAY = 1_764_460_800_000_000
"""2025-11-30 00:00 UTC."""
PATH = "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2025-11.zip"
FIRST = DayVerdict(
    "BTCUSDT", date(2025, 11, 30), "incomplete", False, 60, 60, 60, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0
)


def load(connection: Connection, *, since_us: int, fetched_at_us: int, verdict: str) -> None:
    record_dump_file(
        connection,
        DumpFile(
            path=PATH,
            checksum=f"{fetched_at_us}",
            kind="klines",
            symbol="BTCUSDT",
            fetched_at_us=fetched_at_us,
            published_at_us=since_us + 7,
            rows=1,
            verdict=verdict,
            detail={
                "from": from_us(since_us).isoformat(),
                "to": from_us(DAY + DAY_US).isoformat(),
            },
        ),
    )


def test_newer_verdict_of_a_symbol_and_day_replaces_the_older(
    connection: Connection,
) -> None:
    record_verdicts(connection, [FIRST])
    later = replace(FIRST, verdict="differs", is_complete=True, daily_differing=2)
    record_verdicts(connection, [later])
    assert read_verdicts(connection, ["BTCUSDT"], DAY, DAY + DAY_US) == [later]
    assert read_verdicts(connection, ["BTCUSDT"], DAY + DAY_US, DAY + 2 * DAY_US) == []


def test_file_counts_as_loaded_only_for_the_whole_range(
    connection: Connection,
) -> None:
    span = (DAY, DAY + DAY_US)
    load(connection, since_us=DAY + DAY_US // 2, fetched_at_us=DAY, verdict="loaded")
    assert find_loaded(connection, PATH, *span, kind="klines") is None
    load(connection, since_us=DAY - DAY_US, fetched_at_us=DAY + 1, verdict="loaded")
    load(connection, since_us=DAY - DAY_US, fetched_at_us=DAY + 2, verdict="corrupt")
    assert find_loaded(connection, PATH, *span, kind="klines") == LoadedFile(DAY - DAY_US + 7)
    assert find_loaded(connection, PATH, *span, kind="trades") is None


def test_days_compared_before_a_file_was_loaded_are_returned(
    connection: Connection,
) -> None:
    record_verdicts(connection, [FIRST])
    far_us = DAY + 40_000 * DAY_US
    load(connection, since_us=DAY, fetched_at_us=far_us, verdict="corrupt")
    span = ("BTCUSDT", PATH, DAY - DAY_US, DAY + DAY_US)
    assert days_before_file(connection, *span, kind="klines") == []
    load(connection, since_us=DAY, fetched_at_us=far_us + 1, verdict="loaded")
    assert days_before_file(connection, *span, kind="klines") == [DAY]
    connection.execute("UPDATE ops.reconciliations SET reconciled_at = 'infinity'")
    assert days_before_file(connection, *span, kind="klines") == []
