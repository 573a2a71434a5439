"""A rule: a sentence, a severity, and the expectation that finds the rows that break it.

A query reads the batch's rows from ``{batch}`` and returns (symbol, open_time, detail), and ``key``
where time does not name the row. The braces of ``{end}`` and other values are filled by
``psycopg.sql``; those of the batch are doubled in the text, since Great Expectations fills them
later. No query contains the word for combining two tables: seeing it, Great Expectations would drop
the alias of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, LiteralString


class Severity(StrEnum):
    """Effect of a broken rule on the run."""

    ERROR = "error"
    """The run fails."""
    WARNING = "warning"
    """Recorded and shown, but the run does not fail."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule.

    Attributes:
        name: identifies it in ``ops.quality_results``.
        rule: what is true of every row, in words.
        query: rows that break it; empty for an expectation of Great Expectations' own.
        severity: whether a row that breaks it fails the run.
        built_in: name of that expectation's class, such as ``ExpectColumnValuesToBeInSet``.
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
        relation: what is checked, in words for people.
        batch: SQL of the rows; its fields are filled as those of the rules.
        checks: the rules, in the order of the report.
        key: columns that name a row, for expectations of Great Expectations' own.
    """

    name: str
    relation: str
    batch: LiteralString
    checks: tuple[Check, ...]
    key: tuple[str, ...] = ()
