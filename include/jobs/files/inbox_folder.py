"""The inbox folder: anybody may drop files, each is loaded once, none is lost.

::

    inbox/FILE              waits until it is no longer written to
    inbox/.claimed/ID/FILE  is being loaded: moved there by the one run that loads it
    inbox/done/FILE         loaded; FILE.reason.txt beside it if rows were rejected
    inbox/failed/FILE       refused; FILE.reason.txt beside it

Subfolders are preserved, so files below ``futures/um`` count as USD-M. If a run is killed, its file
stays claimed but loses its lock: the next run loads it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from include.errors import PermanentError
from include.jobs.files.pieces import InboxFile
from include.jobs.files.user_files import SUFFIXES

CLAIMED, DONE, FAILED = ".claimed", "done", "failed"

UNCHANGED_FOR_S = 10.0
"""A file that was written, moved or touched within this time may still be incomplete."""

MAX_FILES = 200
"""Maximum files of one run; the others wait for the next run."""

_MAX_NAMESAKES = 10_000


def find_files(
    inbox: Path, *, unchanged_for_s: float = UNCHANGED_FOR_S, most: int = MAX_FILES
) -> list[InboxFile]:
    """Return complete files in the inbox, and files that a dead run had claimed.

    Hidden files and ``.part`` are unfinished copies. A missing folder is created.

    Args:
        inbox: the folder.
        unchanged_for_s: how long size, contents and name must be unchanged.

    Raises:
        PermanentError: the folder cannot be created or read.
    """
    try:
        inbox.mkdir(parents=True, exist_ok=True)
        found = [*_abandoned(inbox), *_unchanged(inbox, unchanged_for_s)]
    except OSError as error:
        raise PermanentError(
            f"the inbox {inbox} cannot be read ({error.strerror}): give INBOX_FOLDER to the user "
            "that runs the jobs"
        ) from error
    unique = {one.name: one for one in found}
    return sorted(unique.values(), key=lambda one: one.name)[:most]


# --- finding


def _unchanged(inbox: Path, unchanged_for_s: float) -> Iterator[InboxFile]:
    now_s = time.time()
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
                continue  # claimed in the meantime
            # Copying tools set the modification time freely, even to the future; they cannot set
            # ctime.
            modified_s = stat.st_mtime if stat.st_mtime <= now_s else 0.0
            if not path.is_file() or max(modified_s, stat.st_ctime) > now_s - unchanged_for_s:
                continue
            yield InboxFile(path.relative_to(inbox).as_posix(), stat.st_size)


def _abandoned(inbox: Path) -> Iterator[InboxFile]:
    """Yield claimed files of dead runs."""
    for path in (inbox / CLAIMED).glob("*/**/*"):
        if not path.is_file():
            continue
        with _locked(path) as is_ours:
            if is_ours:
                yield InboxFile(_name_of(inbox, path), path.stat().st_size)


def _name_of(inbox: Path, claimed: Path) -> str:
    return Path(*claimed.relative_to(inbox / CLAIMED).parts[1:]).as_posix()


# --- claiming


@contextmanager
def claimed_file(inbox: Path, name: str) -> Iterator[Path | None]:
    """Claim a file by moving and locking it; None if another run has claimed it."""
    for abandoned in sorted((inbox / CLAIMED).glob(f"*/{_escaped(name)}")):
        with _locked(abandoned) as is_ours:
            if is_ours:
                yield abandoned
                _remove_empty(abandoned.parent, below=inbox / CLAIMED)
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
        # another run may have taken it for abandoned
        yield claimed if is_ours else None
    _remove_empty(claimed.parent, below=inbox / CLAIMED)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a claimed file; yield whether that worked and the file still exists.

    The lock ends with the process.
    """
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
    """Return a name with the special characters of ``glob`` escaped."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _remove_empty(folder: Path, *, below: Path) -> None:
    while folder != below:
        try:
            folder.rmdir()
        except OSError:
            return  # not empty, or already removed by another run
        folder = folder.parent


# --- setting aside


def set_aside(inbox: Path, where: str, name: str, path: Path, reason: str) -> str:
    """Move a file to a folder without replacing earlier ones, and write the reason beside it.

    Returns:
        Its path relative to the inbox.
    """
    target = _free_place(inbox / where / name)
    if reason:
        target.with_name(f"{target.name}.reason.txt").write_text(reason, encoding="utf-8")
    path.replace(target)
    return target.relative_to(inbox).as_posix()


def _free_place(wanted: Path) -> Path:
    """Reserve an unused name by an empty file: ``a.zip``, else ``a (2).zip``."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    suffix = next((one for one in SUFFIXES if wanted.name.endswith(one)), wanted.suffix)
    stem = wanted.name.removesuffix(suffix)
    for number in range(1, _MAX_NAMESAKES):
        place = wanted if number == 1 else wanted.with_name(f"{stem} ({number}){suffix}")
        try:
            place.touch(exist_ok=False)
        except FileExistsError:
            continue
        return place
    raise PermanentError(
        f"{wanted.parent} has {_MAX_NAMESAKES} files called {wanted.name}: remove some"
    )
