"""Check stored rows against the quality rules, for the DAG and the command."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict, Unpack

import structlog

from include.config import Settings
from include.errors import WrongValueError
from include.jobs.exchange import APPLICATION_NAME
from include.store.postgres.pools import connect, translated

if TYPE_CHECKING:
    from include.quality.report import QualityReport

log = structlog.get_logger(__name__)


class CheckArguments(TypedDict):
    """Arguments of ``check_rules``."""

    settings: Settings
    run_id: str
    scope: NotRequired[Literal["changed", "all", "window"]]
    start: NotRequired[datetime | None]
    end: NotRequired[datetime | None]
    symbols: NotRequired[Sequence[str] | None]


def check_rules(
    *,
    settings: Settings,
    run_id: str,
    scope: Literal["changed", "all", "window"] = "window",
    start: datetime | None = None,
    end: datetime | None = None,
    symbols: Sequence[str] | None = None,
) -> QualityReport:
    """Check rows changed since the last run, all rows, or a time range.

    Args:
        start, end: half-open range; ``end`` None is now.
        symbols: limits the check to candles and trades of these symbols; None: all.

    Returns:
        The report; failed rules do not raise.

    Raises:
        PermanentError: nothing is known of one of the symbols.
        TransientError: the database is away.
    """
    if symbols:
        _check_symbols(settings.url_for("jobs"), symbols)
    # Importing Great Expectations takes two seconds.
    from include.quality.limits import Limits, ScopeKind
    from include.quality.run import run_checks

    report = run_checks(
        settings.url_for("jobs"),
        run_id=run_id,
        scope=ScopeKind(scope),
        start=start,
        end=end,
        symbols=symbols,
        limits=Limits(
            stale_after=timedelta(minutes=settings.quality_stale_after_minutes),
            unverified_after=timedelta(minutes=settings.quality_unverified_after_minutes),
            jump_multiple=settings.quality_jump_multiple,
        ),
        docs_folder=settings.quality_docs,
    )
    for result in report.warnings:
        log.warning(
            "quality_warning",
            rule=result.name,
            rows=result.failing_count,
            first=[str(row) for row in result.failing_rows[:20]],
        )
    for result in report.failures:
        log.error(
            "quality_broken",
            rule=result.name,
            rows=result.failing_count,
            first=[str(row) for row in result.failing_rows[:20]],
        )
    return report


def _check_symbols(url: str, symbols: Sequence[str]) -> None:
    """Refuse symbols without candles and listing: a check of nothing would pass."""
    with connect(url, application_name=APPLICATION_NAME) as connection, translated(connection):
        rows = connection.execute(
            "SELECT symbol FROM market.instruments UNION SELECT ops.candle_symbols()"
        ).fetchall()
    known = {symbol for (symbol,) in rows}
    for symbol in symbols:
        if symbol not in known:
            near = difflib.get_close_matches(symbol, list(known), n=3, cutoff=0.6)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise WrongValueError(f"the database has no symbol {symbol!r}{hint}")


def check_quality(**arguments: Unpack[CheckArguments]) -> QualityReport:
    """Check like ``check_rules``, and raise if a rule of severity error fails.

    Raises:
        PermanentError: rules failed; the message names them and failing rows.
        TransientError: the database is away.
    """
    report = check_rules(**arguments)
    report.raise_for_failures()
    return report
