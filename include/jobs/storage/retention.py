"""The daily upkeep of storage: partitions ahead, old raw days to files, ledgers within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import structlog

from include.config import Settings
from include.jobs.exchange import APPLICATION_NAME
from include.jobs.storage.archive import ArchiveSummary, archive_days
from include.store.postgres.pools import connect
from include.store.storage.partitions import ensure_ahead
from include.store.storage.retention import prune_quality_results

log = structlog.get_logger(__name__)

MONTHS_AHEAD = 2
"""Months of candle partitions made ahead: writers keep working if the scheduler stops for weeks."""
DAYS_AHEAD = 7
"""Days for which empty partitions of raw capture are made; each takes 24 kB."""


@dataclass(frozen=True, slots=True)
class PruneSummary:
    """Numbers of removed rows, by ledger."""

    quality_results: int


def make_partitions(*, settings: Settings, now: datetime) -> list[str]:
    """Make the partitions that writers will need, so that none has to wait for a lock then.

    Args:
        now: with a time zone, as of the run.

    Returns:
        Names of those that were missing.

    Raises:
        TransientError: the database is away.
    """
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        made = ensure_ahead(connection, now=now, months=MONTHS_AHEAD, days=DAYS_AHEAD)
    log.info("partitions_made", names=made)
    return made


def archive_old_days(*, settings: Settings, now: datetime) -> ArchiveSummary:
    """Move raw days older than ``RAW_RETENTION_DAYS`` to files; none where that is empty.

    Raises:
        TransientError, PermanentError: as ``archive_days``.
    """
    if settings.raw_retention_days is None:
        log.info("raw_capture_kept", reason="RAW_RETENTION_DAYS is empty")
        return ArchiveSummary()
    return archive_days(settings=settings, before=oldest_kept(settings, now), now=now)


def oldest_kept(settings: Settings, now: datetime) -> date:
    """The first UTC day that stays in the tables.

    Days in which a starting streamer looks for missing ids stay in any case: rows that it did not
    find there, it would fetch again.
    """
    today = now.astimezone(UTC).date()
    looked_at = (now.astimezone(UTC) - timedelta(minutes=settings.fill_lookback_minutes)).date()
    if settings.raw_retention_days is None:
        return date.min
    return min(today - timedelta(days=settings.raw_retention_days), looked_at)


def prune_ledgers(*, settings: Settings, now: datetime) -> PruneSummary:
    """Remove what is older than ``LEDGER_RETENTION_DAYS`` and no evidence.

    Raises:
        TransientError: the database is away.
    """
    day = now.astimezone(UTC).date() - timedelta(days=settings.ledger_retention_days)
    before = datetime.combine(day, time(), UTC)
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        removed = PruneSummary(prune_quality_results(connection, before=before))
    log.info("ledgers_pruned", quality_results=removed.quality_results, before=before.isoformat())
    return removed
