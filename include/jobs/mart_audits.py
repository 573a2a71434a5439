"""Compare the marts with the minutes, for the DAG ``audit_marts``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from include.config import Settings
from include.counts import counted
from include.errors import PermanentError
from include.jobs.exchange import APPLICATION_NAME
from include.store.candles.mart_audits import audit_month, has_audit, next_months
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

MAX_DURATION_S = 600.0
"""Duration of a run, after which the next one continues."""
MONTHS_AT_ONCE = 500
"""Months whose order is asked for at once."""
MAX_NAMED = 5
"""Bars that an error names; the log names all."""


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """What a run compared: months of symbols, and bars of them that differed."""

    months: int
    differing_bars: int


def audit_marts(
    *,
    settings: Settings,
    duration_s: float = MAX_DURATION_S,
    clock: Callable[[], float] = time.monotonic,
) -> AuditSummary:
    """Compare months of symbols in turns, until the time is up or every month had its turn.

    Minutes of differing bars are logged as changed, so the next build rebuilds their bars.

    Args:
        duration_s: seconds after which no further month is begun.
        clock: seconds that only grow.

    Raises:
        PermanentError: bars differed; the message names some of them.
        TransientError: the database is away.
    """
    end_s = clock() + duration_s
    months, differing = 0, Counter[str]()
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        if not has_audit(connection):
            log.info("marts_not_audited", reason="dbt has not built marts.differing_bars yet")
            return AuditSummary(0, 0)
        seen = set[object]()
        while clock() < end_s:
            turns = [
                turn for turn in next_months(connection, limit=MONTHS_AT_ONCE) if turn not in seen
            ]
            if not turns:
                break
            for symbol, month in turns:
                if clock() >= end_s:
                    break
                seen.add((symbol, month))
                months += 1
                for bar in audit_month(connection, symbol, month):
                    differing[f"{symbol} {bar.timeframe} {bar.open_time:%Y-%m-%dT%H:%MZ}"] += 1
                    log.warning(
                        "bar_differed",
                        symbol=symbol,
                        timeframe=bar.timeframe,
                        open_time=bar.open_time.isoformat(),
                        columns=bar.differing_columns,
                        stored=bar.stored,
                        expected=bar.expected,
                    )
    log.info("marts_audited", months=months, differing_bars=differing.total())
    if differing:
        named = ", ".join(list(differing)[:MAX_NAMED])
        raise PermanentError(
            f"{counted(differing.total(), 'bar')} of the marts differed from the stored minutes, "
            f"such as {named}: "
            "the next build_marts rebuilds them. Something changed marts or minutes without the "
            "change log: a change by hand, a restored table, or a disk fault"
        )
    return AuditSummary(months, 0)
