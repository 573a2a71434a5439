from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.errors import PermanentError
from include.quality.check import Severity
from include.quality.limits import ScopeKind
from include.quality.report import CheckResult, FailingRow, QualityReport

START = datetime(2025, 3, 1, 10, 0, tzinfo=UTC)


def report(*results: CheckResult) -> QualityReport:
    return QualityReport(
        "nightly", ScopeKind.WINDOW, START, START + timedelta(hours=1), tuple(results)
    )


def result(
    name: str,
    rule: str,
    count: int,
    rows: tuple[FailingRow, ...] = (),
    severity: Severity = Severity.ERROR,
) -> CheckResult:
    return CheckResult("candles", name, rule, severity, count, rows)


def rows(count: int) -> tuple[FailingRow, ...]:
    return tuple(
        FailingRow("BTCUSDT", START + timedelta(minutes=n), f"low is -{n}") for n in range(count)
    )


def test_passed_rules_raise_nothing() -> None:
    kept = report(result("prices_are_positive", "prices are above zero", 0))
    assert kept.success
    kept.raise_for_failures()


def test_failed_rule_is_named_with_its_window_and_rows() -> None:
    broken = report(
        result("no_minute_is_missing", "one row for a minute", 0),
        result("prices_are_positive", "prices are above zero", 2, rows(2)),
    )
    with pytest.raises(PermanentError) as info:
        broken.raise_for_failures()
    assert str(info.value) == (
        "from 2025-03-01 10:00 to 2025-03-01 11:00 UTC 1 of 2 rules are broken; all rows are in "
        "ops.quality_failures under run_id 'nightly':\n"
        "  prices_are_positive (prices are above zero): BTCUSDT 2025-03-01 10:00:00 (low is -0); "
        "BTCUSDT 2025-03-01 10:01:00 (low is -1)"
    )


def test_message_names_five_rows_and_counts_the_rest() -> None:
    message = str(result("prices_are_positive", "prices are above zero", 300, rows(200)))
    assert message.count("BTCUSDT") == 5
    assert message.endswith("and 295 more")


def test_row_without_a_time_can_be_named() -> None:
    assert str(FailingRow(None, None, "symbol is null")) == "no time (symbol is null)"


def test_row_can_be_named_by_its_key() -> None:
    assert str(FailingRow("A", START, "price is 0", "trades 7")) == (
        "A 2025-03-01 10:00:00 trades 7 (price is 0)"
    )
    assert str(FailingRow(None, START, "31 minutes", "um")) == "2025-03-01 10:00:00 um (31 minutes)"


def test_warning_is_reported_without_failing() -> None:
    warned = report(result("closes_do_not_jump", "no jumps", 2, rows(2), Severity.WARNING))
    assert warned.success
    assert [one.name for one in warned.warnings] == ["closes_do_not_jump"]
    warned.raise_for_failures()
    assert warned.summary["warnings"] == {"closes_do_not_jump": 2}
    assert warned.summary["errors"] == {}


def test_row_in_two_parts_counts_once() -> None:
    first = result("prices", "above zero", 3, rows(3))
    second = result("prices", "above zero", 10, rows(5)[2:])
    together = first.with_more(second, max_rows=4)
    assert (together.failing_count, together.failing_rows) == (12, rows(4))


@pytest.mark.parametrize(
    ("scope", "start", "words"),
    [
        (ScopeKind.ALL, None, "everything up to 2025-03-01 11:00 UTC"),
        (ScopeKind.CHANGED, START, "changes from 2025-03-01 10:00 to 2025-03-01 11:00 UTC"),
        (ScopeKind.WINDOW, START, "from 2025-03-01 10:00 to 2025-03-01 11:00 UTC"),
    ],
)
def test_report_describes_its_scope(scope: ScopeKind, start: datetime | None, words: str) -> None:
    assert QualityReport("r", scope, start, START + timedelta(hours=1), ()).checked_period == words
