"""Run the suites with Great Expectations and store the results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import great_expectations as gx
import structlog
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from psycopg import sql

from include.errors import PermanentError
from include.quality.check import Suite
from include.quality.data_docs import write_data_docs
from include.quality.expectation import MAX_ROWS, expectation_of, result_of
from include.quality.limits import Limits, ScopeKind
from include.quality.report import CheckResult, QualityReport
from include.quality.rules.candles import VOCABULARY
from include.quality.scope import Scope, load_candles, prepare
from include.quality.session import CheckSession, composed
from include.quality.suites import SUITES
from include.quality.trade_scope import chunks_of, load_trades
from include.store.ledgers.files import QualityResult
from include.store.ledgers.quality_runs import QualityRun, record_quality_run
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

Values = dict[str, sql.Composable]


def run_checks(
    database_url: str,
    *,
    run_id: str,
    scope: ScopeKind = ScopeKind.WINDOW,
    start: datetime | None = None,
    end: datetime | None = None,
    symbols: Sequence[str] | None = None,
    limits: Limits | None = None,
    docs_folder: Path | None = None,
) -> QualityReport:
    """Check the stored rows against every rule and record the results.

    Every rule's result is stored in ``ops.quality_results``; a repeated ``run_id`` replaces it.

    Args:
        database_url: ``postgresql://`` URL; its password is neither stored nor logged.
        scope: rows changed since the last such run (all if there was none), all rows, or a window.
        start: of a window: aware, on a full minute.
        end: exclusive end of the checked minutes; aware, on a full minute. None: the database's
            clock.
        symbols: platform symbols whose candles and trades are checked; None: all.
        limits: of the rules.
        docs_folder: target of the Data Docs pages; None: no pages.

    Returns:
        The report; failed rules do not raise, its ``raise_for_failures`` does.

    Raises:
        TransientError: the database is away, or a rule took too long.
        PermanentError: the window is empty, or a rule could not be evaluated.
    """
    _check_window(scope, start, end)
    began_s = time.monotonic()
    limits = limits or Limits()
    # Connect first: our connection errors are clearer than SQLAlchemy's.
    with (
        connect(database_url, application_name="candelabra-quality") as connection,
        CheckSession(database_url) as session,
    ):
        found, values = prepare(
            session, scope, limits=limits, start=start, end=end, symbols=symbols
        )
        run = _Run(session, found, VOCABULARY | values)
        results = run.everything()
        report = QualityReport(
            run_id, found.kind, found.start, found.end, results,
            symbols=found.symbols, candles=run.candles, trades=run.trades,
        )  # fmt: skip
        took_ms = round((time.monotonic() - began_s) * 1000)
        advances = scope is ScopeKind.CHANGED and symbols is None
        # A run for some symbols must not be recorded as a run for all.
        recorded = found.kind if symbols is None else ScopeKind.WINDOW
        record_quality_run(
            connection,
            QualityRun(
                run_id, datetime.now(UTC), recorded.value, found.start, found.end,
                report.success, report.symbols, report.candles, report.trades, took_ms,
                found.snapshot if advances else None,
            ),
            map(_for_ledger, results),
        )  # fmt: skip
        if docs_folder is not None:
            write_data_docs(session.context, docs_folder, report, run.validated)
    log.info(
        "quality_checked",
        run_id=run_id,
        scope=report.scope.value,
        end=report.end.isoformat(),
        symbols=report.symbols,
        candles=report.candles,
        trades=report.trades,
        broken=[result.name for result in report.failures],
        warnings=[result.name for result in report.warnings],
        took_ms=took_ms,
    )
    return report


def _check_window(scope: ScopeKind, start: datetime | None, end: datetime | None) -> None:
    for name, moment in (("start", start), ("end", end)):
        if moment is None:
            continue
        if moment.tzinfo is None:
            raise PermanentError(f"{name} {moment} has no time zone; give UTC explicitly")
        if moment.second or moment.microsecond:
            raise PermanentError(f"{name} {moment} is not a full minute")
    if scope is ScopeKind.WINDOW:
        if start is None:
            raise PermanentError("a window to check needs its start")
        if end is not None and start >= end:
            raise PermanentError(f"the window to check is empty: it starts {start} and ends {end}")


class _Run:
    """One pass over the suites.

    Attributes:
        validated: Great Expectations' results by suite, with chunks combined.
        candles, trades: rows checked.
    """

    def __init__(self, session: CheckSession, scope: Scope, values: Values) -> None:
        self.session, self.scope, self.values = session, scope, values
        self.validated: dict[str, ExpectationSuiteValidationResult] = {}
        self.candles = self.trades = 0

    def everything(self) -> tuple[CheckResult, ...]:
        """Run all suites; large ones in chunks."""
        results: list[CheckResult] = []
        for suite in SUITES:
            together: list[CheckResult] = []
            for _ in self._chunks(suite):
                part = self._validate(suite)
                together = [
                    one.with_more(other, max_rows=MAX_ROWS)
                    for one, other in zip(together, part, strict=True)
                ] if together else part  # fmt: skip
            results += together
        return tuple(results)

    def _chunks(self, suite: Suite) -> Iterator[None]:
        """Load the suite's chunks, one after the other; at least one, even if empty."""
        if suite.name == "candles":
            for chunk in self.scope.chunks:
                self.candles += load_candles(self.session, chunk, self.values)
                yield
        elif suite.name == "trades":
            work = chunks_of(self.session, self.scope, self.values)
            for part in work:
                self.trades += load_trades(self.session, part)
                yield
            if not work:
                yield
        else:
            yield

    def _validate(self, suite: Suite) -> list[CheckResult]:
        """Run every rule as an expectation of one suite over one batch."""
        query = composed(suite.batch, self.values).as_string()
        name = f"{suite.name} {len(self.validated)}"
        asset = self.session.source.add_query_asset(name, query=query)
        batch = asset.add_batch_definition_whole_table("rows").get_batch()
        expectations = [expectation_of(check, self.values) for check in suite.checks]
        result = batch.validate(
            gx.ExpectationSuite(name=suite.name, expectations=expectations),
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": list(suite.key),
                "partial_unexpected_count": MAX_ROWS,
            },
        )
        self.session.source.delete_asset(name)
        by_name = {_name_of(one): one for one in result.results}
        found = [
            result_of(suite, check, by_name[check.name], self.session.where)
            for check in suite.checks
        ]
        self._store_result(suite, result)
        return found

    def _store_result(self, suite: Suite, result: ExpectationSuiteValidationResult) -> None:
        """Store the result for the pages: for each rule the first chunk that failed."""
        stored = self.validated.get(suite.name)
        if stored is None:
            self.validated[suite.name] = result
            return
        broken = {_name_of(one): one for one in result.results if not one.success}
        stored.results = [
            broken.get(_name_of(one), one) if one.success else one for one in stored.results
        ]
        stored.success = stored.success and result.success


def _name_of(result: ExpectationValidationResult) -> str:
    """Return the rule name of an expectation's result."""
    meta = (result.expectation_config.meta if result.expectation_config else None) or {}
    return str(meta["check"])


def _for_ledger(result: CheckResult) -> QualityResult:
    return QualityResult(
        check_name=result.name,
        success=result.success,
        severity=result.severity.value,
        suite=result.suite,
        failing_count=result.failing_count,
        observed={
            "failing_count": result.failing_count,
            "rule": result.rule,
            **({"open": result.open_spans} if result.open_spans else {}),
        },
        failing_rows=[
            {
                "symbol": row.symbol,
                "open_time": row.minute.astimezone(UTC).isoformat() if row.minute else None,
                "key": row.key,
                "detail": row.detail,
            }
            for row in result.failing_rows
        ],
    )
