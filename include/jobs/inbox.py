"""A folder whose files are loaded: dropped in by anybody, taken once, and never lost.

::

    inbox/FILE              waits until nobody writes to it any more
    inbox/.claimed/ID/FILE  is being loaded: moved there by the one run that loads it
    inbox/done/FILE         loaded; beside it FILE.reason.txt where rows were rejected
    inbox/failed/FILE       refused; beside it FILE.reason.txt

Folders inside are kept, so that what lies below ``futures/um`` is taken for USD-M. A run that is
killed leaves its file claimed, without the lock that it held: the next run takes it up.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

from include.config import Settings
from include.errors import PermanentError, RejectedInputError, TransientError
from include.jobs.imports import ImportSummary, import_file
from include.jobs.user_files import SUFFIXES

log = structlog.get_logger(__name__)

CLAIMED, DONE, FAILED = ".claimed", "done", "failed"

SETTLED_AFTER_S = 10.0
"""A file that was written, moved or touched since then may still be on its way."""

MOST_FILES = 200
"""Of one run; the others wait for the next one."""

_MOST_NAMESAKES = 10_000


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A file that can be loaded.

    Attributes:
        name: its place below the inbox, such as ``futures/um/ABC-1m-2025-01.zip``.
        size: in bytes.
    """

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class InboxResult:
    """What became of a file.

    Attributes:
        state: ``loaded``, or ``gone`` where another run took it first.
        place: where it lies now, below the inbox.
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


def find_files(
    inbox: Path, *, settled_after_s: float = SETTLED_AFTER_S, most: int = MOST_FILES
) -> list[InboxFile]:
    """Files that wait in the inbox and that nobody writes to, and those that a dead run left.

    Hidden files and ``.part`` are somebody's copying. A folder that is absent is made.

    Args:
        inbox: the folder.
        settled_after_s: how long size, contents and name have to be what they are.

    Raises:
        PermanentError: the folder cannot be made or read.
    """
    try:
        inbox.mkdir(parents=True, exist_ok=True)
        found = [*_left(inbox), *_settled(inbox, time.time() - settled_after_s)]
    except OSError as error:
        raise PermanentError(
            f"the inbox {inbox} cannot be read ({error.strerror}): give INBOX_FOLDER to the user "
            "that runs the jobs"
        ) from error
    unique = {one.name: one for one in found}
    return sorted(unique.values(), key=lambda one: one.name)[:most]


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
    with _claimed(inbox, name) as path:
        if path is None:
            log.info("inbox_file_gone", file=name)
            return InboxResult(name, "gone")
        try:
            summary = _imported(settings, path)
        except TransientError:
            raise  # it stays claimed, and is taken up again
        except Exception as error:
            # An error of ours is told as loudly as a wrong file; neither is met again each minute.
            place = _set_aside(inbox, FAILED, name, path, f"{error}\n")
            log.error("inbox_file_failed", file=name, place=place, error=str(error))  # noqa: TRY400 - the task shows it
            raise
        reason = "".join(
            f"{count} rows rejected: {why}\n" for why, count in sorted(summary.reasons.items())
        )
        if summary.quarantine:
            reason += f"they are kept in ops.rejected_rows and {summary.quarantine}\n"
        place = _set_aside(inbox, DONE, name, path, reason)
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
            f"{path.name}: no row of it can be used; "
            + "; ".join(f"{count} rows: {why}" for why, count in sorted(summary.reasons.items()))
        )
    return summary


def summarise(*, results: Sequence[Mapping[str, Any] | None]) -> InboxCounts:
    """Add up what became of files, and tell it file by file; refused ones have no result."""
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


# --- finding


def _settled(inbox: Path, before_s: float) -> Iterator[InboxFile]:
    for folder, folders, names in os.walk(inbox):
        here = Path(folder)
        is_top = here == inbox
        folders[:] = [
            one
            for one in folders
            if not (one.startswith(".") or (is_top and one in (DONE, FAILED)))
        ]
        for name in names:
            if name.startswith(".") or name.endswith((".part", ".tmp", ".crdownload")):
                continue
            path = here / name
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # taken since
            # copying tools set the time of modification back; that of the change they cannot
            if not path.is_file() or max(stat.st_mtime, stat.st_ctime) > before_s:
                continue
            yield InboxFile(path.relative_to(inbox).as_posix(), stat.st_size)


def _left(inbox: Path) -> Iterator[InboxFile]:
    """Claimed files whose run is dead."""
    for path in (inbox / CLAIMED).glob("*/**/*"):
        if not path.is_file():
            continue
        with _locked(path) as is_ours:
            if is_ours:
                yield InboxFile(_name_of(inbox, path), path.stat().st_size)


def _name_of(inbox: Path, claimed: Path) -> str:
    return Path(*claimed.relative_to(inbox / CLAIMED).parts[1:]).as_posix()


# --- taking


@contextmanager
def _claimed(inbox: Path, name: str) -> Iterator[Path | None]:
    """A file, moved and locked so that no other run takes it; None where one has."""
    for left in sorted((inbox / CLAIMED).glob(f"*/{_escaped(name)}")):
        with _locked(left) as is_ours:
            if is_ours:
                yield left
                _remove_empty(left.parent, below=inbox / CLAIMED)
                return
    claimed = inbox / CLAIMED / uuid4().hex / name
    claimed.parent.mkdir(parents=True)
    try:
        (inbox / name).rename(claimed)
    except FileNotFoundError:
        _remove_empty(claimed.parent, below=inbox / CLAIMED)
        yield None
        return
    with _locked(claimed) as is_ours:
        # where not, another run took it for one that was left
        yield claimed if is_ours else None
    _remove_empty(claimed.parent, below=inbox / CLAIMED)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether we hold the lock of a claimed file that is still there; it ends with the process."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield path.exists() and os.path.samestat(os.fstat(handle), path.stat())
    finally:
        os.close(handle)


def _escaped(name: str) -> str:
    """A name in which no sign means more than itself to ``glob``."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _remove_empty(folder: Path, *, below: Path) -> None:
    while folder != below:
        try:
            folder.rmdir()
        except OSError:
            return  # a file waits there for the next try, or another run made it
        folder = folder.parent


# --- setting aside


def _set_aside(inbox: Path, where: str, name: str, path: Path, reason: str) -> str:
    """Move a file to a folder, beside earlier ones of its name, and write the reason beside.

    Returns:
        Its place below the inbox.
    """
    target = _free_place(inbox / where / name)
    if reason:
        target.with_name(f"{target.name}.reason.txt").write_text(reason, encoding="utf-8")
    path.replace(target)
    return target.relative_to(inbox).as_posix()


def _free_place(wanted: Path) -> Path:
    """A name that no file has, held by an empty file: ``a.zip``, else ``a (2).zip``."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    suffix = next((one for one in SUFFIXES if wanted.name.endswith(one)), wanted.suffix)
    stem = wanted.name.removesuffix(suffix)
    for number in range(1, _MOST_NAMESAKES):
        place = wanted if number == 1 else wanted.with_name(f"{stem} ({number}){suffix}")
        try:
            place.touch(exist_ok=False)
        except FileExistsError:
            continue
        return place
    raise PermanentError(
        f"{wanted.parent} holds {_MOST_NAMESAKES} files called {wanted.name}: clear it"
    )
