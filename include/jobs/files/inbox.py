"""Loading files that were dropped into the inbox; see ``inbox_folder`` for what moves where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from include.config import Settings
from include.errors import RejectedInputError, TransientError
from include.jobs.files.imports import ImportSummary, import_file
from include.jobs.files.inbox_folder import DONE, FAILED, claimed_file, set_aside

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class InboxResult:
    """Result of loading a file from the inbox.

    Attributes:
        state: ``loaded``, or ``gone`` if another run took it first.
        place: its present path, relative to the inbox.
    """

    file: str
    state: str
    place: str = ""
    symbol: str = ""
    rows: int = 0
    rejected: int = 0
    inserted: int = 0
    changed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """Counts of a run; they go with the event that candles were written."""

    files: int = 0
    rows: int = 0
    rejected: int = 0
    inserted: int = 0
    changed: int = 0
    symbols: list[str] = field(default_factory=list)


def load_file(*, settings: Settings, file: Mapping[str, Any]) -> InboxResult:
    """Load a file of the inbox and move it to ``done``, or with the reason to ``failed``.

    Args:
        file: an ``InboxFile`` as a mapping.

    Raises:
        PermanentError: the file was refused, and lies in ``failed``.
        TransientError: the database is away; the file waits for the next try.
    """
    name = str(file["name"])
    inbox = settings.inbox
    with claimed_file(inbox, name) as path:
        if path is None:
            log.info("inbox_file_gone", file=name)
            return InboxResult(name, "gone")
        try:
            summary = _imported(settings, path)
        except TransientError:
            raise  # it stays claimed; the next run loads it
        except Exception as error:
            # Report a defect of ours as loudly as a bad file, and do not retry either each minute.
            place = set_aside(inbox, FAILED, name, path, f"{error}\n")
            log.error("inbox_file_failed", file=name, place=place, error=str(error))  # noqa: TRY400 - the task shows it
            raise
        reason = "".join(
            f"{count} rows rejected: {why}\n" for why, count in sorted(summary.reasons.items())
        )
        if summary.quarantine:
            reason += f"they are kept in ops.rejected_rows and {summary.quarantine}\n"
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


def _imported(settings: Settings, path: Path) -> ImportSummary:
    summary = import_file(settings=settings, path=path)
    if not summary.rows:
        raise RejectedInputError(
            f"{path.name}: none of its rows is usable; "
            + "; ".join(f"{count} rows: {why}" for why, count in sorted(summary.reasons.items()))
        )
    return summary


def summarise(*, results: Sequence[Mapping[str, Any] | None]) -> InboxCounts:
    """Add up the results and log each file; refused files have no result."""
    loaded = [one for one in results if one is not None and one["state"] == "loaded"]
    for one in loaded:
        log.info(
            "inbox_file_loaded",
            **{key: value for key, value in one.items() if key != "state"},
            rows_per_s=round(one["rows"] / one["seconds"]) if one["seconds"] else None,
        )
    counts = InboxCounts(
        files=len(loaded),
        **{
            name: sum(one[name] for one in loaded)
            for name in ("rows", "rejected", "inserted", "changed")
        },
        symbols=sorted({one["symbol"] for one in loaded}),
    )
    log.info("inbox_loaded", files=counts.files, rows=counts.rows, rejected=counts.rejected)
    return counts
