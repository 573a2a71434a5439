"""Plans of derivative series: which source each missing part comes from."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from include.config import Settings
from include.errors import WrongValueError
from include.jobs.derivatives.pieces import SeriesFilePiece, SeriesPlan, SeriesRestPiece
from include.jobs.derivatives.planning import plan_series
from simulator.server import ExchangeThread

START = datetime(2026, 10, 1, tzinfo=UTC)


def sources(plan: SeriesPlan) -> dict[str, int]:
    found: dict[str, int] = {}
    for piece in plan.pieces:
        name = piece.source if isinstance(piece, SeriesFilePiece) else "rest"
        found[name] = found.get(name, 0) + 1
    return found


def test_months_come_from_monthly_files_and_the_rest_by_day_and_by_rest(
    settings: Settings,
) -> None:
    plan = plan_series(settings=settings, symbols="XLMUSDT", series="mark", start=START)
    assert sources(plan) == {"dump_monthly": 1, "dump_daily": 3, "rest": 1}


def test_metrics_come_from_the_files_of_their_days(settings: Settings) -> None:
    plan = plan_series(
        settings=settings, symbols="XLMUSDT", series="open_interest,ratios", start=START
    )
    assert sources(plan) == {"dump_daily": 34, "rest": 2}


def test_funding_comes_from_files_for_the_interval_and_by_rest_for_the_mark_price(
    settings: Settings,
) -> None:
    plan = plan_series(settings=settings, symbols="XLMUSDT", series="funding", start=START)
    assert sources(plan) == {"dump_monthly": 1, "rest": 1}
    (rest,) = (one for one in plan.pieces if isinstance(one, SeriesRestPiece))
    assert rest.why == "REST has the mark prices"


def test_without_a_start_the_first_file_is_the_beginning(settings: Settings) -> None:
    plan = plan_series(settings=settings, symbols="KEEPUSDT", series="index", start=None)
    assert sources(plan) == {"dump_monthly": 2, "dump_daily": 3, "rest": 1}


def test_old_statistics_without_files_are_named_in_a_note(
    settings: Settings, exchange: ExchangeThread
) -> None:
    exchange.faults.add({"kind": "missing_day", "files": "*/metrics/*"})
    plan = plan_series(settings=settings, symbols="XLMUSDT", series="ratios", start=START)
    assert sources(plan) == {"rest": 5}
    assert plan.notes == (
        "XLMUSDT.P ratios 2026-10-01T00:00..2026-10-05T13:00: neither in REST nor in a file",
    )


def test_spot_symbols_are_refused(settings: Settings) -> None:
    with pytest.raises(WrongValueError, match="spot symbol"):
        plan_series(settings=settings, symbols="BTCUSDT", market="spot", start=START)
