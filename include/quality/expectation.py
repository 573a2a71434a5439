"""One expectation for every rule: its query finds no row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from great_expectations.expectations.core.unexpected_rows_expectation import (
    UnexpectedRowsExpectation,
)
from psycopg import sql

from include.quality.checks import Check

if TYPE_CHECKING:
    from great_expectations.execution_engine.execution_engine import ExecutionEngine

_COUNTED = sql.SQL(
    "SELECT breaking.*, count(*) OVER () AS failing_count FROM ({query}) AS breaking"
    " ORDER BY symbol, open_time, detail"
)


class ExpectRowsToKeepRule(UnexpectedRowsExpectation):
    """The rows that break a rule, and their number, from one pass over the batch.

    Great Expectations itself runs the query a second time to count. It fetches at most 200 rows.
    """

    metric_dependencies: ClassVar[tuple[str, ...]] = ("unexpected_rows_query.table",)

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any] | None = None,
        execution_engine: ExecutionEngine[Any] | None = None,
    ) -> dict[str, Any]:
        rows = metrics["unexpected_rows_query.table"]
        return {
            "success": not rows,
            "result": {
                "observed_value": rows[0]["failing_count"] if rows else 0,
                "details": {"unexpected_rows": rows},
            },
        }


def expectation_of(check: Check, values: dict[str, sql.Composable]) -> ExpectRowsToKeepRule:
    """The expectation that a rule is kept.

    Args:
        values: what the fields of the rule's query stand for.
    """
    query = sql.SQL(check.query).format(batch=sql.SQL("{batch}"), **values)
    return ExpectRowsToKeepRule(
        unexpected_rows_query=_COUNTED.format(query=query).as_string(),
        description=check.rule,
        meta={"check": check.name},
    )
