from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cli.commands.check import _checked, as_mapping, minute_of, show
from include.errors import PermanentError
from include.quality.check import Severity
from include.quality.limits import ScopeKind
from include.quality.report import CheckResult, FailingRow, QualityReport

START = datetime(2026, 11, 1, tzinfo=UTC)
ROW = FailingRow("BTCUSDT", START, "12 minutes missing")
REPORT = QualityReport(
    "cli__1",
    ScopeKind.ALL,
    None,
    START,
    (
        CheckResult("candles", "no_minute_is_missing", "none", Severity.ERROR, 21, (ROW,) * 21),
        CheckResult("candles", "closes_do_not_jump", "none", Severity.WARNING, 1, (ROW,)),
        CheckResult("candles", "no_minute_is_missing", "one", Severity.ERROR, 0, ()),
    ),
    symbols=1,
    candles=1440,
)


@pytest.mark.parametrize(
    ("text", "minute"),
    [
        ("", None),
        ("2026-11-01", START),
        ("2026-11-01T02:00:30+02:00", START),
    ],
)
def test_time_is_a_full_minute_of_utc(text: str, minute: datetime | None) -> None:
    assert minute_of(text, name="--from") == minute


def test_unreadable_time_is_refused_with_its_option() -> None:
    with pytest.raises(PermanentError, match="--to 'yesterday': should be like 2026-11-01"):
        minute_of("yesterday", name="--to")


def test_text_output_shows_failed_rules_with_rows_and_counts() -> None:
    out = io.StringIO()
    show(REPORT, Console(file=out, width=200, color_system=None))
    lines = out.getvalue().splitlines()
    assert lines[0] == "error no_minute_is_missing: none"
    assert lines[1] == "  BTCUSDT 2026-11-01 00:00:00 (12 minutes missing)"
    assert lines[21] == "  and 1 more row"
    assert "warning closes_do_not_jump: none" in lines
    assert lines[-2] == (
        "3 rules over everything up to 2026-11-01 00:00 UTC: 1,440 candles of 1 symbol, 0 trades; "
        "1 error, 1 warning"
    )


def test_json_output_has_names_counts_and_rows() -> None:
    mapping = as_mapping(REPORT)
    assert mapping["success"] is False
    assert mapping["errors"] == {"no_minute_is_missing": 21}
    assert len(mapping["rows"]) == 22
    assert mapping["rows"][-1] == {
        "rule": "closes_do_not_jump", "severity": "warning", "symbol": "BTCUSDT",
        "time": "2026-11-01T00:00:00+00:00", "key": None, "detail": "12 minutes missing",
    }  # fmt: skip


def test_end_needs_a_start() -> None:
    with pytest.raises(PermanentError, match="--to needs --from"):
        _checked(everything=False, start="", end="2026-11-01", symbols="")
