"""Which days stay in the tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from include.config import Settings
from include.jobs.storage.archive import ArchiveSummary
from include.jobs.storage.retention import archive_old_days, oldest_kept

NOW = datetime(2026, 11, 21, 2, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "lookback_minutes", "oldest"),
    [
        (2, 1_440, date(2026, 11, 19)),
        (30, 1_440, date(2026, 10, 22)),
        (2, 5 * 1_440, date(2026, 11, 16)),
        (2, 0, date(2026, 11, 19)),
    ],
)
def test_days_stay_for_the_retention_and_the_lookback_of_the_streamer(
    days: int, lookback_minutes: int, oldest: date
) -> None:
    settings = Settings(raw_retention_days=days, fill_lookback_minutes=lookback_minutes)
    assert oldest_kept(settings, NOW) == oldest


def test_days_are_utc_days() -> None:
    early = datetime(2026, 11, 21, 1, tzinfo=timezone(timedelta(hours=3)))
    assert oldest_kept(Settings(raw_retention_days=2), early) == date(2026, 11, 18)


def test_nothing_is_archived_without_the_setting() -> None:
    assert oldest_kept(Settings(), NOW) == date.min
    assert archive_old_days(settings=Settings(), now=NOW) == ArchiveSummary()
