"""Running the rules over a window of ``market.candles_1m`` with Great Expectations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import great_expectations as gx
import psycopg
import structlog
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from psycopg import sql

from include.errors import CandelabraError, PermanentError, TransientError
from include.quality.checks import CHECKS, VOCABULARY, Check
from include.quality.expectation import expectation_of
from include.quality.report import CheckResult, FailingRow, QualityReport
from include.store.ledgers import QualityResult, record_quality_results
from include.store.pools import connect, redact, translated

log = structlog.get_logger(__name__)

STALE_AFTER = timedelta(minutes=10)
"""How long before the window's end a trading symbol may have its last row."""

SETTLED_AFTER = timedelta(minutes=10)
"""How long before the window's end a hole must have ended: a younger one is the streamer's."""

STALE_LOOKBACK = timedelta(days=1)
"""How long before the window a symbol without rows in it still counts as ours."""

STATEMENT_TIMEOUT_S = 600
"""Longest time one rule may take."""

# A loose index scan: the condition on open_time alone would read whole months.
_SYMBOLS = """
WITH RECURSIVE seen (symbol) AS (
    (
        SELECT symbol FROM market.candles_1m
        WHERE open_time >= %(since)s AND open_time < %(end)s
        ORDER BY symbol LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT candles.symbol FROM market.candles_1m AS candles
        WHERE
            candles.symbol > seen.symbol
            AND candles.open_time >= %(since)s AND candles.open_time < %(end)s
        ORDER BY candles.symbol LIMIT 1
    )
    FROM seen WHERE seen.symbol IS NOT NULL
)
SELECT symbol FROM seen WHERE symbol IS NOT NULL
"""


def run_checks(
    database_url: str,
    *,
    start: datetime,
    end: datetime,
    run_id: str,
    symbols: Sequence[str] | None = None,
    stale_after: timedelta = STALE_AFTER,
) -> QualityReport:
    """Check the minutes from ``start`` up to but without ``end`` and record what was found.

    Every rule's result goes to ``ops.quality_results``; a repeated ``run_id`` replaces them.

    Args:
        database_url: ``postgresql://`` URL; neither stored nor logged with its password.
        start: aware, on a full minute.
        end: aware, on a full minute, after ``start``.
        symbols: platform symbols; None takes all that have rows in the window or the day before.
        stale_after: how long before ``end`` a trading symbol may have its last row.

    Returns:
        The report; it does not raise for broken rules, its ``raise_for_failures`` does.

    Raises:
        TransientError: the database is away, or a rule took too long.
        PermanentError: the window is empty, or a rule could not be evaluated.
    """
    start, end = _full_minute("start", start), _full_minute("end", end)
    if start >= end:
        raise PermanentError(f"the window to check is empty: it starts {start} and ends {end}")
    with connect(database_url, application_name="candelabra-quality") as connection:
        if symbols is None:
            with translated(connection):
                found = connection.execute(_SYMBOLS, {"since": start - STALE_LOOKBACK, "end": end})
                symbols = [symbol for (symbol,) in found]
        results = _evaluate(database_url, start, end, list(symbols), stale_after)
        report = QualityReport(run_id, start, end, results)
        record_quality_results(
            connection, run_id, datetime.now(UTC), [_for_ledger(result) for result in results]
        )
    log.info(
        "quality_checked",
        run_id=run_id,
        start=start.isoformat(),
        end=end.isoformat(),
        symbols=len(symbols),
        broken=[result.name for result in report.failures],
    )
    return report


def _full_minute(name: str, moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise PermanentError(f"{name} {moment} has no time zone; give UTC explicitly")
    if moment.second or moment.microsecond:
        raise PermanentError(f"{name} {moment} is not a full minute")
    return moment.astimezone(UTC)


def _evaluate(
    database_url: str, start: datetime, end: datetime, symbols: list[str], stale_after: timedelta
) -> tuple[CheckResult, ...]:
    """Run every rule as an expectation of one suite over one batch."""
    values: dict[str, sql.Composable] = {
        **VOCABULARY,
        "start": sql.Literal(start),
        "end": sql.Literal(end),
        "symbols": _array(symbols),
        "lookback": sql.Literal(STALE_LOOKBACK),
        "settled_after": sql.Literal(SETTLED_AFTER),
        "stale_after": sql.Literal(stale_after),
    }
    window = sql.SQL(
        "SELECT * FROM market.candles_1m"
        " WHERE symbol = ANY ({symbols}) AND open_time >= {start} AND open_time < {end}"
    ).format(**values)
    suite = gx.ExpectationSuite(
        name="candles_1m", expectations=[expectation_of(check, values) for check in CHECKS]
    )
    # Ephemeral: on disk, the context would keep the URL with its password.
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_postgres(
        "candelabra",
        connection_string=_sqlalchemy_url(database_url),
        kwargs={  # type: ignore[call-arg]  # of SQLAlchemy's engine; the stub leaves it out
            "connect_args": {
                "application_name": "candelabra-quality",
                "options": f"-c TimeZone=UTC -c statement_timeout={STATEMENT_TIMEOUT_S}s",
            }
        },
    )
    try:
        asset = source.add_query_asset("candles_1m", query=window.as_string())
        batch = asset.add_batch_definition_whole_table("window").get_batch()
        validated = batch.validate(suite, result_format="COMPLETE")
    finally:
        source.get_execution_engine().close()
    by_name = {
        result.expectation_config.meta["check"]: result
        for result in validated.results
        if result.expectation_config and result.expectation_config.meta
    }
    return tuple(_result(check, by_name[check.name], database_url) for check in CHECKS)


def _array(texts: list[str]) -> sql.Composable:
    """A text array without braces, which Great Expectations would take for fields."""
    items = sql.SQL(", ").join(map(sql.Literal, texts))
    return sql.SQL("ARRAY[{}]::text[]").format(items)


def _sqlalchemy_url(database_url: str) -> str:
    return "postgresql+psycopg://" + database_url.split("://", 1)[1]


def _result(check: Check, result: ExpectationValidationResult, database_url: str) -> CheckResult:
    """What Great Expectations found; a query that failed is an error, not a broken rule."""
    problem = _exception_message(result.exception_info)
    if problem:
        raise _error_kind(problem)(
            f"rule {check.name} could not be evaluated on {redact(database_url)}: {problem}"
        )
    rows = result.result["details"]["unexpected_rows"]
    return CheckResult(
        check.name,
        check.rule,
        int(result.result["observed_value"]),
        tuple(FailingRow(row["symbol"], row["open_time"], row["detail"]) for row in rows),
    )


def _exception_message(info: Any) -> str | None:
    """The message of the exception that Great Expectations caught, if any.

    It reports one exception as {raised_exception, exception_message}, and several as such
    dictionaries by metric.
    """
    if not info:
        return None
    if "raised_exception" in info:
        if not info["raised_exception"]:
            return None
        # the lines that follow repeat the query
        return str(info["exception_message"]).splitlines()[0]
    messages = (_exception_message(one) for one in info.values())
    return "; ".join(message for message in messages if message) or None


def _error_kind(problem: str) -> type[CandelabraError]:
    """Whether a retry may help, by the driver's error that SQLAlchemy names in its message."""
    named = re.search(r"\(psycopg\.(?:errors\.)?(\w+)\)", problem)
    cause = getattr(psycopg.errors, named[1], getattr(psycopg, named[1], None)) if named else None
    if cause is not None and issubclass(cause, psycopg.OperationalError):
        return TransientError
    return PermanentError


def _for_ledger(result: CheckResult) -> QualityResult:
    return QualityResult(
        check_name=result.name,
        success=result.success,
        observed={"failing_count": result.failing_count, "rule": result.rule},
        failing_rows=[
            {
                "symbol": row.symbol,
                "open_time": row.minute.astimezone(UTC).isoformat() if row.minute else None,
                "detail": row.detail,
            }
            for row in result.failing_rows
        ],
    )
