"""Archive raw capture: write a file, read it back, and only then drop the partition.

The order keeps every row in at least one place if the process is killed: write the file under a
temporary name and read it back; record it in the ledger; rename it; drop the partition. The
function that drops refuses if the partition's rows differ from the ledger. Until then the partition
is complete, and the next run starts again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from uuid import uuid4

import structlog

from include.config import Settings
from include.counts import counted
from include.errors import PermanentError, RejectedInputError, TransientError
from include.jobs.exchange import APPLICATION_NAME
from include.store.candles.merging import Connection
from include.store.postgres.pools import connect
from include.store.storage.archive import (
    ArchivedDay,
    RestoredRows,
    keep_until,
    only_one,
    read_archived,
    record_archived,
    restore_rows,
    snapshot,
)
from include.store.storage.parquet import Content, content_of, read_day, sync_folder, write_day
from include.store.storage.partitions import (
    Fingerprint,
    RawDay,
    drop_archived,
    fingerprint_of,
    raw_days,
)
from include.store.trades.captured import RAW_TABLES, RawTable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """Result of a round of archiving.

    Attributes:
        archived: days written to files.
        merged: archived days that already had a file and received late rows.
        dropped: partitions dropped, including empty ones.
        kept: restored days that stay in the table for now.
        rows, file_bytes: of the files written.
        freed_bytes: of the partitions dropped.
    """

    archived: int = 0
    merged: int = 0
    dropped: int = 0
    kept: int = 0
    rows: int = 0
    file_bytes: int = 0
    freed_bytes: int = 0

    def __add__(self, other: ArchiveSummary) -> ArchiveSummary:
        return ArchiveSummary(
            self.archived + other.archived,
            self.merged + other.merged,
            self.dropped + other.dropped,
            self.kept + other.kept,
            self.rows + other.rows,
            self.file_bytes + other.file_bytes,
            self.freed_bytes + other.freed_bytes,
        )


def archive_days(
    *,
    settings: Settings,
    before: date,
    now: datetime,
    on_day: Callable[[RawDay], None] = lambda _day: None,
) -> ArchiveSummary:
    """Move every day of raw capture before a given one to the archive folder, oldest first.

    A day that cannot be moved stays in the table; the others are still moved.

    Args:
        before: first UTC day that is not archived.
        now: restored days with a later expiry stay.
        on_day: called before each day.

    Raises:
        TransientError: the database is away, or another process archives; finished days stay
            archived.
        PermanentError: some days stay in the table; the message names them with the reason.
    """
    folder, total = settings.archive, ArchiveSummary()
    refused: list[str] = []
    url = settings.url_for("jobs")
    with connect(url, application_name=APPLICATION_NAME) as connection, only_one(connection):
        for one in raw_days(connection, before=before):
            on_day(one)
            try:
                done = _archive_day(connection, folder, one, now=now)
            except (PermanentError, OSError) as error:
                log.error(  # noqa: TRY400 - the message says what to do
                    "day_not_archived", dataset=one.table.name, day=str(one.day), error=str(error)
                )
                refused.append(str(error))
                continue
            total += done
            log.info("day_archived", dataset=one.table.name, day=str(one.day), rows=done.rows)
    if refused:
        raise PermanentError(
            f"{counted(len(refused), 'day stays', 'days stay')} in the table: {'; '.join(refused)}"
        )
    return total


def verify_day(*, settings: Settings, archived: ArchivedDay) -> Content:
    """Read an archived file and compare it with the ledger.

    Raises:
        RejectedInputError: the file is missing, or its rows differ from the rows written.
    """
    return _verified(settings.archive / archived.path, archived)


def list_days(
    *,
    settings: Settings,
    dataset: str | None = None,
    first: date | None = None,
    last: date | None = None,
) -> list[ArchivedDay]:
    """Return the ledger's archived days, by default of all datasets and days."""
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        return read_archived(connection, dataset=dataset, first=first, last=last)


def restore_day(*, settings: Settings, archived: ArchivedDay, until: datetime) -> RestoredRows:
    """Load an archived day into its partition again; the file stays. Repeating changes nothing.

    Args:
        until: the day is not archived again before this time.

    Raises:
        RejectedInputError: the file is missing or damaged; the table is unchanged.
        TransientError: the database is away, or another process works on the archive.
    """
    url = settings.url_for("jobs")
    with connect(url, application_name=APPLICATION_NAME) as connection, only_one(connection):
        restored = _put_back(connection, settings.archive, archived)
        keep_until(connection, archived, until)
    return restored


def adopt_files(*, settings: Settings) -> list[str]:
    """Record files that the ledger does not list, or lists with other contents.

    Used after restoring a database from a backup older than the files. The next round of archiving
    merges that database's rows of these days into the files.

    Returns:
        Paths of the adopted files, relative to the archive folder.

    Raises:
        RejectedInputError: a file cannot be read; it and the files after it are not recorded.
    """
    url, folder, adopted = settings.url_for("jobs"), settings.archive, []
    with connect(url, application_name=APPLICATION_NAME) as connection, only_one(connection):
        known = {one.path: one for one in read_archived(connection)}
        for file in sorted(folder.glob("*/day=*/*.parquet")):
            path = file.relative_to(folder).as_posix()
            table, day = RAW_TABLES[file.stem], date.fromisoformat(file.parent.name[4:])
            found = content_of(table, file)
            one = known.get(path)
            if one is None or found != Content(one.rows, one.sha256):
                record_archived(
                    connection,
                    table,
                    day,
                    path=path,
                    file_bytes=file.stat().st_size,
                    fingerprint=Fingerprint(found.rows, -1),  # equals no partition: merged again
                    sha256=found.sha256,
                    is_dropped=True,
                )
                adopted.append(path)
    return adopted


# --- inside


def _archive_day(
    connection: Connection, folder: Path, one: RawDay, *, now: datetime
) -> ArchiveSummary:
    """Archive one partition and drop it."""
    entries = read_archived(connection, dataset=one.table.name, first=one.day, last=one.day)
    archived = entries[0] if entries else None
    if archived and archived.kept_until and archived.kept_until > now:
        return ArchiveSummary(kept=1)
    stored = fingerprint_of(connection, one.table, one.day)
    written = ArchiveSummary()
    if stored.rows and not (archived and _is_file_of(folder, archived, stored)):
        is_merge = archived is not None and archived.dropped_at is not None
        if archived is not None and is_merge:
            _put_back(connection, folder, archived)
        written = _write(connection, folder, one, former=archived)
        if is_merge:
            written += ArchiveSummary(merged=1)
    dropped = drop_archived(connection, one.table, one.day)
    return written + ArchiveSummary(dropped=dropped, freed_bytes=one.bytes if dropped else 0)


def _write(
    connection: Connection, folder: Path, one: RawDay, *, former: ArchivedDay | None
) -> ArchiveSummary:
    """Write a day's file, read it back, record it in the ledger, and rename it."""
    path = file_of(one.table, one.day)
    final = folder / path
    if former is None and final.exists():
        raise PermanentError(
            f"{final} exists, but the ledger has no entry for it. After restoring an "
            "older backup, record it by `candelabra archive adopt`; otherwise remove the file"
        )
    final.parent.mkdir(parents=True, exist_ok=True)
    for left_over in final.parent.glob("*.part"):
        left_over.unlink()  # of a killed process: the archive lock excludes others
    part = final.with_name(f"{final.name}.{uuid4().hex}.part")
    try:
        with snapshot(connection):
            fingerprint = fingerprint_of(connection, one.table, one.day)
            written = write_day(connection, one.table, str(one.day), part)
        if former is not None and written.rows < former.rows:
            raise PermanentError(
                f"market.{one.table.name} of {one.day} has {counted(written.rows, 'row')} and its "
                f"archive {former.rows}: restore the day (`candelabra archive restore`), then find "
                "out why"
            )
        read = content_of(one.table, part)
        if read != written or read.rows != fingerprint.rows:
            raise RejectedInputError(
                f"{part} has {counted(read.rows, 'row')} ({read.sha256}), the table "
                f"{fingerprint.rows} ({written.sha256}): the disk does not return the "
                "bytes that were written"
            )
        size = part.stat().st_size
        record_archived(
            connection,
            one.table,
            one.day,
            path=path,
            file_bytes=size,
            fingerprint=fingerprint,
            sha256=read.sha256,
        )
        os.replace(part, final)
    finally:
        part.unlink(missing_ok=True)
    for made in (final.parent, final.parent.parent, folder):
        sync_folder(made)
    return ArchiveSummary(archived=1, rows=read.rows, file_bytes=size)


def _put_back(connection: Connection, folder: Path, archived: ArchivedDay) -> RestoredRows:
    path = folder / archived.path
    _verified(path, archived)
    restored = restore_rows(connection, archived, read_day(archived.table, path))
    if restored.rows != archived.rows:
        raise TransientError(f"{path} changed while it was read")
    if restored.replaced:
        log.warning(
            "late_rows_differ",
            dataset=archived.table.name,
            day=str(archived.day),
            rows=restored.replaced,
        )
    return restored


def _verified(path: Path, archived: ArchivedDay) -> Content:
    found = content_of(archived.table, path)
    if found != Content(archived.rows, archived.sha256):
        raise RejectedInputError(
            f"{path} has {counted(found.rows, 'row')} ({found.sha256}), the ledger records "
            f"{archived.rows} ({archived.sha256}): the file was changed or damaged. "
            "Put the original file back (`candelabra archive adopt`, if an older backup was "
            "restored)"
        )
    return found


def _is_file_of(folder: Path, archived: ArchivedDay, stored: Fingerprint) -> bool:
    """Whether the file exists, matches the ledger, and has exactly the partition's rows."""
    if stored != archived.fingerprint:
        return False
    try:
        _verified(folder / archived.path, archived)
    except RejectedInputError as error:
        log.info("archive_written_again", path=archived.path, reason=str(error))
        return False
    return True


def file_of(table: RawTable, day: date) -> str:
    """Return a day's path below the archive folder: a Hive partition by day."""
    return f"{table.name}/day={day}/{table.name}.parquet"
