"""Checking the minutes of a window: the unit of work behind the DAG and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from include.config import Settings

if TYPE_CHECKING:
    from include.quality.report import QualityReport


def check_quality(
    *,
    settings: Settings,
    start: datetime,
    end: datetime,
    run_id: str,
    symbols: Sequence[str] | None = None,
) -> QualityReport:
    """Check ``market.candles_1m`` from ``start`` up to but without ``end``.

    Raises:
        PermanentError: rules are broken; the message names them and rows that break them.
        TransientError: the database is away.
    """
    # Great Expectations takes two seconds to import.
    from include.quality.run import run_checks

    report = run_checks(
        settings.url_for("jobs"), start=start, end=end, run_id=run_id, symbols=symbols
    )
    report.raise_for_failures()
    return report
