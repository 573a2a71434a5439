"""Months come from monthly files, and a later daily file raises what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.jobs.backfill import backfill, load_piece, plan_backfill
from include.jobs.daily import is_new_month, monthly_pieces
from include.jobs.exchange import open_dump_site
from include.jobs.reconcile import plan_reconciliation, reconcile_group
from include.store.candles import read_candles
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

Oracle = Callable[[str, int, int], list[Candle]]

START = to_us(datetime(2026, 10, 20, tzinfo=UTC))
NOVEMBER = to_us(datetime(2026, 11, 1, tzinfo=UTC))
END = to_us(datetime(2026, 11, 2, 3, tzinfo=UTC))


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    """A quiet symbol since the twentieth of the month before."""
    config = SimulatorConfig(
        spot_symbols=("COSUSDT",),
        um_symbols=(),
        start=datetime(2026, 10, 20, tzinfo=UTC),
        clock_start=datetime(2026, 11, 2, 4, tzinfo=UTC),
        speed=0,
    )
    with ExchangeThread(config) as running:
        yield running


def test_a_month_a_day_and_a_tail_come_from_three_sources_and_equal_the_exchange(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    summary = backfill(
        settings=settings, symbols="COSUSDT", market="spot", start="2026-01-01", end=END
    )
    assert [piece.label for piece in summary.plan.pieces] == [
        "COSUSDT 2026-10",
        "COSUSDT 2026-11-01",
        "COSUSDT 2026-11-02 00:00..03:00",
    ]
    stored = read_candles(connection, "COSUSDT", START, END)
    theirs = oracle("COSUSDT", START, END)
    assert [one.values for one in stored] == [one.values for one in theirs]
    assert connection.execute(
        "SELECT source, count(*) FROM market.candles_1m GROUP BY 1 ORDER BY 1"
    ).fetchall() == [
        ("dump_daily", 1440),
        ("dump_monthly", (NOVEMBER - START) // MINUTE_US),
        ("rest", 180),
    ]


def test_verifying_compares_daily_files_with_what_is_stored(
    settings: Settings, connection: psycopg.Connection
) -> None:
    span = {"symbols": "COSUSDT", "market": "spot", "start": START, "end": NOVEMBER}
    backfill(settings=settings, **span)
    plan = plan_backfill(settings=settings, **{**span, "end": START + 2 * DAY_US}, verify=True)
    counts = [load_piece(settings=settings, piece=piece) for piece in plan.pieces]
    assert [(one.confirmed, one.changed, one.discrepancies) for one in counts] == [(1440, 0, 0)] * 2
    verdicts = connection.execute(
        "SELECT source, verdict, count(*) FROM ops.verdicts GROUP BY 1, 2 ORDER BY 1"
    ).fetchall()
    assert verdicts == [("dump_daily", "agrees", 2), ("dump_monthly", "agrees", 12)]


def test_reconciling_takes_a_monthly_file_once_and_judges_its_days_again(
    settings: Settings, connection: psycopg.Connection
) -> None:
    october = {"start": NOVEMBER - DAY_US, "end": NOVEMBER}
    november = {"start": NOVEMBER, "end": NOVEMBER + DAY_US}
    for span in (october, november):
        groups = plan_reconciliation(settings=settings, symbols="COSUSDT", **span)
        for group in groups:
            reconcile_group(settings=settings, group=group)
    rows = connection.execute(
        "SELECT day::text, verdict, daily_minutes, monthly_minutes, monthly_differing"
        " FROM ops.reconciliations ORDER BY 1"
    ).fetchall()
    assert rows == [("2026-10-31", "agrees", 1440, 1440, 0), ("2026-11-01", "agrees", 1440, 0, 0)]
    with open_dump_site(settings) as site:
        months = monthly_pieces("COSUSDT", NOVEMBER)
        assert not any(is_new_month(connection, site, one) for one in months)
