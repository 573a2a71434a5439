"""What needs attention in the database's state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.config import load_settings
from include.errors import PermanentError
from include.jobs.status import (
    expected_of,
    findings_of,
    newest_revision,
    read_status,
    schema_findings,
    worst_first,
)
from include.store.ledgers.health import Health, HostWeight, NewestQualityRun, SymbolHealth

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def symbol(name: str = "BTCUSDT", **fields: object) -> SymbolHealth:
    well: dict[str, object] = {
        "minutes": 1440,
        "verified": 1440,
        "unconfirmed": 0,
        "partial": 0,
        "repaired": 0,
        "unsure": 0,
        "broken": 0,
        "is_streamed": True,
        "newest": NOW - timedelta(minutes=1, seconds=30),
        "behind_s": 30.0,
        "live_age_s": 0.2,
        "missing": 0,
        "overdue": 0,
        "gaps": 0,
        "overdue_gaps": 0,
        "discrepancies": 3,
    }
    return SymbolHealth(symbol=name, **(well | fields))  # type: ignore[arg-type]


def codes(*symbols: SymbolHealth, wanted: tuple[str, ...] = (), **ledgers: object) -> list[str]:
    parts = {"quality": None, "files": [], "weights": []} | ledgers
    health = Health(symbols=list(symbols), **parts)  # type: ignore[arg-type]
    return [finding.code for finding in findings_of(health, now=NOW, wanted=wanted)]


def test_complete_streamed_symbols_are_well() -> None:
    assert codes(symbol(), symbol("ETHUSDT")) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"behind_s": 181.0}, "behind"),
        ({"missing": 3, "overdue": 1}, "missing"),
        ({"unconfirmed": 2, "unsure": 2}, "not_confirmed"),
        ({"broken": 1}, "ids_break"),
        ({"gaps": 1, "overdue_gaps": 1}, "gaps"),
    ],
)
def test_lasting_trouble_is_reported_with_its_symbol(fields: dict[str, object], code: str) -> None:
    assert codes(symbol(), symbol("ETHUSDT", **fields)) == [code]


@pytest.mark.parametrize(
    "fields", [{"missing": 3}, {"unconfirmed": 2}, {"partial": 1}, {"gaps": 1}, {"behind_s": 179.0}]
)
def test_work_in_progress_of_the_streamer_is_no_trouble(fields: dict[str, object]) -> None:
    assert codes(symbol(**fields)) == []


def minutes_ago(number: float) -> datetime:
    return NOW - timedelta(minutes=number)


def unfinished(*symbols: SymbolHealth, up_since: datetime | None, **ledgers: Any) -> list[str]:
    """Findings of a state, or messages of what is expected if there are none."""
    health = Health(
        symbols=list(symbols), **({"quality": None, "files": [], "weights": []} | ledgers)
    )
    found = findings_of(health, now=NOW, up_since=up_since)
    return [one.code for one in found] or [
        one.message for one in expected_of(health, now=NOW, up_since=up_since)
    ]


def test_start_is_no_trouble_for_three_minutes() -> None:
    assert unfinished(up_since=minutes_ago(0.1)) == ["starting: no streamer has written yet"]
    assert unfinished(up_since=minutes_ago(4)) == ["no_streamer"]
    first = symbol(newest=None, behind_s=None, oldest_live=minutes_ago(0.3))
    told = ["starting: no minute has closed yet: BTCUSDT"]
    assert unfinished(first, up_since=minutes_ago(0.5)) == told
    # a new streamer on an old server, after a stop of hours
    again = symbol(newest=minutes_ago(300), behind_s=18_000.0, oldest_live=minutes_ago(0.3))
    assert unfinished(again, up_since=minutes_ago(9_999)) == told
    # open candles are written, but no minute is stored
    stuck = symbol(newest=None, behind_s=None, oldest_live=minutes_ago(4.1))
    assert unfinished(stuck, up_since=minutes_ago(5)) == ["behind"]
    # the streamer has written nothing since the server started
    silent = symbol(newest=minutes_ago(300), behind_s=18_000.0)
    assert unfinished(silent, up_since=minutes_ago(2)) == told
    assert unfinished(silent, up_since=minutes_ago(4)) == ["behind"]


def test_minutes_that_history_still_lacks_are_told_while_it_loads() -> None:
    lacking = symbol(missing=1_439)
    both = (lacking, symbol("ETHBTC", missing=1_439, overdue=1_439))
    assert unfinished(lacking, up_since=None) == [
        "1,439 minutes missing, for less than 10 minutes so far: BTCUSDT"
    ]
    assert unfinished(*both, up_since=None, klines_loaded_at=minutes_ago(1)) == [
        "history is loading, 2,878 minutes missing so far: BTCUSDT, ETHBTC"
    ]
    assert unfinished(*both, up_since=None, klines_loaded_at=minutes_ago(3)) == ["missing"]


def test_finished_platform_has_nothing_to_expect() -> None:
    assert unfinished(symbol(), up_since=minutes_ago(1), klines_loaded_at=minutes_ago(1)) == []


def test_unstreamed_history_may_end_anywhere() -> None:
    old = symbol("OLDUSDT", is_streamed=False, behind_s=1e6, overdue=5, unsure=5)
    assert codes(symbol(), old) == []


def test_missing_streamer_is_reported() -> None:
    assert codes() == ["no_streamer"]
    assert codes(symbol(is_streamed=False)) == ["no_streamer"]


def test_requested_symbol_must_have_candles() -> None:
    absent = symbol("NOUSDT", is_streamed=False, newest=None, behind_s=None)
    assert codes(absent, wanted=("NOUSDT",)) == ["no_candles"]


def test_failed_checks_and_rate_limits_are_reported() -> None:
    broken = NewestQualityRun("run", NOW, checks=9, broken=["one_row_a_minute"])
    silent = HostWeight("api.test", 10, NOW + timedelta(seconds=90))
    assert codes(symbol(), quality=broken, weights=[silent]) == ["quality", "rate_limited"]
    assert codes(symbol(), quality=NewestQualityRun("run", NOW, 9, None)) == []


def test_many_symbols_are_one_finding_that_names_the_first() -> None:
    health = Health([symbol(f"S{n}", behind_s=999.0) for n in range(9)], None, [], [])
    (finding,) = findings_of(health, now=NOW)
    assert finding.message.endswith("S0, S1, S2, S3, S4 and 4 more")
    assert len(finding.symbols) == 9


@pytest.mark.parametrize(
    ("revision", "code"),
    [(None, "not_migrated"), ("0001", "migrations_pending"), ("0099", "schema_too_new")],
)
def test_schema_of_another_version_is_reported(revision: str | None, code: str) -> None:
    assert [finding.code for finding in schema_findings(revision, "0002")] == [code]


def test_current_schema_is_well() -> None:
    assert schema_findings(newest_revision(), newest_revision()) == []


def test_symbols_in_trouble_come_first_and_unstreamed_ones_last() -> None:
    ranked = worst_first(
        [
            symbol("A"),
            symbol("B", is_streamed=False, behind_s=1e9),
            symbol("C", unconfirmed=1),
            symbol("D", overdue=1),
            symbol("E", behind_s=500.0),
        ]
    )
    assert [one.symbol for one in ranked] == ["E", "D", "C", "A", "B"]


def test_window_of_months_is_refused() -> None:
    with pytest.raises(PermanentError, match="32 days back; it must be 1 minute to 31 days"):
        read_status(settings=load_settings(), window=timedelta(days=32))
