"""The inbox folder: anybody may drop files, each is loaded once, none is lost.

::

    inbox/FILE              waits until it is no longer written to
    inbox/.claimed/ID/FILE  is being loaded: moved there by the one run that loads it
    inbox/done/FILE         loaded; FILE.reason.txt beside it if rows were rejected
    inbox/failed/FILE       refused; FILE.reason.txt beside it

A ``FILE.CHECKSUM`` moves with its file. Alone it waits an hour for it, then it is refused.

Links, devices and pipes are refused without being opened. Subfolders are preserved, so files below
``futures/um`` count as USD-M, and below ``futures/cm`` as COIN-M. If a run is killed, its file
stays claimed but loses its lock: the next run loads it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import structlog

from include.counts import counted
from include.errors import PermanentError, RejectedInputError
from include.jobs.files.checksums import CHECKSUM, checksum_beside
from include.jobs.files.pieces import InboxFile
from include.jobs.files.user_files import SUFFIXES

CLAIMED, DONE, FAILED = ".claimed", "done", "failed"

UNCHANGED_FOR_S = 10.0
"""A file that was written, moved or touched within this time may still be incomplete."""

CHECKSUM_WAITS_S = 3_600.0
"""How long a CHECKSUM waits for its file."""

MAX_FILES = 200
"""Maximum files of one run; the others wait for the next run."""

MAX_NAME_BYTES = 200
"""Longest name; a number and the suffix of the reason are added to it."""
MAX_PLACE_BYTES = 1_000
"""Longest path in the inbox. Linux opens paths of 4,096 bytes at most; one that is longer made each
run fail for all files."""

_SHOWN_BYTES = 100
_MAX_NAMESAKES = 10_000

log = structlog.get_logger(__name__)

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def find_files(
    inbox: Path, *, unchanged_for_s: float = UNCHANGED_FOR_S, most: int = MAX_FILES
) -> list[InboxFile]:
    """Return complete files in the inbox, and files that a dead run had claimed.

    Hidden files and ``.part`` are unfinished copies. A missing folder is created.

    Args:
        inbox: the folder.
        unchanged_for_s: how long size, contents and name must be unchanged.

    Raises:
        PermanentError: the folder cannot be created or read, or one in it is a link.
    """
    try:
        inbox.mkdir(parents=True, exist_ok=True)
        for name in (CLAIMED, DONE, FAILED):
            _check_folder(inbox / name)
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
            and not _refused_for_name(inbox, here / one)
        ]
        links = [one for one in folders if (here / one).is_symlink()]  # they are not entered
        for name in (*names, *links):
            if name.startswith(".") or name.endswith((".part", ".tmp", ".crdownload")):
                continue
            path = here / name
            if _refused_for_name(inbox, path):
                continue
            waits_s = unchanged_for_s
            if name.endswith(CHECKSUM):
                if os.path.lexists(path.with_name(name.removesuffix(CHECKSUM))):
                    continue  # it moves with its file
                waits_s = CHECKSUM_WAITS_S
            status = _status_of(path)
            if status is None or _changed_s(status, now_s) > now_s - waits_s:
                continue
            checksum = _status_of(checksum_beside(path))
            if checksum is not None and _changed_s(checksum, now_s) > now_s - unchanged_for_s:
                continue
            yield InboxFile(path.relative_to(inbox).as_posix(), status.st_size)


def _refused_for_name(inbox: Path, path: Path) -> bool:
    """Move a file or folder to ``failed`` if tasks could not name it; return whether it was moved.

    It gets a name of its own, with signs that are no UTF-8 as escapes.
    """
    try:
        size = len(path.name.encode())
    except UnicodeEncodeError:
        problem = "its name is not UTF-8"
    else:
        place_size = len(path.relative_to(inbox).as_posix().encode())
        if size > MAX_NAME_BYTES:
            problem = f"its name has {size} bytes, {MAX_NAME_BYTES} at most are possible"
        elif place_size > MAX_PLACE_BYTES:
            problem = (
                f"its path in the inbox has {counted(place_size, 'byte')}, {MAX_PLACE_BYTES} at "
                "most are possible: use fewer folders"
            )
        else:
            return False
    shown = path.name.encode("utf-8", "backslashreplace")[:_SHOWN_BYTES].decode(errors="ignore")
    target = inbox / FAILED / f"{shown}-{uuid4().hex[:8]}"
    target.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):  # another run was faster
        path.rename(target)
        reason = target.with_name(f"{target.name}.reason.txt")
        reason.write_text(f"{problem}: rename it, and drop it again\n", encoding="utf-8")
        log.error("inbox_name_refused", place=target.relative_to(inbox).as_posix(), error=problem)
    return True


def _status_of(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None  # claimed in the meantime


def _changed_s(status: os.stat_result, now_s: float) -> float:
    """Return when a file was last changed, moved or touched.

    Copying tools set the modification time freely, even to the future; they cannot set ctime.
    """
    modified_s = status.st_mtime if status.st_mtime <= now_s else 0.0
    return max(modified_s, status.st_ctime)


def _abandoned(inbox: Path) -> Iterator[InboxFile]:
    """Yield claimed files of dead runs."""
    for path in (inbox / CLAIMED).glob("*/**/*"):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.name.endswith(CHECKSUM) and os.path.lexists(
            path.with_name(path.name.removesuffix(CHECKSUM))
        ):
            continue
        with _locked(path) as is_ours:
            if is_ours:
                yield InboxFile(_name_of(inbox, path), path.lstat().st_size)


def _name_of(inbox: Path, claimed: Path) -> str:
    return Path(*claimed.relative_to(inbox / CLAIMED).parts[1:]).as_posix()


# --- claiming


@contextmanager
def claimed_file(inbox: Path, name: str) -> Iterator[Path | None]:
    """Claim a file by moving and locking it; None if another run has claimed it."""
    for abandoned in sorted((inbox / CLAIMED).glob(f"*/{_escaped(name)}")):
        with _locked(abandoned) as is_ours:
            if is_ours:
                if not os.path.lexists(inbox / name):  # else it belongs to that newer file
                    _bring_checksum(inbox, name, abandoned)
                try:
                    yield abandoned
                finally:
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
    try:
        with _locked(claimed) as is_ours:
            if is_ours:
                _bring_checksum(inbox, name, claimed)
            # another run may have taken it for abandoned
            yield claimed if is_ours else None
    finally:
        _remove_empty(claimed.parent, below=inbox / CLAIMED)


def _bring_checksum(inbox: Path, name: str, claimed: Path) -> None:
    """Move a file's CHECKSUM beside the claimed file, unless it is there already."""
    target = checksum_beside(claimed)
    if not os.path.lexists(target):
        with suppress(FileNotFoundError):
            checksum_beside(inbox / name).rename(target)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a claimed file; yield whether that worked and the file still exists.

    The lock ends with the process. What is no regular file is never opened: links would be
    followed, and devices and pipes may block. It is refused, so two runs do no harm.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            yield True
            return
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it is gone, or was replaced by a link
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield _is_same(handle, path)
    finally:
        os.close(handle)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def check_regular(path: Path) -> None:
    """Check that a dropped file is a file of its own.

    Raises:
        RejectedInputError: it is a link, a device, a pipe or a socket; or has another name, whose
            file may be of another user.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        kind = next(
            (word for is_kind, word in _KINDS if is_kind(status.st_mode)), "no regular file"
        )
        raise RejectedInputError(f"{path.name} is {kind}; copy the file itself into the inbox")
    if status.st_nlink > 1:
        raise RejectedInputError(
            f"{path.name} is one of {status.st_nlink} hard links to a file; copy the file itself "
            "into the inbox"
        )


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
    """Move a file and its CHECKSUM to a folder, replacing none; write the reason beside it.

    Returns:
        Its path relative to the inbox.
    """
    wanted = inbox / where / name
    if any(one.exists() and not one.is_dir() for one in wanted.parents):
        wanted = inbox / where / name.replace("/", "_")  # a file has the name of a folder
    for folder in wanted.relative_to(inbox).parents:
        _check_folder(inbox / folder)
    target = _free_place(wanted)
    if reason:
        beside = target.with_name(f"{target.name}.reason.txt")
        beside.unlink(missing_ok=True)  # of an earlier file, or a link that somebody put there
        with beside.open("x", encoding="utf-8") as file:
            file.write(reason)
    # First the checksum: a kill in between leaves a file that the next run loads again.
    checksum = checksum_beside(path)
    if os.path.lexists(checksum):
        checksum.replace(_free_place(checksum_beside(target)))
    path.replace(target)
    return target.relative_to(inbox).as_posix()


def _check_folder(folder: Path) -> None:
    """Check that a folder of the inbox is no link, which could lead anywhere.

    Raises:
        PermanentError: it is one.
    """
    if folder.is_symlink():
        raise PermanentError(f"{folder} is a symbolic link: remove it, or make it a folder")


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
