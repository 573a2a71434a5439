"""Daily upkeep of storage: create partitions, archive old raw days, prune ledgers."""

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
"""Months of candle partitions created ahead: writers keep working if the scheduler stops for weeks.
"""
DAYS_AHEAD = 7
"""Days of empty raw capture partitions created ahead; each takes 24 kB."""


@dataclass(frozen=True, slots=True)
class PruneSummary:
    """Numbers of removed rows, by ledger."""

    quality_results: int


def make_partitions(*, settings: Settings, now: datetime) -> list[str]:
    """Create the partitions that writers will need, so that no writer waits for a lock.

    Args:
        now: time of the run, with a time zone.

    Returns:
        Names of the partitions created.

    Raises:
        TransientError: the database is away.
    """
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        made = ensure_ahead(connection, now=now, months=MONTHS_AHEAD, days=DAYS_AHEAD)
    log.info("partitions_made", names=made)
    return made


def archive_old_days(*, settings: Settings, now: datetime) -> ArchiveSummary:
    """Move raw days older than ``RAW_RETENTION_DAYS`` to files; does nothing if that is empty.

    Raises:
        TransientError, PermanentError: as ``archive_days``.
    """
    if settings.raw_retention_days is None:
        log.info("raw_capture_kept", reason="RAW_RETENTION_DAYS is empty")
        return ArchiveSummary()
    return archive_days(settings=settings, before=oldest_kept(settings, now), now=now)


def oldest_kept(settings: Settings, now: datetime) -> date:
    """Return the first UTC day that stays in the tables.

    A starting streamer looks for missing ids in the last ``FILL_LOOKBACK_MINUTES``. Those days stay
    in any case: if their rows were archived, the streamer would fetch them again.
    """
    today = now.astimezone(UTC).date()
    lookback_day = (now.astimezone(UTC) - timedelta(minutes=settings.fill_lookback_minutes)).date()
    if settings.raw_retention_days is None:
        return date.min
    return min(today - timedelta(days=settings.raw_retention_days), lookback_day)


def prune_ledgers(*, settings: Settings, now: datetime) -> PruneSummary:
    """Remove ledger rows that are older than ``LEDGER_RETENTION_DAYS`` and are not evidence.

    Raises:
        TransientError: the database is away.
    """
    day = now.astimezone(UTC).date() - timedelta(days=settings.ledger_retention_days)
    before = datetime.combine(day, time(), UTC)
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        removed = PruneSummary(prune_quality_results(connection, before=before))
    log.info("ledgers_pruned", quality_results=removed.quality_results, before=before.isoformat())
    return removed
