"""What needs attention in the database's state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.config import load_settings
from include.errors import PermanentError
from include.jobs.status import (
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
