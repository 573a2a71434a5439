"""Dump files that are broken, late, truncated or re-issued, and a backfill over them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from include.config import Settings
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.errors import PermanentError
from include.jobs.klines.backfill import backfill, load_dump_piece, plan_backfill
from include.jobs.klines.repair import repair_minutes
from include.store.ledgers.files import find_dump_file
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.integration.faults.matrix_jobs import BACKFILL
from tests.integration.faults.staging import (
    Afflict,
    Log,
    assert_equal,
    assert_unharmed,
    captured_log,
    events_of,
    outages_of,
    read_rows,
    run_cli,
    wait_for,
)

DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))
NEXT = DAY + DAY_US
NAME = "1m-2026-11-18.zip"


@dataclass(frozen=True)
class Case:
    """A fault of the dumps of one symbol's day, and its result."""

    symbol: str
    fault: dict[str, Any]
    verdict: str | None
    sources: tuple[str, ...]

    @property
    def entry(self) -> dict[str, Any]:
        return {"files": f"*/{self.symbol}-{NAME}", **self.fault}

    @property
    def path(self) -> str:
        return f"data/spot/daily/klines/{self.symbol}/1m/{self.symbol}-{NAME}"


REST, DAILY = ("rest",), ("dump_daily",)
CASES = [
    Case("AAAUSDT", {"kind": "corrupt_zip"}, "wrong_checksum", REST),
    Case("AABUSDT", {"kind": "corrupt_zip", "checksum_fits": True}, "corrupt", REST),
    Case("AACUSDT", {"kind": "corrupt_zip", "times": 1}, "loaded", DAILY),
    Case("AADUSDT", {"kind": "truncated_zip"}, "wrong_checksum", REST),
    Case("AAEUSDT", {"kind": "truncated_zip", "checksum_fits": True}, "corrupt", REST),
    Case("AAFUSDT", {"kind": "stale_checksum"}, "wrong_checksum", REST),
    Case("AAGUSDT", {"kind": "missing_checksum"}, "missing", REST),
    Case("AAHUSDT", {"kind": "truncated_day", "rows": 60}, "loaded", (*DAILY, *REST)),
    Case("AAIUSDT", {"kind": "missing_day"}, None, REST),
    Case("AAJUSDT", {"kind": "late_publication", "delay_s": 604_800}, None, REST),
    Case("AAKUSDT", {"kind": "slow_download", "delay_s": 0.5, "times": 1}, "loaded", DAILY),
    Case("AALUSDT", {"kind": "cut_download", "times": 2}, "loaded", DAILY),
    Case("AAMUSDT", {"kind": "cut_download"}, "unreachable", REST),
    Case("AANUSDT", {"kind": "download_error", "status": 503, "times": 2}, "loaded", DAILY),
    Case("AAOUSDT", {"kind": "download_error", "status": 503}, "unreachable", REST),
    Case("AAPUSDT", {"kind": "download_error", "status": 403}, "refused", REST),
]
REISSUED, MONTHLY, LISTED = "AAQUSDT", "AARUSDT", "AASUSDT"


@pytest.fixture(scope="module")
def config() -> SimulatorConfig:
    return SimulatorConfig(
        spot_symbols=(*(case.symbol for case in CASES), REISSUED, MONTHLY, LISTED),
        um_symbols=(),
        start=datetime(2026, 10, 1, tzinfo=UTC),
        clock_start=datetime(2026, 11, 20, 6, tzinfo=UTC),
    )


def load(settings: Settings, symbol: str, start: int = DAY, end: int = NEXT) -> Log:
    """A complete backfill; returns its log."""
    with captured_log() as log:
        summary = backfill(settings=settings, symbols=symbol, market="spot", start=start, end=end)
    assert summary.failed == ()
    return log


def sources_of(database_url: str, symbol: str) -> tuple[str, ...]:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT DISTINCT source FROM market.candles_1m WHERE symbol = %s ORDER BY 1",
            (symbol,),
        ).fetchall()
    return tuple(source for (source,) in found)


def discrepancies(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        (number,) = connection.execute("SELECT count(*) FROM ops.discrepancies").fetchone()
    return int(number)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fault['kind']}-{case.symbol}")
def test_day_is_complete_whatever_its_file_contains(
    case: Case,
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
) -> None:
    if case.verdict != "loaded":  # rows of the day that are there already, from REST
        repair_minutes(
            settings=settings, symbol=case.symbol, start_us=DAY, end_us=DAY + 60 * MINUTE_US
        )
    before = read_rows(database_url)
    (identity,) = add_faults(case.entry)
    log = load(settings, case.symbol)
    (hits,) = (one["hits"] for one in exchange.faults.listed() if one["id"] == identity)
    assert hits or case.verdict is None  # an unlisted file is not requested
    rows = read_rows(database_url)
    assert_equal(exchange, rows, case.symbol, DAY, NEXT)
    assert_unharmed(before, rows)
    assert sources_of(database_url, case.symbol) == case.sources
    with psycopg.connect(database_url) as connection:
        file = find_dump_file(connection, case.path)
    assert (file.verdict if file else None) == case.verdict
    cell = BACKFILL[case.fault["kind"]]
    assert case.verdict is None or case.verdict in cell.verdicts
    if case.verdict != "loaded" or case.fault["kind"] == "truncated_day":
        assert set(cell.events) <= set(events_of(log))
    assert outages_of(database_url, case.symbol) == []
    assert (
        plan_backfill(
            settings=settings, symbols=case.symbol, market="spot", start=DAY, end=NEXT
        ).pieces
        == ()
    )


def test_reissued_file_is_loaded_again_and_its_values_win(
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
) -> None:
    path = f"data/spot/daily/klines/{REISSUED}/1m/{REISSUED}-{NAME}"
    (identity,) = add_faults({"kind": "reissued", "files": f"*/{REISSUED}-{NAME}", "at": "+2s"})
    load(settings, REISSUED)
    altered = exchange.site.altered_rows(path)
    assert len(altered) == 3
    with pytest.raises(AssertionError):
        assert_equal(exchange, read_rows(database_url), REISSUED, DAY, NEXT)
    wait_for(lambda: state_of(exchange, identity) == "active")
    load(settings, REISSUED)
    assert_equal(exchange, read_rows(database_url), REISSUED, DAY, NEXT)
    assert discrepancies(database_url) == 3
    with psycopg.connect(database_url) as connection:
        file = find_dump_file(connection, path)
    assert file is not None
    assert file.verdict in BACKFILL["reissued"].verdicts


def test_days_win_over_a_month_that_differs(
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
) -> None:
    start = to_us(datetime(2026, 10, 1, tzinfo=UTC))
    end = to_us(datetime(2026, 11, 1, tzinfo=UTC))
    path = f"data/spot/monthly/klines/{MONTHLY}/1m/{MONTHLY}-1m-2026-10.zip"
    add_faults({"kind": "monthly_differs", "symbols": MONTHLY})
    load(settings, MONTHLY, start, end)
    altered = exchange.site.altered_rows(path)
    assert len(altered) == 3
    plan = plan_backfill(
        settings=settings, symbols=MONTHLY, market="spot", start=start, end=end, verify=True
    )
    keys = {int(row.key) for row in altered}
    for piece in plan.dumps:
        if any(piece.start_us <= key < piece.end_us for key in keys):
            load_dump_piece(settings=settings, piece=piece)
    assert_equal(exchange, read_rows(database_url), MONTHLY, start, end)
    assert discrepancies(database_url) == 3


@pytest.mark.parametrize(("times", "source"), [(2, "dump_daily"), (None, "rest")])
def test_failed_listing_is_retried_and_then_skipped(
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
    times: int | None,
    source: str,
) -> None:
    add_faults({"kind": "listing_error", "times": times})
    log = load(settings, LISTED)
    assert_equal(exchange, read_rows(database_url), LISTED, DAY, NEXT)
    assert sources_of(database_url, LISTED) == (source,)
    if times is None:
        assert set(BACKFILL["listing_error"].events) <= set(events_of(log))


def test_refusing_site_is_named_in_the_error(settings: Settings, add_faults: Afflict) -> None:
    add_faults({"kind": "listing_error", "status": 403})
    with pytest.raises(PermanentError, match=r"refuses.*403.*HTTPS_PROXY"):
        plan_backfill(settings=settings, symbols=LISTED, market="spot", start=DAY, end=NEXT)


@pytest.mark.long
def test_command_survives_all_faults_together(
    exchange: ExchangeThread,
    settings: Settings,
    database_url: str,
    add_faults: Afflict,
) -> None:
    add_faults(*(case.entry for case in CASES))
    done = run_cli(
        "backfill", "--symbols", ",".join(case.symbol for case in CASES),
        "--from", "2026-11-18", "--to", "2026-11-19", settings=settings,
    )  # fmt: skip
    kinds = {case.fault["kind"] for case in CASES}
    assert {BACKFILL[kind].exit_code for kind in kinds} == {0}
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rows = read_rows(database_url)
    for case in CASES:
        assert_equal(exchange, rows, case.symbol, DAY, NEXT)


def state_of(exchange: ExchangeThread, identity: str) -> str:
    (state,) = (one["state"] for one in exchange.faults.listed() if one["id"] == identity)
    return str(state)
