"""Each planted fault is refused by a constraint, or found by its own rule and by no other.

Those that can be stored are planted together, each in a symbol or market of its own, and one run
must distinguish them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.quality.check import Severity
from include.quality.report import QualityReport
from include.quality.run import run_checks
from include.quality.suites import CHECKS
from tests.integration.quality.markets import AT, END, MINUTE, START, broken, fill
from tests.integration.quality.planted import FAULTS, REFUSED, Fault

CLEAN = ["BTCUSDT", "BTCUSDT.P", "ETHUSDT"]
ENDINGS = {"spot": "USDT", "um": "USDT.P"}
NAMES = [
    f"F{number:03}{ENDINGS[fault.market]}" if fault.market in ENDINGS else ""
    for number, fault in enumerate(FAULTS)
]
"""Of the symbols with faults; empty: of a market."""


@pytest.fixture(scope="module")
def url(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    yield postgres.create_database("planted_faults", template=_template)
    postgres.drop_database("planted_faults")


@pytest.fixture(scope="module")
def market(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Symbols without faults, and those in which faults are planted."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        with_trades = [name for name, fault in zip(NAMES, FAULTS, strict=True) if fault.trades]
        fill(connection, [*CLEAN, *filter(None, NAMES)], with_trades=[*with_trades, "BTCUSDT"])
        yield connection


@pytest.fixture(scope="module")
def report(url: str, market: psycopg.Connection[Any]) -> QualityReport:
    """The report of one run over all faults, and symbols without any."""
    for name, fault in zip(NAMES, FAULTS, strict=True):
        arguments = {"symbol": name, "at": fault.at, "until": fault.at + 4 * MINUTE}
        for statement in fault.statements:
            assert market.execute(statement, arguments).rowcount > 0, (fault, statement)
    return run_checks(url, run_id="planted", start=START, end=END)


@pytest.mark.parametrize(("statement", "constraint"), REFUSED)
def test_constraint_refuses_a_malformed_row(
    market: psycopg.Connection[Any], statement: sql.Composed, constraint: str
) -> None:
    arguments = {"symbol": "BTCUSDT", "at": AT, "until": AT + 4 * MINUTE}
    with pytest.raises(psycopg.errors.IntegrityError) as refused:
        market.execute(statement, arguments)
    assert (refused.value.diag.constraint_name or "").endswith(constraint)
    if not constraint:
        assert isinstance(refused.value, psycopg.errors.NotNullViolation)


@pytest.mark.parametrize(
    ("name", "fault"),
    zip(NAMES, FAULTS, strict=True),
    ids=[f"{fault.rule}-{number}" for number, fault in enumerate(FAULTS)],
)
def test_planted_fault_is_found_only_by_its_rule(
    report: QualityReport, name: str, fault: Fault
) -> None:
    times = fault.times or (None,)
    assert broken(report, name) == {fault.rule: [(name or None, moment) for moment in times]}


@pytest.mark.parametrize("name", CLEAN)
def test_symbol_without_a_fault_breaks_no_rule(report: QualityReport, name: str) -> None:
    assert broken(report, name) == {}


def test_every_rule_has_a_fault_that_it_finds() -> None:
    assert {fault.rule for fault in FAULTS} == {check.name for check in CHECKS}


def test_every_failing_row_belongs_to_a_planted_fault(report: QualityReport) -> None:
    rows = [row for result in report.results for row in result.failing_rows]
    assert {row.symbol or "" for row in rows} == set(NAMES)


def test_warnings_alone_fail_nothing(report: QualityReport) -> None:
    warnings = {check.name for check in CHECKS if check.severity is Severity.WARNING}
    assert {result.name for result in report.warnings} == warnings
    assert not warnings & {result.name for result in report.failures}
    calm = dataclasses.replace(report, results=report.warnings)
    assert calm.success
    calm.raise_for_failures()
