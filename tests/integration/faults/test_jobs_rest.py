"""Backfill, repair of gaps and instruments, where REST goes wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from include.config import Settings
from include.domain.timeframes import MINUTE_US, minute_of, to_us
from include.errors import PermanentError, RateLimitedError, TransientError
from include.jobs.instruments import sync_instruments
from include.jobs.klines.backfill import load_pieces, plan_backfill
from include.jobs.klines.repair import repair_gaps, repair_minutes
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.integration.faults.matrix_jobs import BACKFILL, REPAIR_GAPS
from tests.integration.faults.staging import (
    Afflict,
    Rows,
    assert_equal,
    assert_unharmed,
    captured_log,
    events_of,
    leave_gap,
    minutes_of,
    outages_of,
    read_rows,
    run_cli,
)

TODAY = to_us(datetime(2026, 11, 20, tzinfo=UTC))  # no dump of it yet
UNTIL = TODAY + 90 * MINUTE_US
ONE, OTHER = "PEPEUSDT", "OPUSDT"

# what is tried again until it works, or does no harm
PASSING: list[dict[str, Any]] = [
    {"kind": "rest_lag", "kline_lag_ms": 20_000},
    {"kind": "slow_rest", "delay_s": 1.2, "times": 2},
    {"kind": "rest_error", "status": 503, "times": 3},
    {"kind": "rest_error", "status": 500, "times": 3},
    {"kind": "rest_malformed", "form": "truncated", "times": 3},
    {"kind": "rest_malformed", "form": "not_json", "times": 3},
    {"kind": "rest_cut", "times": 3},
    {"kind": "rest_stale", "rows": 1},
    {"kind": "rest_stale", "rows": 20},
]
# what a run cannot pass
LASTING: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"kind": "rest_error", "status": 503}, TransientError, "503"),
    ({"kind": "rest_error", "status": 418, "retry_after_s": 600}, RateLimitedError, "has banned"),
    (
        {"kind": "rest_error", "status": 429, "retry_after_s": 600},
        RateLimitedError,
        "has limited this address",
    ),
    ({"kind": "rest_error", "status": 403}, PermanentError, "firewall"),
    ({"kind": "rest_error", "status": 451}, PermanentError, "region"),
    ({"kind": "rest_malformed", "form": "not_json"}, TransientError, "other than JSON"),
    ({"kind": "rest_cut"}, TransientError, "no answer"),
    ({"kind": "slow_rest", "delay_s": 0.5}, TransientError, "no answer"),
]


def named(fault: object) -> str:
    if not isinstance(fault, dict):
        return ""
    return "-".join(str(v) for k, v in fault.items() if k in ("kind", "status", "form", "rows"))


@pytest.fixture(scope="module")
def config() -> SimulatorConfig:
    return SimulatorConfig(
        spot_symbols=("BTCUSDT", ONE, OTHER),
        um_symbols=(OTHER,),
        start=datetime(2026, 11, 19, tzinfo=UTC),
        clock_start=datetime(2026, 11, 20, 6, tzinfo=UTC),
    )


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Time out soon without an answer."""
    return settings.model_copy(update={"http_timeout_s": 1.0})


@pytest.fixture
def stored(settings: Settings, database_url: str) -> Rows:
    """Rows stored before the fault."""
    repair_minutes(settings=settings, symbol=ONE, start_us=TODAY, end_us=TODAY + 5 * MINUTE_US)
    return read_rows(database_url)


def hits(exchange: ExchangeThread, identity: str) -> int:
    (found,) = (one["hits"] for one in exchange.faults.listed() if one["id"] == identity)
    return int(found)


# --- backfill


@pytest.mark.parametrize("fault", PASSING, ids=named)
def test_backfill_survives_rest_faults(
    fault: dict[str, Any],
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    stored: Rows,
    add_faults: Afflict,
) -> None:
    start = minute_of(exchange.clock.now_us()) - 90 * MINUTE_US
    end = start + 60 * MINUTE_US if fault["kind"] == "rest_stale" else None
    plan = plan_backfill(settings=settings, symbols=ONE, market="spot", start=start, end=end)
    (identity,) = add_faults({"symbols": ONE, **fault})
    with captured_log() as log:
        summary = load_pieces(settings=settings, plan=plan)
    assert hits(exchange, identity)
    assert summary.failed == ()
    rows = read_rows(database_url)
    assert_equal(exchange, rows, ONE, start, plan.rest[-1].end_us)
    assert_unharmed(stored, rows)
    assert outages_of(database_url, ONE) == []
    assert "piece_failed" not in events_of(log)


def test_short_429_is_waited_out(
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
) -> None:
    plan = plan_backfill(settings=settings, symbols=ONE, market="spot", start=TODAY, end=UNTIL)
    (identity,) = add_faults({"kind": "rest_error", "status": 429, "retry_after_s": 1, "times": 1})
    assert load_pieces(settings=settings, plan=plan).failed == ()
    assert hits(exchange, identity) == 1
    assert_equal(exchange, read_rows(database_url), ONE, TODAY, UNTIL)


def test_failed_piece_is_named_and_the_others_are_loaded(
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    stored: Rows,
    add_faults: Afflict,
) -> None:
    both = f"{ONE},{OTHER}"
    plan = plan_backfill(settings=settings, symbols=both, market="spot", start=TODAY, end=UNTIL)
    (identity,) = add_faults({"kind": "rest_error", "status": 503, "symbols": ONE})
    with captured_log() as log:
        (failure,) = load_pieces(settings=settings, plan=plan).failed
    assert failure.startswith(f"{ONE} 2026-11-20")
    assert "503" in failure
    assert set(BACKFILL["rest_error"].events) <= set(events_of(log))
    rows = read_rows(database_url)
    assert_equal(exchange, rows, OTHER, TODAY, UNTIL)
    assert_unharmed(stored, rows)
    assert minutes_of(rows, ONE) == minutes_of(stored, ONE)
    exchange.faults.remove(identity)
    again = plan_backfill(settings=settings, symbols=both, market="spot", start=TODAY, end=UNTIL)
    assert {piece.symbol for piece in again.pieces} == {ONE}
    assert load_pieces(settings=settings, plan=again).failed == ()
    assert_equal(exchange, read_rows(database_url), ONE, TODAY, UNTIL)


@pytest.mark.parametrize(("fault", "kind", "message"), LASTING, ids=named)
def test_lasting_fault_is_an_error_and_changes_nothing(
    fault: dict[str, Any],
    kind: type[Exception],
    message: str,
    settings: Settings,
    database_url: str,
    stored: Rows,
    add_faults: Afflict,
) -> None:
    impatient = settings.model_copy(update={"http_timeout_s": 0.2})
    add_faults({"endpoints": "klines", **fault})
    with pytest.raises(kind, match=message):
        plan_backfill(settings=impatient, symbols=ONE, market="spot", start=TODAY, end=UNTIL)
    assert read_rows(database_url) == stored
    assert outages_of(database_url, ONE) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 451}, "the exchange does not serve this region"),
        ({"status": 418, "retry_after_s": 600}, "has banned this address: wait 600 s"),
    ],
    ids=named,
)
def test_command_reports_the_fault_by_message_and_exit_code(
    fault: dict[str, Any],
    message: str,
    settings: Settings,
    database_url: str,
    stored: Rows,
    add_faults: Afflict,
) -> None:
    add_faults({"kind": "rest_error", "endpoints": "klines", **fault})
    done = run_cli(
        "backfill", "--symbols", ONE, "--from", "2026-11-20", "--to", "2026-11-20T02:00",
        settings=settings,
    )  # fmt: skip
    assert done.returncode == BACKFILL["rest_error"].exit_code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert read_rows(database_url) == stored


# --- repair of gaps


@pytest.mark.parametrize("fault", PASSING, ids=named)
def test_gap_is_repaired_despite_rest_faults(
    fault: dict[str, Any],
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    stored: Rows,
    add_faults: Afflict,
) -> None:
    assert fault["kind"] in REPAIR_GAPS
    leave_gap(database_url, ONE, TODAY, UNTIL)
    (identity,) = add_faults({"symbols": ONE, **fault})
    summary = repair_gaps(settings=settings, worker="test", older_than_s=0)
    assert hits(exchange, identity)
    assert (summary.repaired, summary.left) == (1, 0)
    rows = read_rows(database_url)
    assert_equal(exchange, rows, ONE, TODAY, UNTIL)
    assert_unharmed(stored, rows)
    assert outages_of(database_url, ONE) == []


def test_refused_gap_stays_open_with_the_reason(
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
) -> None:
    for symbol in (ONE, OTHER):
        leave_gap(database_url, symbol, TODAY, UNTIL)
    add_faults({"kind": "rest_error", "status": 403, "symbols": ONE})
    with captured_log() as log:
        summary = repair_gaps(settings=settings, worker="test", older_than_s=0)
    assert (summary.repaired, summary.left) == (1, 1)
    assert_equal(exchange, read_rows(database_url), OTHER, TODAY, UNTIL)
    with psycopg.connect(database_url) as connection:
        ((symbol, detail),) = connection.execute(
            "SELECT symbol, detail FROM ops.gaps WHERE repaired_at IS NULL"
        ).fetchall()
    assert symbol == ONE
    assert "firewall" in detail["error"]
    assert set(REPAIR_GAPS["rest_error"].events) <= set(events_of(log))


@pytest.mark.parametrize(("fault", "kind", "message"), LASTING[:3], ids=named)
def test_gap_survives_a_failed_run(
    fault: dict[str, Any],
    kind: type[Exception],
    message: str,
    settings: Settings,
    database_url: str,
    stored: Rows,
    add_faults: Afflict,
) -> None:
    leave_gap(database_url, ONE, TODAY, UNTIL)
    add_faults({"endpoints": "klines", **fault})
    with pytest.raises(kind, match=message):
        repair_gaps(settings=settings, worker="test", older_than_s=0)
    with psycopg.connect(database_url) as connection:
        still_open = connection.execute("SELECT 1 FROM ops.gaps WHERE repaired_at IS NULL")
        assert len(still_open.fetchall()) == 1
    assert read_rows(database_url) == stored


# --- instruments


INSTRUMENTS: list[dict[str, Any]] = [
    {"kind": "slow_rest", "delay_s": 1.2, "times": 1},
    {"kind": "rest_error", "status": 503, "times": 3},
    {"kind": "rest_malformed", "form": "truncated", "times": 3},
    {"kind": "rest_cut", "times": 3},
]


def registry(database_url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(
            "SELECT symbol, listed_from, listed_to, status FROM market.instruments ORDER BY 1, 2"
        ).fetchall()


@pytest.mark.parametrize("fault", INSTRUMENTS, ids=named)
def test_instruments_are_synchronised_despite_rest_faults(
    fault: dict[str, Any],
    exchange: ExchangeThread,
    settings: Settings,
    add_faults: Afflict,
) -> None:
    (identity,) = add_faults({"endpoints": "exchangeInfo", **fault})
    assert sync_instruments(settings=settings).listed == {"spot": 3, "um": 1, "cm": 6}
    assert hits(exchange, identity) == fault["times"]


@pytest.mark.parametrize(("fault", "kind", "message"), LASTING, ids=named)
def test_instruments_stay_unchanged_if_the_exchange_does_not_answer(
    fault: dict[str, Any],
    kind: type[Exception],
    message: str,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
) -> None:
    sync_instruments(settings=settings)
    before = registry(database_url)
    add_faults({"endpoints": "exchangeInfo", **fault})
    with pytest.raises(kind, match=message):
        sync_instruments(settings=settings.model_copy(update={"http_timeout_s": 0.2}))
    assert registry(database_url) == before
