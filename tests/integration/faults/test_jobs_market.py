"""Jobs over times in which the market itself changed: halts, delistings, reuse, listings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.config import Settings
from include.domain.timeframes import MINUTE_US, minute_of
from include.jobs.instruments import sync_instruments
from include.jobs.klines.backfill import backfill, plan_backfill
from include.jobs.klines.repair import repair_gaps
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.integration.faults.matrix_jobs import BACKFILL, REPAIR_GAPS, SYNC_INSTRUMENTS
from tests.integration.faults.staging import (
    Log,
    assert_equal,
    captured_log,
    events_of,
    leave_gap,
    oracle,
    outages_of,
    read_rows,
    settings_of,
    wait_for,
)

SPEED = 1_200
FAULTS: dict[str, dict[str, Any]] = {
    "PEPEUSDT": {"kind": "halt", "market": "spot", "duration_s": 1_200},
    "PEPEUSDT.P": {"kind": "halt", "market": "um", "duration_s": 1_200},
    "OPUSDT": {"kind": "delisting", "market": "spot"},
    "OPUSDT.P": {"kind": "delisting", "market": "um"},
    "NEWUSDT": {"kind": "new_listing", "market": "spot"},
    "ETCUSDT": {"kind": "ticker_reuse", "market": "spot", "pause_s": 1_200},
}


@dataclass(frozen=True)
class Aftermath:
    """An exchange on which all of it has happened, between two minutes."""

    exchange: ExchangeThread
    start_us: int
    end_us: int

    def missing_minutes(self, symbol: str) -> set[int]:
        """Minutes without a candle, from the first one that has one."""
        has = oracle(self.exchange, symbol, self.start_us, self.end_us)
        return set(range(min(has), self.end_us, MINUTE_US)) - has.keys()


@pytest.fixture(scope="module")
def config() -> SimulatorConfig:
    return SimulatorConfig(
        spot_symbols=("BTCUSDT", "PEPEUSDT", "OPUSDT", "ETCUSDT"),
        um_symbols=("BTCUSDT", "PEPEUSDT", "OPUSDT"),
        clock_start=datetime(2026, 11, 20, 6, tzinfo=UTC),
        speed=SPEED,
    )


@pytest.fixture(scope="module")
def after(exchange: ExchangeThread) -> Aftermath:
    start_us = minute_of(exchange.clock.now_us())
    change_the_market(exchange)
    end_us = start_us + 45 * MINUTE_US
    wait_for(lambda: exchange.clock.now_us() > end_us + 6 * MINUTE_US)
    return Aftermath(exchange, start_us, end_us)


def change_the_market(exchange: ExchangeThread) -> None:
    """All faults together, ten minutes from now."""
    exchange.faults.add(
        [
            {"symbols": symbol.removesuffix(".P"), "at": "+600s", **fault}
            for symbol, fault in FAULTS.items()
        ]
    )


def assert_right(
    after: Aftermath, database_url: str, symbol: str, events: tuple[str, ...], log: Log
) -> None:
    """Rows equal the exchange's; what it lacks is an outage, and nothing else is."""
    assert_equal(after.exchange, read_rows(database_url), symbol, after.start_us, after.end_us)
    outages = {
        minute
        for start, end in outages_of(database_url, symbol)
        for minute in range(start, end, MINUTE_US)
    }
    assert outages == after.missing_minutes(symbol)
    is_um = symbol.endswith(".P")
    assert is_um or set(events) <= set(events_of(log, symbol=symbol))
    assert bool(outages) == (not is_um and FAULTS[symbol]["kind"] != "new_listing")


@pytest.mark.parametrize("symbol", FAULTS)
def test_backfill_equals_the_exchange(
    symbol: str, after: Aftermath, settings: Settings, database_url: str
) -> None:
    arguments: dict[str, Any] = {
        "settings": settings, "symbols": symbol, "market": "spot",
        "start": after.start_us, "end": after.end_us,
    }  # fmt: skip
    with captured_log() as log:
        summary = backfill(**arguments)
    assert summary.failed == ()
    cell = BACKFILL[FAULTS[symbol]["kind"]]
    assert cell.exit_code == 0
    assert_right(after, database_url, symbol, cell.events, log)
    assert plan_backfill(**arguments).pieces == ()


@pytest.mark.parametrize("symbol", FAULTS)
def test_gap_over_a_market_fault_is_closed(
    symbol: str, after: Aftermath, settings: Settings, database_url: str
) -> None:
    leave_gap(database_url, symbol, after.start_us, after.end_us)
    with captured_log() as log:
        summary = repair_gaps(settings=settings, worker="test", older_than_s=0)
    assert (summary.repaired, summary.left) == (1, 0)
    events = REPAIR_GAPS[FAULTS[symbol]["kind"]].events
    assert_right(after, database_url, symbol, events, log)


def test_instruments_follow_the_market(
    config: SimulatorConfig, database_url: str, tmp_path: Path
) -> None:
    with ExchangeThread(config) as exchange:
        settings = settings_of(exchange, database_url, tmp_path)
        sync_instruments(settings=settings)
        start_us = exchange.clock.now_us()
        change_the_market(exchange)
        wait_for(lambda: exchange.clock.now_us() > start_us + 12 * MINUTE_US)
        with captured_log() as log:
            sync_instruments(settings=settings)
        during = statuses(database_url)
        assert [during[name] for name in ("BTCUSDT", "NEWUSDT", "BTCUSDT.P")] == ["TRADING"] * 3
        assert "TRADING" not in {during[name] for name in ("PEPEUSDT", "OPUSDT", "OPUSDT.P")}
        assert_events(log)
        wait_for(lambda: exchange.clock.now_us() > start_us + 40 * MINUTE_US)
        sync_instruments(settings=settings)
    later = statuses(database_url)
    assert {later[name] for name in ("PEPEUSDT", "ETCUSDT", "NEWUSDT")} == {"TRADING"}
    assert later["OPUSDT"] == "BREAK"


def statuses(database_url: str) -> dict[str, str]:
    """The status of each symbol's present listing."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT symbol, status FROM market.instruments WHERE listed_to IS NULL"
        ).fetchall()
    return dict(found)


def assert_events(log: Log) -> None:
    named = {
        event: [one["symbols"] for one in log if one["event"] == event]
        for event in ("instruments_new", "instrument_status_changed")
    }
    for symbol, fault in FAULTS.items():
        if symbol.endswith(".P") and fault["kind"] == "halt":
            continue  # USD-M reports no halt by status
        for event in SYNC_INSTRUMENTS[fault["kind"]].events:
            assert any(symbol in symbols for symbols in named[event]), (symbol, event)
