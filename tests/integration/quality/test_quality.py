"""What a run checks, stores and reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.config import Settings
from include.errors import PermanentError, TransientError
from include.jobs.quality import check_quality
from include.quality.limits import Limits, ScopeKind
from include.quality.report import QualityReport
from include.quality.run import run_checks
from include.quality.suites import CHECKS
from tests.integration.quality.markets import AT, END, MINUTE, START, broken, fill

SYMBOLS = ["BTCUSDT", "BTCUSDT.P", "ETHUSDT"]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Three symbols over four hours."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        fill(connection, SYMBOLS, with_trades=["BTCUSDT"])
        yield connection


def check(url: str, **arguments: Any) -> QualityReport:
    return run_checks(url, **{"start": START, "end": END, "run_id": "test", **arguments})


def delete(
    connection: psycopg.Connection[Any], first: datetime, minutes: int = 1, symbol: str = "ETHUSDT"
) -> None:
    connection.execute(
        "DELETE FROM market.candles_1m WHERE symbol = %s AND open_time >= %s AND open_time < %s",
        (symbol, first, first + minutes * MINUTE),
    )


def test_clean_minutes_pass_every_rule_and_the_run_is_recorded(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    report = check(database_url)
    assert broken(report) == {}
    assert [result.name for result in report.results] == [rule.name for rule in CHECKS]
    report.raise_for_failures()
    ledger = connection.execute(
        "SELECT check_name, success, severity, failing_count, failing_rows"
        " FROM ops.quality_results WHERE run_id = 'test'"
    ).fetchall()
    assert sorted(ledger) == sorted(
        (rule.name, True, rule.severity.value, 0, []) for rule in CHECKS
    )
    assert connection.execute(
        "SELECT scope, advances, from_time, to_time, success, symbols, candles, trades"
        " FROM ops.quality_runs"
    ).fetchall() == [("window", False, START, END, True, 3, 720, 2 * 4 * 192)]


def test_gap_is_named_by_its_first_minute_and_length(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    delete(connection, AT, 12, "BTCUSDT.P")
    (failure,) = check(database_url).failures
    (row,) = failure.failing_rows
    assert (row.symbol, row.minute, row.detail) == ("BTCUSDT.P", AT, "12 minutes missing")


def test_gap_is_reported_ten_minutes_after_its_end(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    delete(connection, AT, 5)
    reconnected = AT + timedelta(minutes=5)
    young = check(database_url, end=reconnected + timedelta(minutes=9))
    assert broken(young) == {}
    settled = check(database_url, end=reconnected + timedelta(minutes=10))
    assert broken(settled) == {"no_minute_is_missing": [("ETHUSDT", AT)]}


def test_gap_explained_by_an_outage_is_not_reported(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    silent = AT + 3 * MINUTE  # so that no trade is missing
    for symbol in SYMBOLS:
        delete(connection, silent, 1, symbol)
    assert broken(check(database_url)) == {
        "no_minute_is_missing": [(symbol, silent) for symbol in SYMBOLS]
    }
    connection.execute(
        "INSERT INTO ops.outages (market, symbol, minutes, cause) VALUES"
        " ('spot', NULL, %(span)s, 'halt'), ('um', 'ETHUSDT.P', %(span)s, 'halt')",
        {"span": f"{{[{silent}, {silent + MINUTE})}}"},
    )
    assert broken(check(database_url)) == {"no_minute_is_missing": [("BTCUSDT.P", silent)]}


def test_gap_at_the_start_of_the_window_is_found_after_earlier_rows(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    later = START + timedelta(minutes=20)
    delete(connection, later, 2)
    assert broken(check(database_url, start=later)) == {
        "no_minute_is_missing": [("ETHUSDT", later)]
    }
    # a symbol's first row has nothing before it to miss
    delete(connection, START, 20)
    assert broken(check(database_url, start=later)) == {}


def test_nothing_is_missing_between_two_listings_of_a_ticker(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    # delisted, and back an hour later as another instrument with other ids and prices
    delete(connection, AT, 60)
    back = AT + timedelta(minutes=60)
    connection.execute(
        "UPDATE market.instruments SET listed_to = %s WHERE symbol = 'ETHUSDT'",
        (AT + timedelta(minutes=7),),
    )
    connection.execute(
        "INSERT INTO market.instruments SELECT symbol, %s, NULL, market, exchange_symbol,"
        " base_asset, quote_asset, status, tick_size, step_size, filters,"
        " quote_volume_is_exact, seen_at FROM market.instruments WHERE symbol = 'ETHUSDT'",
        (back,),
    )
    connection.execute(
        "UPDATE market.instruments SET tick_size = tick_size / 100, filters = '{}'"
        " WHERE symbol = 'ETHUSDT' AND listed_from = %s",
        (back,),
    )
    connection.execute(
        "UPDATE market.candles_1m SET first_trade_id = first_trade_id - 300,"
        " last_trade_id = last_trade_id - 300, open = open / 100, high = high / 100,"
        " low = low / 100, close = close / 100, quote_volume = quote_volume / 100,"
        " taker_buy_quote_volume = taker_buy_quote_volume / 100"
        " WHERE symbol = 'ETHUSDT' AND open_time >= %s",
        (back,),
    )
    assert broken(check(database_url)) == {}
    # of the new listing's own minutes one can be
    delete(connection, back, 3)
    assert broken(check(database_url)) == {"no_minute_is_missing": [("ETHUSDT", back)]}


def test_missing_trade_ids_break_no_rule(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "UPDATE market.candles_1m SET first_trade_id = NULL, last_trade_id = NULL"
        " WHERE open_time BETWEEN %s AND %s",
        (AT, AT + timedelta(minutes=6)),
    )
    assert broken(check(database_url)) == {}


def test_silent_trading_symbol_is_stale_and_a_delisted_one_is_not(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    for symbol in ("BTCUSDT.P", "ETHUSDT"):
        delete(connection, AT + MINUTE, 300, symbol)
    stale = {"symbols_are_not_stale": [("BTCUSDT.P", AT), ("ETHUSDT", AT)]}
    assert broken(check(database_url)) == stale
    # also where the whole window is without rows of it
    assert broken(check(database_url, start=AT + timedelta(minutes=20))) == stale
    connection.execute(
        "UPDATE market.instruments SET listed_to = %s, status = 'BREAK' WHERE symbol = 'ETHUSDT'",
        (AT + MINUTE,),
    )
    assert broken(check(database_url)) == {"symbols_are_not_stale": [("BTCUSDT.P", AT)]}
    connection.execute(
        "INSERT INTO ops.outages (market, minutes, cause) VALUES ('um', %s, 'halt')",
        (f"{{[{AT + MINUTE},)}}",),
    )
    assert broken(check(database_url)) == {}


def test_backfilled_history_may_end_anywhere(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    delete(connection, AT + MINUTE, 300)
    assert broken(check(database_url)) == {"symbols_are_not_stale": [("ETHUSDT", AT)]}
    connection.execute(
        "UPDATE market.candles_1m SET source = 'rest', source_rank = 80 WHERE symbol = 'ETHUSDT'"
    )
    assert broken(check(database_url)) == {}


def test_only_requested_symbols_are_checked(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    delete(connection, AT)
    assert check(database_url, symbols=["BTCUSDT", "BTCUSDT.P"]).success
    assert not check(database_url, symbols=["ETHUSDT"]).success


def test_rows_beyond_the_first_are_counted_and_a_repeated_run_replaces_them(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("UPDATE market.candles_1m SET quote_volume = 300 WHERE trade_count > 0")
    failures = check(database_url).failures
    assert [(failure.name, failure.failing_count) for failure in failures] == [
        ("quote_volume_fits_the_prices", 3 * 192)
    ]
    query = (
        "SELECT success, failing_count, jsonb_array_length(failing_rows), suite"
        " FROM ops.quality_results WHERE check_name = 'quote_volume_fits_the_prices'"
    )
    assert connection.execute(query).fetchall() == [(False, 576, 200, "candles")]
    rows = connection.execute(
        "SELECT symbol, open_time, severity, detail FROM ops.quality_failures WHERE run_id = 'test'"
        " ORDER BY open_time, symbol"
    ).fetchall()
    assert len(rows) == 200
    # of each symbol the first: no symbol's errors hide another's
    assert rows[:3] == [
        (
            symbol,
            START + MINUTE,
            "error",
            "quote volume 300 for 2, takers 100.75 for 1, prices from 99 to 101.5",
        )
        for symbol in SYMBOLS
    ]

    connection.execute("UPDATE market.candles_1m SET quote_volume = 200.25 WHERE trade_count > 0")
    check(database_url)
    assert connection.execute(query).fetchall() == [(True, 0, 0, "candles")]


def test_job_raises_for_failed_rules_with_the_rights_of_its_role(
    database_url: str, connection: psycopg.Connection[Any], postgres: Any, tmp_path: Path
) -> None:
    connection.execute("ALTER ROLE candelabra_jobs PASSWORD 'jobs'")
    url = postgres.url(database_url.rsplit("/", 1)[1], user="candelabra_jobs", password="jobs")
    settings = Settings(jobs_database_url=url, candelabra_home=tmp_path)
    arguments: dict[str, Any] = {"settings": settings, "start": START, "end": END}
    assert check_quality(run_id="clean", **arguments).success
    delete(connection, AT, 4)
    with pytest.raises(PermanentError, match=r"no_minute_is_missing.*ETHUSDT 2025-03-01 08:32"):
        check_quality(run_id="faulty", **arguments)
    changed: dict[str, Any] = {"settings": settings, "scope": "changed", "end": START + MINUTE}
    check_quality(run_id="first", **changed)
    # by what the change logs contain from now on
    connection.execute(
        "DELETE FROM market.trades WHERE trade_time >= %s AND trade_time < %s", (AT, AT + MINUTE)
    )
    with pytest.raises(PermanentError, match=r"trade_rows_are_contiguous.*BTCUSDT"):
        check_quality(run_id="changed", **changed)
    # The pages: self-contained, and without the login.
    pages = list((tmp_path / "quality").rglob("*.html"))
    assert (tmp_path / "quality" / "index.html") in pages
    texts = {page: page.read_text() for page in pages}
    # The front page opens with verdict, time and the failing rules, the newest run first.
    front = texts[tmp_path / "quality" / "index.html"]
    assert front.index("rules failed") < front.index("Great Expectations")
    assert re.search(r"checked at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", front)
    assert front.index("trade_rows_are_contiguous") < front.index("no_minute_is_missing")
    assert "ETHUSDT 2025-03-01 08:32" in front
    assert 'href="window/index.html"' in front
    window = [text for page, text in texts.items() if "window/validations/candles" in str(page)]
    assert len(window) == 1  # the newest run alone
    assert "12 minutes missing" not in window[0]
    assert "4 minutes missing" in window[0]
    assert "no_minute_is_missing" in window[0]
    for text in texts.values():
        assert "candelabra_jobs" not in text
        assert "postgresql" not in text
        assert not any(
            f'{attribute}="http' in text for attribute in ("src", 'rel="stylesheet" href')
        )


def test_unevaluable_rule_is_an_error_not_a_failed_rule(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("DROP TABLE ops.outages")
    with pytest.raises(PermanentError, match="could not be evaluated") as info:
        check(database_url)
    assert "outages" in str(info.value)
    password = psycopg.conninfo.conninfo_to_dict(database_url)["password"]
    assert str(password) not in str(info.value)


def test_rule_that_times_out_is_a_transient_error(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.quality.session.STATEMENT_TIMEOUT_S", 0.3)
    with connection.transaction():
        connection.execute("LOCK TABLE ops.outages IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientError, match="could not be evaluated"):
            check(database_url)


def test_unavailable_database_is_a_transient_error() -> None:
    with pytest.raises(TransientError) as info:
        check("postgresql://someone:secret@127.0.0.1:1/nowhere")
    assert "secret" not in str(info.value)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (END, START, "empty"),
        (START.replace(tzinfo=None), END, "no time zone"),
        (START + timedelta(seconds=1), END, "not a full minute"),
        (None, END, "needs its start"),
    ],
)
def test_wrong_window_is_refused(start: datetime | None, end: datetime, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        check("postgresql://127.0.0.1:1/nowhere", start=start, end=end)


def test_window_without_end_reaches_the_database_clock(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    report = check(database_url, end=None)
    assert abs(report.end - datetime.now(UTC)) < timedelta(minutes=2)


def test_gap_of_trades_over_midnight_is_reported_once(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    midnight = datetime(2025, 3, 2, tzinfo=UTC)
    for relation, own in (("agg_trades", "agg_trade_id"), ("trades", "trade_id")):
        connection.execute(
            "SELECT ops.ensure_partition(%s::regclass, %s)", (f"market.{relation}", midnight)
        )
        aggregate = ", first_trade_id, last_trade_id" if relation == "agg_trades" else ""
        connection.execute(
            f"INSERT INTO market.{relation} (symbol, day, {own}, price, quantity, trade_time,"  # noqa: S608
            f" is_buyer_maker{aggregate}) SELECT 'BTCUSDT', '2025-03-02', id + 10, 100, 1,"
            f" %s + id * interval '1 second', false"
            f"{', id + 10, id + 10' if aggregate else ''} FROM (SELECT max({own}) + n AS id"
            f" FROM market.{relation}, generate_series(1, 3) AS n GROUP BY n) AS ids",
            (midnight,),
        )
    first = connection.execute(
        "SELECT 'BTCUSDT', min(trade_time) FROM market.trades WHERE day = '2025-03-02' UNION ALL"
        " SELECT 'BTCUSDT', min(trade_time) FROM market.agg_trades WHERE day = '2025-03-02'"
        " ORDER BY 2"
    ).fetchall()
    for scope in (ScopeKind.ALL, ScopeKind.WINDOW, ScopeKind.CHANGED, ScopeKind.CHANGED):
        end = midnight + timedelta(hours=1)
        found = broken(check(database_url, start=midnight, end=end, scope=scope, run_id=scope))
        assert found["trade_rows_are_contiguous"] == first
    # still failing though all of it was checked days ago, until the outage is recorded
    late = {"scope": ScopeKind.CHANGED, "end": midnight + timedelta(days=5)}
    for run_id in ("late", "later"):
        found = broken(check(database_url, run_id=run_id, **late))
        assert found["trade_rows_are_contiguous"] == first
    for relation in ("agg_trades", "trades"):
        connection.execute(
            "INSERT INTO ops.gaps (symbol, dataset, from_time, to_time, cause)"
            " VALUES ('BTCUSDT', %s, %s, %s, 'cut')",
            (relation, midnight - MINUTE, midnight + MINUTE),
        )
    report = check(database_url, run_id="told", **late)
    assert "trade_rows_are_contiguous" not in broken(report)


def stale(url: str, end: datetime, **arguments: Any) -> list[str | None]:
    report = check(url, start=START, end=end, run_id=f"stale {end}", **arguments)
    return [symbol for symbol, _ in broken(report).get("symbols_are_not_stale", [])]


@pytest.mark.parametrize("dead_for", [timedelta(hours=23), timedelta(hours=25), timedelta(days=30)])
def test_dead_streams_stay_stale(
    database_url: str, connection: psycopg.Connection[Any], dead_for: timedelta
) -> None:
    assert stale(database_url, END + dead_for) == SYMBOLS
    assert stale(database_url, END + dead_for + MINUTE, symbols=["ETHUSDT"]) == ["ETHUSDT"]


def test_later_files_do_not_revive_a_dead_stream(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "INSERT INTO ops.coverage SELECT symbol, 'kline', '2025-03-01', tstzmultirange(tstzrange("
        "%s, %s)) FROM ops.candle_symbols() AS symbol",
        (START, END),
    )
    connection.execute(
        "UPDATE market.candles_1m SET source = 'file', source_rank = 20, evidence_at = NULL,"
        " status = 'unconfirmed'"
    )
    assert stale(database_url, END + timedelta(days=2)) == SYMBOLS
    connection.execute("TRUNCATE ops.coverage")
    assert stale(database_url, END + timedelta(days=2) + MINUTE) == []


def test_symbol_whose_market_streams_on_was_removed(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    delete(connection, START + timedelta(hours=1), 240)
    for followed_for, found in ((4, SYMBOLS), (2, ["BTCUSDT", "BTCUSDT.P"])):
        limits = Limits(followed_for=timedelta(hours=followed_for))
        assert stale(database_url, END + 20 * MINUTE, limits=limits) == found
    # nor is it forgotten: it may have died alone
    alone = {"streams_do_not_end_alone": [("ETHUSDT", START + timedelta(minutes=59))]}
    quick = {"limits": limits, "start": START, "end": END + MINUTE}
    assert broken(check(database_url, run_id="alone", **quick)) == alone
    connection.execute("UPDATE market.instruments SET status = 'BREAK' WHERE symbol = 'ETHUSDT'")
    assert broken(check(database_url, run_id="ended", **quick)) == {}
