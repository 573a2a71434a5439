"""Definition of a rule: a sentence, a severity, and the expectation that finds failing rows.

A query reads the batch's rows from ``{{batch}}`` and returns (symbol, open_time, detail), and also
``key`` if the time does not identify the row. ``psycopg.sql`` fills placeholders such as ``{end}``
first and turns the double braces into single ones, which Great Expectations fills. Queries must not
contain the word JOIN: Great Expectations would then drop the alias of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, LiteralString


class Severity(StrEnum):
    """Effect of a failed rule on the run."""

    ERROR = "error"
    """The run fails."""
    WARNING = "warning"
    """The result is recorded and shown, but the run does not fail."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule.

    Attributes:
        name: identifies it in ``ops.quality_results``.
        rule: sentence that is true of every valid row.
        query: selects failing rows; empty for a built-in expectation of Great Expectations.
        severity: whether a failing row fails the run.
        built_in: class name of the built-in expectation, such as ``ExpectColumnValuesToBeInSet``.
        arguments: its arguments.
    """

    name: str
    rule: str
    query: LiteralString = ""
    severity: Severity = Severity.ERROR
    built_in: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suite:
    """Rules about one batch.

    Attributes:
        name: of the suite, and of its page.
        relation: description of the checked rows.
        batch: SQL of the rows, with the same placeholders as the rules.
        checks: the rules, in the order of the report.
        key: columns that identify a row, for built-in expectations.
    """

    name: str
    relation: str
    batch: LiteralString
    checks: tuple[Check, ...]
    key: tuple[str, ...] = ()
