"""Health marts find planted faults: missing, late, unverified and disputed minutes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

MINUTE = timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LONG_AGO = datetime(2025, 3, 3, tzinfo=UTC)
HEALTH = ("path:models/intermediate/health", "path:models/marts/health")
COUNTS = (
    "day, expected_minutes, present_minutes, verified_minutes, unconfirmed_minutes,"
    " partial_minutes, silent_minutes, revised_minutes, repaired_minutes, outage_minutes,"
    " missing_minutes"
)

STREAMED = ("OKUSDT", "LATEUSDT", "HOLEUSDT", "UNSUREUSDT", "HALTUSDT", "GAPUSDT", "RULEUSDT")


def plant_history(market: Any) -> None:
    """HISTORY has a day with gaps and an outage, an empty day, and parts of two days."""
    market.write("HISTORY", LONG_AGO + timedelta(hours=23, minutes=50), 10)
    market.write("HISTORY", LONG_AGO + DAY, 10)
    market.write("HISTORY", LONG_AGO + DAY + timedelta(hours=23, minutes=50), 10)
    market.write("HISTORY", LONG_AGO + 3 * DAY, 5)
    market.declare_outage(None, LONG_AGO + DAY + HOUR, LONG_AGO + DAY + 2 * HOUR)
    set_status(market, "HISTORY", LONG_AGO + DAY, 2, "unconfirmed")
    set_status(market, "HISTORY", LONG_AGO + DAY + 2 * MINUTE, 1, "partial")
    market.connection.execute(
        "INSERT INTO ops.gaps (symbol, from_time, to_time, cause, repaired_at, repaired_by)"
        " VALUES ('HISTORY', '2025-03-03 23:55Z', '2025-03-04 00:02Z', 'cut', now(), 'rest')"
    )


def plant_rows_in_an_outage(market: Any) -> None:
    """RESUMED lacks the first half of an outage, and 30 minutes later."""
    market.write("RESUMED", LONG_AGO + 10 * DAY, 1440)
    market.delete("RESUMED", LONG_AGO + 10 * DAY + timedelta(hours=10), 30)
    market.delete("RESUMED", LONG_AGO + 10 * DAY + timedelta(hours=15), 30)
    market.declare_outage(
        "RESUMED", LONG_AGO + 10 * DAY + 10 * HOUR, LONG_AGO + 10 * DAY + 11 * HOUR
    )


def set_status(market: Any, symbol: str, start: datetime, minutes: int, status: str) -> None:
    market.connection.execute(
        "UPDATE market.candles_1m SET status = %s, source = 'stream', evidence_at = NULL,"
        " source_rank = CASE %s WHEN 'partial' THEN 10 ELSE 40 END"
        " WHERE symbol = %s AND open_time >= %s AND open_time < %s",
        (status, status, symbol, start, start + minutes * MINUTE),
    )


def plant_today(market: Any, now: datetime) -> None:
    """Each symbol in ``STREAMED`` has the last hour and one fault."""
    for symbol in (*STREAMED, "GONEUSDT"):
        market.list_symbol(symbol, listed_to=now if symbol == "GONEUSDT" else None)
        market.write(symbol, now - 60 * MINUTE, 60)
        market.connection.execute(
            "INSERT INTO ops.coverage VALUES (%s, 'kline', %s, '{}')", (symbol, now.date())
        )
    market.delete("LATEUSDT", now - 15 * MINUTE, 15)
    market.delete("HALTUSDT", now - 20 * MINUTE, 20)
    market.delete("HOLEUSDT", now - 40 * MINUTE, 3)
    set_status(market, "UNSUREUSDT", now - 30 * MINUTE, 11, "unconfirmed")
    market.declare_outage("HALTUSDT", now - 20 * MINUTE, now)
    market.connection.execute(
        "INSERT INTO ops.gaps (symbol, from_time, to_time, cause, opened_at)"
        " VALUES ('GAPUSDT', %s, %s, 'cut', %s)",
        (now - 50 * MINUTE, now - 48 * MINUTE, now - 45 * MINUTE),
    )
    market.connection.execute(
        "INSERT INTO ops.quality_results"
        " (run_id, run_at, suite, check_name, success, severity, failing_count, failing_rows)"
        " VALUES ('r1', now(), 'candles', 'prices_are_positive', false, 'error', 1, %s),"
        " ('r1', now(), 'candles', 'high_is_fine', true, 'error', 0, '[]'),"
        " ('r0', now() - interval '5 minutes', 'candles', 'prices_are_positive', true, 'error',"
        "  0, '[]')",
        ('[{"symbol": "RULEUSDT", "open_time": "2025-03-03 00:00Z", "detail": "x"}]',),
    )
    market.connection.execute(
        "INSERT INTO ops.reconciliations (symbol, day, verdict, is_complete, expected_minutes,"
        " stored_minutes, verified_minutes, outage_minutes, revised_minutes, live_minutes,"
        " live_differing, rest_minutes, rest_differing, daily_minutes, daily_differing,"
        " monthly_minutes, monthly_differing) VALUES"
        " ('OKUSDT', %(day)s, 'agrees', true, 9, 9, 9, 0, 0, 9, 0, 9, 0, 9, 0, 0, 0),"
        " ('HISTORY', %(day)s, 'differs', true, 9, 9, 9, 0, 0, 9, 0, 9, 0, 9, 2, 0, 0)",
        {"day": now.date()},
    )


@pytest.fixture(scope="module")
def now() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


@pytest.fixture(scope="module")
def health(shared_market: Any, shared_dbt: Any, now: datetime) -> Any:
    """The faults and the health marts."""
    plant_history(shared_market)
    plant_rows_in_an_outage(shared_market)
    plant_today(shared_market, now)
    # Cursors of marts that are not built here would keep changes in the log.
    shared_market.connection.execute(
        "DELETE FROM ops.build_cursors WHERE relation NOT LIKE 'marts.int_health%'"
    )
    shared_dbt("build", "--indirect-selection", "buildable", "--select", *HEALTH)
    return shared_market


def rows(market: Any, query: str) -> list[tuple[Any, ...]]:
    return list(market.connection.execute(query).fetchall())


def test_coverage_counts_minutes_by_status_and_missing_ones(health: Any) -> None:
    found = rows(
        health,
        f"SELECT {COUNTS} FROM marts.health_coverage"  # noqa: S608
        " WHERE symbol = 'HISTORY' ORDER BY day",
    )
    # Minutes before the first and after the last stored one are not expected. Every fifth minute is
    # silent.
    assert found == [
        (date(2025, 3, 3), 10, 10, 10, 0, 0, 2, 0, 5, 0, 0),
        (date(2025, 3, 4), 1440, 20, 17, 2, 1, 4, 0, 2, 60, 1360),
        (date(2025, 3, 5), 1440, 0, 0, 0, 0, 0, 0, 0, 0, 1440),
        (date(2025, 3, 6), 5, 5, 5, 0, 0, 1, 0, 0, 0, 0),
    ]


def test_stored_minutes_of_an_outage_excuse_no_others(health: Any) -> None:
    found = rows(
        health,
        "SELECT expected_minutes, present_minutes, outage_minutes, missing_minutes"
        " FROM marts.health_coverage WHERE symbol = 'RESUMED'",
    )
    assert found == [(1440, 1380, 30, 30)]


def test_overview_lists_the_worst_first_with_its_cause(health: Any) -> None:
    found = rows(
        health, "SELECT symbol, status FROM marts.health_overview WHERE symbol <> 'RESUMED'"
    )
    assert found == [
        ("LATEUSDT", "late"),
        ("GAPUSDT", "gap open"),
        ("HOLEUSDT", "minutes missing"),
        ("RULEUSDT", "checks fail"),
        ("UNSUREUSDT", "not verified"),
        ("HISTORY", "sources differ"),
        ("HALTUSDT", "exchange halted"),
        ("GONEUSDT", "not trading"),
        ("OKUSDT", "ok"),
    ]
    assert rows(
        health,
        "SELECT symbol, missing_minutes, unverified_minutes, open_gaps, failing_checks"
        " FROM marts.health_overview"
        " WHERE symbol IN ('HOLEUSDT', 'UNSUREUSDT', 'GAPUSDT', 'RULEUSDT') ORDER BY symbol",
    ) == [
        ("GAPUSDT", 0, 0, 1, []),
        ("HOLEUSDT", 3, 0, 0, []),
        ("RULEUSDT", 0, 0, 0, ["prices_are_positive"]),
        ("UNSUREUSDT", 0, 11, 0, []),
    ]
    described = rows(
        health, "SELECT what_to_do FROM marts.health_overview WHERE symbol = 'HOLEUSDT'"
    )
    assert described[0][0].startswith("3 minutes missing: see marts.health_coverage")


def test_freshness_is_current_and_excuses_halts(health: Any, now: datetime) -> None:
    found = {
        symbol: values
        for symbol, *values in rows(
            health,
            "SELECT symbol, newest_minute, newest_verified_minute, is_late, is_in_outage,"
            " lag_seconds FROM marts.health_freshness",
        )
    }
    assert found["LATEUSDT"][:4] == [now - 16 * MINUTE, now - 16 * MINUTE, True, False]
    assert found["HALTUSDT"][:4] == [now - 21 * MINUTE, now - 21 * MINUTE, False, True]
    assert found["OKUSDT"][:4] == [now - MINUTE, now - MINUTE, False, False]
    assert 900 <= found["LATEUSDT"][4] < 1500
    assert found["HISTORY"][2] is False


def test_gaps_show_how_long_they_were_open(health: Any) -> None:
    found = rows(
        health,
        "SELECT symbol, cause, missed_minutes, is_open, is_overdue, open_for > interval '45 min'"
        " FROM marts.health_gaps ORDER BY symbol",
    )
    assert found == [
        ("GAPUSDT", "cut", 2, True, True, True),
        ("HISTORY", "cut", 7, False, False, False),
    ]


def test_verdicts_and_rules_have_one_row_per_day(health: Any, now: datetime) -> None:
    assert rows(
        health,
        "SELECT day, symbols, agreeing_symbols, differing_symbols, daily_differing_minutes,"
        " symbols_that_differ FROM marts.health_verdicts",
    ) == [(now.date(), 2, 1, 1, 2, ["HISTORY"])]
    assert rows(
        health,
        "SELECT check_name, sum(runs), sum(failed_runs), max(most_failing_rows)"
        " FROM marts.health_quality GROUP BY check_name ORDER BY check_name",
    ) == [("high_is_fine", 1, 0, 0), ("prices_are_positive", 2, 1, 1)]


COUNTED = ("int_health__hours", "int_health__days")


def counted(market: Any, table: str) -> list[tuple[Any, ...]]:
    return rows(
        market,
        "SELECT symbol, open_time, present_minutes, verified_minutes, unconfirmed_minutes,"  # noqa: S608
        " partial_minutes, silent_minutes, revised_minutes, first_minute, newest_minute,"
        f" newest_verified_minute FROM marts.{table} ORDER BY 1, 2",
    )


def written(market: Any, table: str) -> set[tuple[Any, ...]]:
    return set(rows(market, f"SELECT symbol, open_time, xmin::text FROM marts.{table}"))  # noqa: S608


def test_only_changed_hours_are_recounted_including_status_changes(
    health: Any, shared_dbt: Any
) -> None:
    before = {table: written(health, table) for table in COUNTED}
    # A repair that changes only the status does not rebuild bars.
    health.connection.execute(
        "UPDATE market.candles_1m SET status = 'verified', source = 'rest', source_rank = 80,"
        " evidence_at = now() WHERE symbol = 'HISTORY' AND open_time = '2025-03-04 00:00Z'"
    )
    log = "SELECT count(*) FROM ops.candle_changes WHERE symbol = 'HISTORY'"
    unseen = rows(health, log)
    health.write("HISTORY", LONG_AGO + 2 * DAY + timedelta(hours=7), 1)
    health.delete("HISTORY", LONG_AGO + 3 * DAY, 5)
    assert rows(health, log)[0][0] == unseen[0][0] + 2

    shared_dbt("run", "--select", "int_health__hours", "int_health__days")

    rewritten = {
        table: {key[1] for key in before[table] ^ written(health, table)} for table in COUNTED
    }
    assert rewritten == {
        "int_health__hours": {
            LONG_AGO + DAY,
            LONG_AGO + 2 * DAY + timedelta(hours=7),
            LONG_AGO + 3 * DAY,
        },
        "int_health__days": {LONG_AGO + DAY, LONG_AGO + 2 * DAY, LONG_AGO + 3 * DAY},
    }
    found = rows(
        health,
        f"SELECT {COUNTS} FROM marts.health_coverage"  # noqa: S608
        " WHERE symbol = 'HISTORY' ORDER BY day",
    )
    assert [row[:5] for row in found] == [
        (date(2025, 3, 3), 10, 10, 10, 0),
        (date(2025, 3, 4), 1440, 20, 18, 1),
        (date(2025, 3, 5), 421, 1, 1, 0),
    ]
    incremental = {table: counted(health, table) for table in COUNTED}
    shared_dbt("run", "--select", "int_health__hours", "int_health__days", "--full-refresh")
    assert {table: counted(health, table) for table in COUNTED} == incremental
    # Changes that every cursor has seen are pruned.
    assert rows(health, "SELECT count(*) FROM ops.status_changes") == [(0,)]


# Last, because it damages rows that other tests read.
@pytest.mark.parametrize(
    ("damage", "test"),
    [
        ("verified_minutes = verified_minutes + 1", "int_health__days_keeps_identities"),
        ("silent_minutes = 1 - silent_minutes", "int_health__days_equal_their_hours"),
    ],
)
def test_wrong_counts_fail_their_data_test(
    health: Any, shared_dbt: Any, damage: str, test: str
) -> None:
    with psycopg.connect(health.url) as connection:
        connection.execute(
            f"UPDATE marts.int_health__days SET {damage} WHERE symbol = 'OKUSDT'"  # noqa: S608
        )
    result = shared_dbt.attempt("test", "--select", test)
    assert {r.node.name: r.status for r in result.result}[test] == "fail"
    shared_dbt("run", "--select", "int_health__days", "--full-refresh")


def test_dead_stream_stays_late_unless_its_market_continues(health: Any, now: datetime) -> None:
    streamed = (
        "SELECT symbol, is_streamed FROM marts.int_health__symbols"
        " WHERE symbol IN ('LATEUSDT', 'OKUSDT') ORDER BY symbol"
    )
    status = "SELECT status, needs_attention FROM marts.health_overview WHERE symbol = 'LATEUSDT'"
    earlier = "UPDATE ops.coverage SET day = day - 30, minutes = '{}' WHERE symbol %s 'LATEUSDT'"
    with health.connection.transaction(force_rollback=True):
        health.connection.execute(earlier % "=")
        assert rows(health, streamed) == [("LATEUSDT", False), ("OKUSDT", True)]
        ended = rows(health, status + " AND what_to_do LIKE 'streamed until %, its market%'")
        assert ended == [("stream ended", False)]
        health.connection.execute(earlier % "<>")
        assert rows(health, streamed) == [("LATEUSDT", True), ("OKUSDT", True)]
        assert rows(health, status) == [("late", True)]
