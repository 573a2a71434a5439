"""A day compared between all sources: how much each covers, which differ, and what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import psycopg
import pytest
from structlog.testing import capture_logs

from include.config import Settings
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.errors import PermanentError
from include.jobs.instruments import sync_instruments
from include.jobs.klines.backfill import load_rest_piece
from include.jobs.klines.daily import plan_day
from include.jobs.klines.pieces import Reconciled, RestPiece
from include.jobs.klines.reconcile import (
    plan_reconciliation,
    reconcile_group,
    report,
)
from include.store.candles.minutes import merge_candidates, read_candles
from tests.integration.jobs.faulty_host import FaultyHost

Oracle = Callable[[str, int, int], list[Candle]]

DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))
SPAN = {"start": DAY, "end": DAY + DAY_US}


def live(candles: list[Candle]) -> list[CandleCandidate]:
    """Closed klines, as a streamer stores them."""
    return [
        CandleCandidate(one, Status.VERIFIED, Source.KLINE, one.open_time_us + MINUTE_US)
        for one in candles
    ]


def wrong(candle: Candle) -> Candle:
    return replace(candle, volume=candle.volume + Decimal("0.5"))


@pytest.fixture
def streamed(connection: psycopg.Connection, settings: Settings, oracle: Oracle) -> list[Candle]:
    """A day of a symbol from the stream, whose minute 100 differs from the exchange's."""
    sync_instruments(settings=settings, markets=["spot"])
    candles = oracle("BTCUSDT", DAY, DAY + DAY_US)
    merge_candidates(connection, live([*candles[:100], wrong(candles[100]), *candles[101:1200]]))
    return candles


def run(settings: Settings, **span: object) -> tuple[Reconciled, list[dict[str, object]]]:
    """A whole run, as in the DAG; returns its sum and its log of each day."""
    groups = plan_reconciliation(settings=settings, **(SPAN | span))  # type: ignore[arg-type]
    results = [reconcile_group(settings=settings, group=group) for group in groups]
    with capture_logs() as logs:
        total = report(settings=settings, groups=groups, results=results)
    return total, [one for one in logs if one["event"] == "day_reconciled"]


def test_reconciled_day_equals_the_exchange_and_the_verdict_counts_each_source(
    settings: Settings, connection: psycopg.Connection, streamed: list[Candle]
) -> None:
    total, (told,) = run(settings)
    stored = read_candles(connection, "BTCUSDT", DAY, DAY + DAY_US)
    assert [one.values for one in stored] == [one.values for one in streamed]
    assert told["verdict"] == "differs"
    figures = {name: told[name] for name in told if str(name).endswith(("_minutes", "_differing"))}
    assert figures == {
        "expected_minutes": 1440, "stored_minutes": 1440, "verified_minutes": 1440,
        "outage_minutes": 0, "revised_minutes": 1,
        "live_minutes": 1200, "live_differing": 1, "rest_minutes": 1440, "rest_differing": 0,
        "daily_minutes": 1440, "daily_differing": 0, "monthly_minutes": 0, "monthly_differing": 0,
    }  # fmt: skip
    assert total.days == {"differs": 1}
    assert (total.counts.changed, total.counts.inserted) == (1, 240)
    row = connection.execute(
        "SELECT symbol, day::text, verdict, live_differing FROM ops.reconciliations"
    ).fetchall()
    assert row == [("BTCUSDT", "2026-11-18", "differs", 1)]


def test_second_run_requests_and_changes_nothing(
    through_host: Settings,
    host: FaultyHost,
    connection: psycopg.Connection,
    streamed: list[Candle],
) -> None:
    run(through_host)
    before = connection.execute("SELECT * FROM market.candles_1m ORDER BY 1, 2").fetchall()
    host.asked.clear()
    total, (told,) = run(through_host)
    assert [path for path in host.asked if "klines?" in path or path.endswith(".zip")] == []
    assert connection.execute("SELECT * FROM market.candles_1m ORDER BY 1, 2").fetchall() == before
    assert (told["verdict"], total.counts.offered) == ("differs", 0)


def test_late_file_leaves_the_day_incomplete_until_a_later_run_finds_it(
    through_host: Settings,
    host: FaultyHost,
    connection: psycopg.Connection,
    settings: Settings,
    oracle: Oracle,
) -> None:
    sync_instruments(settings=settings, markets=["spot"])
    merge_candidates(connection, live(oracle("BTCUSDT", DAY, DAY + DAY_US)))
    nothing = httpx.Response(200, content=_EMPTY_LISTING)
    host.changes["prefix="] = lambda _: nothing
    host.changes[".zip"] = lambda _: httpx.Response(404)
    _, (told,) = run(through_host)
    assert (told["verdict"], told["rest_minutes"], told["daily_minutes"]) == ("incomplete", 1440, 0)

    host.changes.clear()
    next_day = {"start": DAY + DAY_US, "end": DAY + 2 * DAY_US}
    days = {piece.day_us for piece in plan_day(settings=through_host, **next_day)}
    assert days == {DAY, DAY + DAY_US}
    run(through_host, **next_day)
    assert _verdicts(connection) == [("2026-11-18", "agrees"), ("2026-11-19", "agrees")]
    last = {"start": DAY + 2 * DAY_US, "end": DAY + 3 * DAY_US}
    assert {piece.day_us for piece in plan_day(settings=through_host, **last)} == {last["start"]}


def test_reissued_file_is_compared_again(
    through_host: Settings, host: FaultyHost, streamed: list[Candle]
) -> None:
    run(through_host)
    host.changes["prefix="] = _published_later
    host.asked.clear()
    run(through_host)
    assert any(path.endswith("BTCUSDT-1m-2026-11-18.zip") for path in host.asked)


def test_differing_day_is_planned_again_while_its_file_is_missing(
    through_host: Settings, host: FaultyHost, streamed: list[Candle]
) -> None:
    host.changes["prefix="] = lambda _: httpx.Response(200, content=_EMPTY_LISTING)
    host.changes[".zip"] = lambda _: httpx.Response(404)
    _, (told,) = run(through_host)
    assert (told["verdict"], told["is_complete"]) == ("differs", False)
    host.changes.clear()
    next_day = {"start": DAY + DAY_US, "end": DAY + 2 * DAY_US}
    assert DAY in {piece.day_us for piece in plan_day(settings=through_host, **next_day)}
    _, told_later = run(through_host, **next_day)
    assert [one["is_complete"] for one in told_later] == [True, True]


def test_minute_missing_only_at_rest_is_neither_outage_nor_agreement(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, streamed: list[Candle]
) -> None:
    host.changes["klines?"] = _without_row(streamed[200].open_time_us)
    _, (told,) = run(through_host)
    assert (told["rest_minutes"], told["stored_minutes"], told["is_complete"]) == (
        1439,
        1440,
        False,
    )
    assert connection.execute("SELECT count(*) FROM ops.outages").fetchone() == (0,)


def test_rest_is_requested_again_for_an_outage_that_a_file_contradicts(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    sync_instruments(settings=through_host, markets=["spot"])
    lacking_us = DAY + 200 * MINUTE_US
    host.changes["klines?"] = _without_row(lacking_us)
    loaded = load_rest_piece(
        settings=through_host, piece=RestPiece("BTCUSDT", "x", DAY, DAY + DAY_US)
    )
    assert loaded.outage_minutes == 1
    _, (told,) = run(through_host)
    assert (told["stored_minutes"], told["rest_minutes"]) == (1440, 1439)
    assert told["verdict"] == "incomplete"
    host.changes.clear()
    host.asked.clear()
    _, (told,) = run(through_host)
    assert (told["verdict"], told["rest_minutes"]) == ("agrees", 1440)
    assert len([path for path in host.asked if "klines?" in path]) == 1


def test_symbol_unknown_to_rest_blocks_no_other(
    through_host: Settings, host: FaultyHost, streamed: list[Candle]
) -> None:
    unknown = httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."})
    host.changes["symbol=COSUSDT"] = lambda _: unknown
    _, told = run(through_host, symbols="COSUSDT, BTCUSDT")
    assert {(one["symbol"], one["verdict"], one["rest_minutes"]) for one in told} == {
        ("COSUSDT", "incomplete", 0),
        ("BTCUSDT", "differs", 1440),
    }


def test_refused_symbol_is_named_after_all_others_are_reconciled(
    through_host: Settings,
    host: FaultyHost,
    connection: psycopg.Connection,
    streamed: list[Candle],
) -> None:
    refused = httpx.Response(400, json={"code": -1100, "msg": "Illegal characters."})
    host.changes["symbol=COSUSDT"] = lambda _: refused
    (group,) = plan_reconciliation(settings=through_host, symbols="COSUSDT, BTCUSDT", **SPAN)
    with pytest.raises(PermanentError, match="1 of 2 days: COSUSDT 2026-11-18"):
        reconcile_group(settings=through_host, group=group)
    assert _verdicts(connection) == [("2026-11-18", "differs")]
    with pytest.raises(PermanentError, match="1 of 1 group of days"):
        report(settings=through_host, groups=[group], results=[])


def test_named_symbols_are_reconciled_even_without_rows(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    _, told = run(settings, symbols="COSUSDT, ETHUSDT.P")
    assert [(one["symbol"], one["verdict"]) for one in told] == [
        ("COSUSDT", "agrees"),
        ("ETHUSDT.P", "agrees"),
    ]
    for symbol in ("COSUSDT", "ETHUSDT.P"):
        stored = read_candles(connection, symbol, DAY, DAY + DAY_US)
        theirs = oracle(symbol, DAY, DAY + DAY_US)
        assert [one.values for one in stored] == [one.values for one in theirs]


def test_nothing_is_planned_without_streamed_symbols(settings: Settings) -> None:
    assert plan_reconciliation(settings=settings, **SPAN) == []
    assert report(settings=settings, groups=[], results=[]) == Reconciled()


def _verdicts(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT day::text, verdict FROM ops.reconciliations ORDER BY 1"
    ).fetchall()


_EMPTY_LISTING = (
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<IsTruncated>false</IsTruncated></ListBucketResult>"
)


def _published_later(answer: httpx.Response) -> httpx.Response:
    return httpx.Response(
        200, content=answer.content.replace(b"<LastModified>2026", b"<LastModified>2027")
    )


def _without_row(open_time_us: int) -> Callable[[httpx.Response], httpx.Response]:
    def answer(full: httpx.Response) -> httpx.Response:
        rows = [row for row in full.json() if row[0] != open_time_us]  # requested in µs
        return httpx.Response(full.status_code, headers=_limits_of(full), json=rows)

    return answer


def _limits_of(answer: httpx.Response) -> dict[str, str]:
    return {name: text for name, text in answer.headers.items() if name.startswith("x-mbx")}
