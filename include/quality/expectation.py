"""Translate rules to expectations, and results of Great Expectations back."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import great_expectations.expectations as built_in
import psycopg
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.expectations.core.unexpected_rows_expectation import (
    UnexpectedRowsExpectation,
)
from great_expectations.expectations.expectation import Expectation
from great_expectations.render.components import (
    CollapseContent,
    LegacyDiagnosticRendererType,
    RenderedTableContent,
)
from great_expectations.render.renderer.renderer import renderer
from psycopg import sql

from include.errors import CandelabraError, PermanentError, TransientError
from include.quality.check import Check, Severity, Suite
from include.quality.open_faults import MAX_SPANS, united
from include.quality.report import CheckResult, FailingRow

if TYPE_CHECKING:
    from great_expectations.execution_engine.execution_engine import ExecutionEngine
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

MAX_ROWS = 200
"""Maximum stored rows of a failed rule; Great Expectations fetches no more per query."""

# The first row of each symbol comes first, so that no symbol hides the others. The first row has
# the spans of all failing rows.
_COUNTED = sql.SQL("""
    SELECT
        placed.*,
        CASE WHEN row_number() OVER (ORDER BY place, symbol, open_time, detail) = 1
            THEN (
                SELECT jsonb_object_agg(faults.symbol, faults.spans) FROM (
                    SELECT spans.symbol, jsonb_agg(spans.span ORDER BY spans.span) AS spans FROM (
                        SELECT
                            united.symbol,
                            jsonb_build_array(
                                floor(extract(epoch FROM lower(united.span)))::bigint,
                                ceil(extract(epoch FROM upper(united.span)))::bigint
                            ) AS span
                        FROM (
                            SELECT
                                every.symbol,
                                unnest(CASE WHEN count(DISTINCT every.open_time) > {max_spans}
                                    THEN multirange(range_merge(range_agg(every.span)))
                                    ELSE range_agg(every.span)
                                END) AS span
                            FROM (
                                SELECT
                                    symbol, open_time,
                                    tstzrange(open_time, open_time + interval '1 minute') AS span
                                FROM breaking
                                WHERE symbol IS NOT NULL AND isfinite(open_time)
                            ) AS every
                            GROUP BY every.symbol
                        ) AS united
                    ) AS spans
                    GROUP BY spans.symbol
                ) AS faults
            )
        END AS open_spans
    FROM (
        SELECT
            breaking.*,
            count(*) OVER () AS failing_count,
            row_number() OVER (PARTITION BY symbol ORDER BY open_time, detail) AS place
        FROM breaking
    ) AS placed
    ORDER BY place, symbol, open_time, detail LIMIT {most}
""")


class ExpectRowsToKeepRule(UnexpectedRowsExpectation):
    """Returns the failing rows of a rule and their number, from one pass over the batch.

    Great Expectations itself would run the query a second time to count. It fetches at most 200
    rows.
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

    @classmethod
    @renderer(renderer_type=LegacyDiagnosticRendererType.UNEXPECTED_TABLE)
    def _diagnostic_unexpected_table_renderer(
        cls,
        configuration: ExpectationConfiguration | None = None,
        result: ExpectationValidationResult | None = None,
        runtime_configuration: dict[str, Any] | None = None,
    ) -> list[RenderedTableContent | CollapseContent] | None:
        """Render the failing rows."""
        rows = result.result.get("details", {}).get("unexpected_rows", []) if result else []
        if not rows:
            return None
        return [
            RenderedTableContent(
                content_block_type="table",
                header_row=["symbol", "time", "key", "detail"],
                table=[
                    [row.symbol or "", str(row.minute or ""), row.key or "", row.detail]
                    for row in map(_failing_row, rows)
                ],
                styling={"body": {"classes": ["table-bordered", "table-sm", "mt-3"]}},
            )
        ]


def expectation_of(check: Check, values: dict[str, sql.Composable]) -> Expectation:
    """Return the expectation that a rule passes.

    Args:
        values: values for the placeholders of the rule's query.
    """
    common: dict[str, Any] = {
        "description": f"{check.name} ({check.severity.value}): {check.rule}",
        "severity": "critical" if check.severity is Severity.ERROR else "warning",
        "meta": {"check": check.name},
    }
    if check.built_in:
        expectation: Expectation = getattr(built_in, check.built_in)(**check.arguments, **common)
        return expectation
    query = sql.SQL(check.query).format(batch=sql.SQL("{batch}"), **values)
    counted = sql.SQL("WITH breaking AS ({query}) {counted}").format(
        query=query,
        counted=_COUNTED.format(most=sql.Literal(MAX_ROWS), max_spans=sql.Literal(MAX_SPANS)),
    )
    return ExpectRowsToKeepRule(unexpected_rows_query=counted.as_string(), **common)


def result_of(
    suite: Suite, check: Check, result: ExpectationValidationResult, where: str
) -> CheckResult:
    """Convert Great Expectations' result; a failed query raises and is not a failed rule.

    Args:
        where: the database, for the message.

    Raises:
        TransientError, PermanentError: the rule could not be evaluated.
    """
    problem = _exception_message(result.exception_info)
    if problem:
        raise _error_kind(problem)(
            f"rule {check.name} could not be evaluated on {where}: {problem}"
        )
    found = result.result
    if check.built_in:
        every = [
            _unexpected_row(suite, check, row) for row in found.get("unexpected_index_list") or []
        ]
        spans = united(*map(_span_of, every))
        rows = tuple(every[:MAX_ROWS])
        count = int(found.get("unexpected_count") or 0)
    else:
        unexpected = found["details"]["unexpected_rows"]
        open_spans = (unexpected[0]["open_spans"] if unexpected else None) or {}
        spans = united(
            {symbol: [(begin, end) for begin, end in open_spans[symbol]] for symbol in open_spans}
        )
        rows = tuple(map(_failing_row, unexpected))
        count = int(found["observed_value"])
    return CheckResult(suite.name, check.name, check.rule, check.severity, count, rows, spans)


def _span_of(row: FailingRow) -> dict[str, list[tuple[int, int]]]:
    if row.symbol is None or row.minute is None:
        return {}
    begin = math.floor(row.minute.timestamp())
    return {row.symbol: [(begin, begin + 60)]}


def _failing_row(row: dict[str, Any]) -> FailingRow:
    return FailingRow(row["symbol"], row["open_time"], row["detail"], row.get("key"))


def _unexpected_row(suite: Suite, check: Check, row: dict[str, Any]) -> FailingRow:
    """Return a failing row of a built-in expectation, identified by key and value."""
    moments = [value for name, value in row.items() if name in suite.key and _is_time(value)]
    names = [
        str(row[name]) for name in suite.key if name != "symbol" and not _is_time(row.get(name))
    ]
    columns = [name for key, name in check.arguments.items() if key.startswith("column")]
    detail = ", ".join(f"{name} is {row.get(name)}" for name in columns)
    return FailingRow(
        row.get("symbol"), moments[0] if moments else None, detail, " ".join(names) or None
    )


def _is_time(value: object) -> bool:
    return isinstance(value, datetime)


def _exception_message(info: Any) -> str | None:
    """Return the message of the exception that Great Expectations caught, if any.

    It reports one exception as {raised_exception, exception_message}, and several as such
    dictionaries by metric.
    """
    if not info:
        return None
    if "raised_exception" in info:
        if not info["raised_exception"]:
            return None
        # the following lines repeat the query
        return str(info["exception_message"]).splitlines()[0]
    messages = (_exception_message(one) for one in info.values())
    return "; ".join(message for message in messages if message) or None


def _error_kind(problem: str) -> type[CandelabraError]:
    """Return the error class: whether a retry may help, by the driver's error in SQLAlchemy's
    message."""
    named = re.search(r"\(psycopg\.(?:errors\.)?(\w+)\)", problem)
    cause = getattr(psycopg.errors, named[1], getattr(psycopg, named[1], None)) if named else None
    if cause is not None and issubclass(cause, psycopg.OperationalError):
        return TransientError
    return PermanentError
