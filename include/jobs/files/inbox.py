"""Load files that were dropped into the inbox; see ``inbox_folder`` for the folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import structlog

from include.config import Settings
from include.counts import counted
from include.errors import RejectedInputError, TransientError
from include.jobs.files.checksums import checksum_beside
from include.jobs.files.imports import ImportSummary, import_file
from include.jobs.files.inbox_folder import (
    DONE,
    FAILED,
    check_regular,
    claimed_file,
    set_aside,
)
from include.jobs.files.pieces import InboxCounts, InboxFile, InboxResult

log = structlog.get_logger(__name__)


def load_file(*, settings: Settings, file: InboxFile) -> InboxResult:
    """Load a file of the inbox and move it to ``done``, or to ``failed`` with the reason.

    Raises:
        PermanentError: the file was refused and is in ``failed``.
        TransientError: the database is away; the file is loaded at the next try.
    """
    name = file.name
    inbox = settings.inbox
    with claimed_file(inbox, name) as path:
        if path is None:
            log.info("inbox_file_gone", file=name)
            return InboxResult(name, "gone")
        try:
            check_regular(path)
            if os.path.lexists(checksum_beside(path)):
                check_regular(checksum_beside(path))
            summary = _imported(settings, path, name)
        except TransientError:
            raise  # the file stays claimed; the next run loads it
        except Exception as error:
            # A defect of ours is reported like a bad file, and neither is retried every minute.
            reason = str(error).replace(str(path), name)  # not the claimed path, which is gone
            place = set_aside(inbox, FAILED, name, path, f"{reason}\n")
            log.error("inbox_file_failed", file=name, place=place, error=reason)  # noqa: TRY400 - the task shows it
            raise
        reason = "".join(
            f"{counted(count, 'row')} rejected: {why}\n"
            for why, count in sorted(summary.reasons.items())
        )
        if summary.quarantine:
            reason += f"they are stored in ops.rejected_rows and {summary.quarantine}\n"
        place = set_aside(inbox, DONE, name, path, reason)
    return InboxResult(
        file=name,
        state="loaded",
        place=place,
        symbol=summary.symbol,
        rows=summary.rows,
        rejected=summary.rejected,
        inserted=summary.merged.inserted,
        changed=summary.merged.changed,
        seconds=round(summary.seconds, 3),
    )


def _imported(settings: Settings, path: Path, name: str) -> ImportSummary:
    folder = (PurePosixPath("inbox") / name).parent
    summary = import_file(settings=settings, path=path, inbox_folder=str(folder))
    if not summary.rows:
        raise RejectedInputError(
            f"{path.name}: none of its rows is usable; "
            + "; ".join(
                f"{counted(count, 'row')}: {why}" for why, count in sorted(summary.reasons.items())
            )
        )
    return summary


def summarise(*, results: Sequence[InboxResult | None]) -> InboxCounts:
    """Add up the results and log each file; refused files have no result."""
    loaded = [one for one in results if one is not None and one.state == "loaded"]
    for one in loaded:
        log.info(
            "inbox_file_loaded",
            **{key: value for key, value in asdict(one).items() if key != "state"},
            rows_per_s=round(one.rows / one.seconds) if one.seconds else None,
        )
    counts = InboxCounts(
        files=len(loaded),
        rows=sum(one.rows for one in loaded),
        rejected=sum(one.rejected for one in loaded),
        inserted=sum(one.inserted for one in loaded),
        changed=sum(one.changed for one in loaded),
        symbols=sorted({one.symbol for one in loaded}),
    )
    log.info("inbox_loaded", files=counts.files, rows=counts.rows, rejected=counts.rejected)
    return counts
