"""Months come from monthly files, and a later daily file has a higher rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.jobs.exchange import open_dump_site
from include.jobs.klines.backfill import backfill, load_piece, plan_backfill
from include.jobs.klines.daily import is_new_month, monthly_pieces
from include.jobs.klines.reconcile import plan_reconciliation, reconcile_group
from include.jobs.trades.dumps import load_trade_dump
from include.jobs.trades.planning import TradeDumpPlan, plan_trade_dumps
from include.store.candles.minutes import read_candles
from simulator.config import SimulatorConfig
from simulator.dumps.faults import CorruptZip, DumpRule, MissingFile
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


def test_month_day_and_remainder_come_from_three_sources_and_equal_the_exchange(
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


def test_verify_compares_daily_files_with_stored_candles(
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


def test_reconciliation_loads_a_monthly_file_once_and_updates_its_days(
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


def test_daily_files_replace_a_damaged_month_of_trades_and_rest_a_damaged_day(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection, oracle: Oracle
) -> None:
    def plan() -> TradeDumpPlan:
        return plan_trade_dumps(
            settings=settings, symbols="COSUSDT", market="spot", kind="agg_trades",
            start="2026-10-01", end=NOVEMBER,
        )  # fmt: skip

    for effect, path in (
        (CorruptZip(checksum_fits=True), "*aggTrades-2026-10.zip"),
        (MissingFile(), "*aggTrades-2026-10-25.zip"),
    ):
        exchange.dump_faults.add(DumpRule(effect=effect, path=path))
    try:
        (month,) = plan().pieces
        assert (month.label, month.source) == ("COSUSDT agg_trades 2026-10", "dump_monthly")
        counts = load_trade_dump(settings=settings, piece=month)
        # of the 31 days 11 have files, one is at REST, and the others have no trades yet
        assert (counts.files, counts.replaced, counts.unusable) == (11, 1 + 20, 0)
        assert plan() == TradeDumpPlan(loaded=1)
    finally:
        exchange.dump_faults.clear()
    files = connection.execute(
        "SELECT verdict, detail ->> 'replaced_by', count(*), sum(rows) > 0 FROM ops.dump_files"
        " GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()
    assert files == [
        ("corrupt", "dump_daily", 1, False), ("loaded", None, 11, True),
        ("missing", "rest", 20, True),
    ]  # fmt: skip
    traded = [one.values for one in oracle("COSUSDT", START, NOVEMBER) if one.trade_count]
    stored = read_candles(connection, "COSUSDT", START, NOVEMBER)
    assert [one.values for one in stored] == traded
