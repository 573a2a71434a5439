"""Whole loads of derivative series, in groups and as a sync."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from include.config import Settings
from include.domain.series.kinds import Series
from include.domain.timeframes import to_us
from include.jobs.derivatives.backfill import (
    load_series_group,
    load_series_pieces,
    plan_series_groups,
    plan_sync,
)
from include.jobs.derivatives.planning import plan_series
from include.jobs.piece_loading import BackfillProgress
from include.jobs.task_json import from_json, to_json
from simulator.server import ExchangeThread
from tests.integration.jobs.derivatives.conftest import NOW, Oracle

Connection = psycopg.Connection[Any]

START = datetime(2026, 11, 3, tzinfo=UTC)
SYMBOL = "XLMUSDT.P"


def marks(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT open_time, open, high, low, close FROM market.mark_prices_1m ORDER BY 1"
    ).fetchall()


def test_groups_pass_between_tasks_and_load_everything(
    settings: Settings, connection: Connection, oracle: Oracle
) -> None:
    groups = plan_series_groups(
        settings=settings, symbols="XLMUSDT", market="um", series="mark", start=START, end=NOW
    )
    for group in from_json(to_json(groups)):
        load_series_group(settings=settings, group=group)
    stored, expected = marks(connection), oracle(SYMBOL, Series.MARK, START, NOW)
    assert stored == expected[: len(stored)]
    assert len(expected) - len(stored) == 1  # the last minute ended less than 30 s ago


def test_progress_reaches_the_end(settings: Settings) -> None:
    seen: list[BackfillProgress] = []
    plan = plan_series(settings=settings, symbols="XLMUSDT", series="mark", start=START)

    summary = load_series_pieces(settings=settings, plan=plan, on_progress=seen.append)

    assert summary.failed == ()
    assert len(seen) == len(plan.pieces)
    assert seen[-1].done_minutes == seen[-1].total_minutes
    assert seen[-1].rows == summary.counts.offered


def test_sync_loads_what_is_new_of_what_was_loaded(
    settings: Settings, connection: Connection, exchange: ExchangeThread, oracle: Oracle
) -> None:
    plan = plan_series(settings=settings, symbols="XLMUSDT", series="mark", start=START)
    load_series_pieces(settings=settings, plan=plan)
    later = NOW + timedelta(hours=2)
    exchange.clock._start_us = to_us(later)

    plan = plan_sync(settings=settings)
    assert plan.pieces
    assert all("mark" in piece.label for piece in plan.pieces)
    groups = plan_series_groups(
        settings=settings, symbols="", market="um", series="", start=None, end=later
    )
    for group in groups:
        load_series_group(settings=settings, group=group)

    stored = [row for row in marks(connection) if row[0] >= START]
    assert stored == oracle(SYMBOL, Series.MARK, START, later)[: len(stored)]
    assert stored[-1][0] >= later - timedelta(minutes=2)
    assert connection.execute("SELECT count(*) FROM market.funding_rates").fetchone() == (0,)
