from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.errors import PermanentError
from include.quality.report import CheckResult, FailingRow, QualityReport

START = datetime(2025, 3, 1, 10, 0, tzinfo=UTC)


def report(*results: CheckResult) -> QualityReport:
    return QualityReport("nightly", START, START + timedelta(hours=1), results)


def rows(count: int) -> tuple[FailingRow, ...]:
    return tuple(
        FailingRow("BTCUSDT", START + timedelta(minutes=n), f"low is -{n}") for n in range(count)
    )


def test_kept_rules_raise_nothing() -> None:
    kept = report(CheckResult("prices_are_positive", "prices are above zero", 0, ()))
    assert kept.success
    kept.raise_for_failures()


def test_a_broken_rule_is_named_with_its_window_and_rows() -> None:
    broken = report(
        CheckResult("minutes_are_unique", "one row for a minute", 0, ()),
        CheckResult("prices_are_positive", "prices are above zero", 2, rows(2)),
    )
    with pytest.raises(PermanentError) as info:
        broken.raise_for_failures()
    assert str(info.value) == (
        "market.candles_1m from 2025-03-01 10:00 to 2025-03-01 11:00 UTC breaks 1 of 2 rules; all "
        "rows are in ops.quality_results under run_id 'nightly':\n"
        "  prices_are_positive (prices are above zero): BTCUSDT 2025-03-01 10:00:00 (low is -0); "
        "BTCUSDT 2025-03-01 10:01:00 (low is -1)"
    )


def test_a_message_names_five_rows_and_counts_the_rest() -> None:
    message = str(CheckResult("prices_are_positive", "prices are above zero", 300, rows(200)))
    assert message.count("BTCUSDT") == 5
    assert message.endswith("and 295 more")


def test_a_row_without_a_time_can_be_named() -> None:
    assert str(FailingRow(None, None, "symbol is null")) == "None no time (symbol is null)"
