"""The audit finds bars that differ from their minutes though no change was logged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.config import Settings, load_settings
from include.errors import PermanentError
from include.jobs import mart_audits as module
from include.jobs.mart_audits import AuditSummary, audit_marts
from include.store.candles.mart_audits import audit_month, next_months
from tests.integration.dbt.conftest import BARS

SYMBOL = "BTCUSDT"
MARCH = datetime(2019, 3, 1, tzinfo=UTC)
START = datetime(2019, 2, 27, 11, 0, tzinfo=UTC)
"""The bars of 1w and 3d reach from February into March."""
MINUTE = timedelta(minutes=1)
DAY = MARCH
FEBRUARY = datetime(2019, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def dbt(shared_dbt: Any) -> Any:
    return shared_dbt.selecting(BARS, "differing_bars")


@pytest.fixture(scope="module")
def filled(shared_market: Any, dbt: Any) -> Any:
    """Three days of a symbol, an hour of another with an outage, and their marts."""
    shared_market.list_symbol(SYMBOL)
    shared_market.write(SYMBOL, START, 4_000)
    shared_market.write("ETHUSDT", MARCH, 60)
    shared_market.declare_outage("ETHUSDT", MARCH + 60 * MINUTE, MARCH + 240 * MINUTE)
    dbt("run")
    return shared_market


@pytest.fixture
def audited(filled: Any, dbt: Any) -> Iterator[Any]:
    """The same; every test ends with marts that equal the minutes."""
    filled.connection.execute("TRUNCATE ops.mart_audits")
    yield filled
    dbt("run")
    filled.assert_bars_hold_the_minutes()


@pytest.fixture
def settings(filled: Any) -> Settings:
    return load_settings(database_url=filled.url)


def with_triggers(market: Any, action: str) -> None:
    """Disable or enable the triggers that log changes of minutes."""
    triggers = market.connection.execute(
        "SELECT tgrelid::regclass::text, tgname FROM pg_trigger AS t JOIN pg_class AS c"
        " ON c.oid = t.tgrelid WHERE c.relname LIKE 'candles_1m%' AND tgname LIKE 'log%'"
    ).fetchall()
    for relation, name in triggers:
        market.connection.execute(f"ALTER TABLE {relation} {action} {name}")


def differing(market: Any) -> set[tuple[str, str, datetime]]:
    """Audit every month; the timeframe, symbol and open time of each differing bar."""
    return {
        (symbol, bar.timeframe, bar.open_time)
        for symbol, month in next_months(market.connection, limit=100)
        for bar in audit_month(market.connection, symbol, month)
    }


def test_correct_marts_differ_nowhere(audited: Any, settings: Settings) -> None:
    assert audit_marts(settings=settings) == AuditSummary(months=3, differing_bars=0)


def test_close_changed_in_a_mart_is_found_and_rebuilt(
    audited: Any, dbt: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    audited.connection.execute(
        "UPDATE marts.candles_1d SET close = close + 0.01 WHERE open_time = %s AND symbol = %s",
        (DAY, SYMBOL),
    )
    dbt("build")  # passes

    with pytest.raises(PermanentError, match=r"BTCUSDT 1d 2019-03-01T00:00Z"):
        audit_marts(settings=settings)

    found = {(call.kwargs["timeframe"], tuple(call.kwargs["columns"])) for call in log.calls[:-1]}
    assert ("1d", ("close",)) in found
    # Wider bars were built from the true day.
    assert {timeframe for timeframe, _ in found} <= {"1d", "3d", "1w", "1M"}
    dbt("run")
    audited.assert_bars_hold_the_minutes()
    assert audit_marts(settings=settings).differing_bars == 0


def test_every_kind_of_damage_is_found(audited: Any) -> None:
    damages = {
        "12h": "DELETE FROM marts.candles_12h WHERE open_time = '2019-03-01 12:00Z'",
        "8h": "INSERT INTO marts.candles_8h SELECT symbol, '2019-03-21Z', '2019-03-21 08:00Z',"
        " open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume,"
        " taker_buy_quote_volume, first_trade_id, last_trade_id, minute_count, is_complete,"
        " built_at FROM marts.candles_8h WHERE open_time = '2019-03-01Z' AND symbol = 'BTCUSDT'",
        "4h": "UPDATE marts.candles_4h SET is_complete = NOT is_complete"
        " WHERE open_time = '2019-03-01Z' AND symbol = 'ETHUSDT'",
        "3m": "UPDATE marts.candles_3m SET first_trade_id = NULL WHERE open_time = '2019-02-28Z'",
        "1M": "UPDATE marts.candles_1mo SET volume = volume + 0.00000001",
    }
    for statement in damages.values():
        audited.connection.execute(statement)
    assert {timeframe for _, timeframe, _ in differing(audited)} >= damages.keys()


def test_role_of_the_jobs_can_audit(audited: Any) -> None:
    connection = audited.connection
    connection.execute("UPDATE marts.candles_1mo SET volume = 999 WHERE symbol = 'ETHUSDT'")
    connection.execute("SET ROLE candelabra_jobs")
    try:
        assert [bar.timeframe for bar in audit_month(connection, "ETHUSDT", MARCH)] == ["1M"]
    finally:
        connection.execute("RESET ROLE")


def test_bars_that_the_next_build_rebuilds_do_not_differ(audited: Any) -> None:
    audited.write(SYMBOL, START + timedelta(hours=5), 3, volume=Decimal(7))
    assert differing(audited) == set()


def test_bars_of_vanished_minutes_are_found_and_removed(audited: Any, dbt: Any) -> None:
    with_triggers(audited, "DISABLE TRIGGER")
    audited.delete("ETHUSDT", MARCH, 60)
    with_triggers(audited, "ENABLE ALWAYS TRIGGER")
    assert ("ETHUSDT", "3m", MARCH) in differing(audited)
    dbt("run")
    left = audited.connection.execute("SELECT 1 FROM marts.candles_3m WHERE symbol = 'ETHUSDT'")
    assert left.fetchall() == []
    audited.write("ETHUSDT", MARCH, 60)


def test_months_take_turns_with_the_never_compared_first(audited: Any) -> None:
    turns = next_months(audited.connection, limit=100)
    assert turns == [("BTCUSDT", MARCH), ("ETHUSDT", MARCH), ("BTCUSDT", FEBRUARY)]
    for symbol, month in turns[:2]:
        audit_month(audited.connection, symbol, month)
    assert next_months(audited.connection, limit=2) == [turns[2], turns[0]]


def test_run_ends_when_its_time_is_up(audited: Any, settings: Settings) -> None:
    times = iter([0.0, 1.0, 2.0, 11.0, 12.0])
    summary = audit_marts(settings=settings, duration_s=10, clock=lambda: next(times))
    assert summary.months == 1


def test_marts_that_were_never_built_are_not_audited(unbuilt_market: Any) -> None:
    settings = load_settings(database_url=unbuilt_market.url)
    unbuilt_market.write(SYMBOL, START, 10)
    assert audit_marts(settings=settings).differing_bars == 0


def test_minute_changed_without_its_triggers_is_found_in_every_timeframe(
    audited: Any, coarse: Any
) -> None:
    changed = datetime(2019, 3, 1, 5, 7, tzinfo=UTC)
    with_triggers(audited, "DISABLE TRIGGER")
    audited.connection.execute(
        "UPDATE market.candles_1m SET volume = volume + 1 WHERE symbol = %s AND open_time = %s",
        (SYMBOL, changed),
    )
    with_triggers(audited, "ENABLE ALWAYS TRIGGER")
    # Each mart is compared with its parent, so the finest ones show it.
    assert {timeframe for _, timeframe, _ in differing(audited)} == {"3m", "5m"}
