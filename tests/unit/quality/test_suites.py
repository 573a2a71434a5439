from __future__ import annotations

import re
from pathlib import Path

import pytest
from psycopg import sql

from include.quality import rules
from include.quality.check import Check, Severity
from include.quality.suites import CHECKS, SUITES

DOCUMENT = Path(__file__).parents[3] / "docs" / "quality.md"


def test_every_rule_is_documented_with_its_text_and_severity() -> None:
    text = DOCUMENT.read_text()
    for check in CHECKS:
        assert f"| `{check.name}` | {check.rule} | {check.severity.value} | " in text
    named = re.findall(r"^\| `(\w+)` \| .* \| (?:error|warning) \| .+ \|$", text, re.MULTILINE)
    assert named == [check.name for check in CHECKS]


def test_every_check_of_a_module_belongs_to_a_suite() -> None:
    """A check outside the tuple or suite of its module would never run."""
    written = {
        name
        for path in sorted(Path(rules.__path__[0]).glob("*.py"))
        for name in re.findall(r"Check\(\s*(?:name=)?\"(\w+)\"", path.read_text())
    }
    assert written == {check.name for check in CHECKS}


def test_names_of_rules_are_unique() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_rule_is_either_a_query_or_an_expectation(check: Check) -> None:
    assert bool(check.query) != bool(check.built_in)
    # seeing the word, Great Expectations drops the alias of the batch
    assert not re.search(r"\bjoin\b", check.query, re.IGNORECASE)
    assert not check.query or "{{batch}}" in check.query


def test_impossible_rows_are_errors_and_unlikely_ones_warnings() -> None:
    severities = {check.name: check.severity for check in CHECKS}
    assert severities["closes_do_not_jump"] is Severity.WARNING
    assert severities["symbols_are_not_stale"] is Severity.ERROR
    assert [name for name, one in severities.items() if one is Severity.WARNING] == [
        "rows_lie_outside_outages",
        "symbols_are_registered",
        "prices_lie_on_the_tick",
        "volumes_lie_on_the_step",
        "first_minutes_are_there",
        "closes_do_not_jump",
        "halts_are_recorded",
        "streams_do_not_end_alone",
        "registry_is_fresh",
        "gaps_are_repaired_in_time",
        "agreeing_days_still_agree",
    ]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_suite_names_rows_of_built_in_expectations(suite: object) -> None:
    batch = sql.SQL(suite.batch)  # type: ignore[attr-defined]
    assert "SELECT" in batch.as_string()
    if any(check.built_in for check in suite.checks):  # type: ignore[attr-defined]
        assert suite.key  # type: ignore[attr-defined]
