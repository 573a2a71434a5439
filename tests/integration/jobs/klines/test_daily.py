"""Which days of which symbols a daily run covers, and which of their files exist."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import httpx
import psycopg
import pytest

from include.config import Settings
from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.errors import PermanentError, TransientError
from include.jobs.exchange import open_dump_site
from include.jobs.instruments import sync_instruments
from include.jobs.klines.daily import (
    is_new_month,
    monthly_pieces,
    plan_day,
    plan_dumps,
    unpublished,
)
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.reconciliation import compare_day
from include.store.ledgers.verdicts import record_verdicts
from tests.integration.jobs.faulty_host import FaultyHost

DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))
SPAN = {"start": DAY, "end": DAY + DAY_US}


def store(
    connection: psycopg.Connection, symbol: str, *open_times: int, source: Source = Source.KLINE
) -> None:
    merge_candidates(
        connection,
        [
            CandleCandidate(
                silent_candle(symbol, one, Decimal(1)),
                Status.VERIFIED,
                source,
                one + MINUTE_US,
            )
            for one in open_times
        ],
    )


@pytest.fixture
def listed(settings: Settings) -> None:
    sync_instruments(settings=settings, markets=["spot"])


def test_run_covers_symbols_with_rows_on_that_day_or_in_the_week_before(
    settings: Settings, connection: psycopg.Connection, listed: None
) -> None:
    store(connection, "BTCUSDT", DAY + MINUTE_US)
    store(connection, "ETHBTC", DAY - 6 * DAY_US)
    store(connection, "COSUSDT", DAY - 9 * DAY_US)
    store(connection, "BIFIUSDT", DAY + DAY_US)
    pieces = [one for one in plan_day(settings=settings, **SPAN) if one.day_us == DAY]
    assert [one.symbol for one in pieces] == ["BTCUSDT", "ETHBTC"]
    assert pieces[0].label == "BTCUSDT 2026-11-18"
    assert pieces[0].path == "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-18.zip"


def test_days_of_the_week_before_are_planned_until_reconciled(
    settings: Settings, connection: psycopg.Connection, listed: None
) -> None:
    store(connection, "BTCUSDT", DAY - 2 * DAY_US, DAY - DAY_US, DAY)
    days = [one.day_us for one in plan_day(settings=settings, **SPAN)]
    assert days == [DAY - 2 * DAY_US, DAY - DAY_US, DAY]
    assert compare_day(connection, ["BTCUSDT"], DAY - DAY_US) == []  # no source covers it
    store(connection, "BTCUSDT", DAY - DAY_US, source=Source.REST)
    connection.execute(
        "INSERT INTO ops.coverage (symbol, source, day, minutes) SELECT 'BTCUSDT', source,"
        " '2026-11-17', tstzmultirange(tstzrange('2026-11-17 00:00Z', '2026-11-17 00:01Z'))"
        " FROM unnest(ARRAY['rest', 'dump_daily']) AS source"
    )
    (verdict,) = compare_day(connection, ["BTCUSDT"], DAY - DAY_US)
    assert verdict.verdict == "agrees"
    record_verdicts(connection, [verdict])
    days = [one.day_us for one in plan_day(settings=settings, **SPAN)]
    assert days == [DAY - 2 * DAY_US, DAY]


def test_named_symbols_are_planned_only_for_the_runs_days(settings: Settings) -> None:
    (group,) = plan_dumps(
        settings=settings, start=DAY, end=DAY + 2 * DAY_US, symbols="ethusdt", market="um"
    )
    pieces = [one.dump for one in group.pieces]
    assert [(one.symbol, one.label[-10:]) for one in pieces] == [
        ("ETHUSDT.P", "2026-11-18"),
        ("ETHUSDT.P", "2026-11-19"),
    ]
    assert pieces[0].path.startswith("data/futures/um/daily/klines/ETHUSDT/1m/")
    assert (pieces[0].start_us, pieces[0].end_us) == (DAY, DAY + DAY_US)


def test_range_without_a_full_day_is_refused(settings: Settings) -> None:
    with pytest.raises(PermanentError, match="contains no whole UTC day"):
        plan_day(settings=settings, start=DAY + 1, end=DAY + DAY_US)


def test_unpublished_files_are_named(
    through_host: Settings, host: FaultyHost, settings: Settings
) -> None:
    pieces = plan_day(settings=settings, **SPAN, symbols="BTCUSDT, COSUSDT")
    paths = [one.dump.path for one in pieces]
    assert unpublished(settings=through_host, paths=paths) == []
    host.changes["BTCUSDT-1m-2026-11-18.zip.CHECKSUM"] = lambda _: httpx.Response(404)
    assert unpublished(settings=through_host, paths=paths) == paths[:1]
    host.changes[".CHECKSUM"] = lambda _: httpx.Response(403)
    with pytest.raises(PermanentError, match="refuses"):
        unpublished(settings=through_host, paths=paths)


def test_unavailable_site_is_a_transient_error(make_settings: object) -> None:
    settings = make_settings(binance_dump_url="http://127.0.0.1:1")  # type: ignore[operator]
    with pytest.raises(TransientError):
        unpublished(settings=settings, paths=["data/x.zip"])


def test_monthly_files_are_new_until_loaded(
    settings: Settings, connection: psycopg.Connection
) -> None:
    december = to_us(datetime(2026, 12, 2, tzinfo=UTC))
    store(connection, "BTCUSDT", DAY)
    months = monthly_pieces("BTCUSDT", december)
    assert [one.label for one in months] == [
        "BTCUSDT 2026-11",
        "BTCUSDT 2026-10",
        "BTCUSDT 2026-09",
    ]
    with open_dump_site(settings) as site:
        assert [one.label for one in months if is_new_month(connection, site, one)] == []
