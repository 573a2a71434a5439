"""Spool folders: one for each process; a new process takes over folders of ended ones."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

from include.errors import PermanentError
from streamer.capture.spool.acknowledged import adopt_acknowledged
from streamer.capture.spool.checkpoint import adopt_complete
from streamer.capture.spool.losses import adopt_losses
from streamer.capture.spool.segments import SUFFIX, last_number, name_of

MAX_SPOOLS = 64
"""Maximum processes that spool below one folder."""


def claim_folder(root: Path) -> tuple[Path, BinaryIO]:
    """Return a folder below ``root`` that no other process uses, and the file that holds its lock.

    Files of ended processes are moved into it, to be replayed.

    Raises:
        PermanentError: the folder cannot be created or written.
    """
    try:
        for number in range(MAX_SPOOLS):
            folder = root / f"{number}"
            folder.mkdir(parents=True, exist_ok=True)
            lock = _try_lock(folder)
            if lock is not None:
                _adopt(folder, root)
                return folder, lock
    except OSError as error:
        raise PermanentError(
            f"cannot spool below {root}: {error}; set CANDELABRA_HOME to a folder that "
            "the streamer may write"
        ) from error
    raise PermanentError(f"{MAX_SPOOLS} processes spool below {root} already")


def _try_lock(folder: Path) -> BinaryIO | None:
    lock = (folder / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _adopt(folder: Path, root: Path) -> None:
    for other in sorted(root.iterdir()):
        if other == folder or not other.is_dir():
            continue
        lock = _try_lock(other)
        if lock is None:
            continue
        with lock:
            # First the rows before the spooled ones: a kill in between must not part them.
            adopt_acknowledged(other, folder)
            number = last_number(folder)
            for segment in sorted(other.glob(f"*{SUFFIX}")):
                number += 1
                segment.rename(folder / name_of(number))
            adopt_losses(other, folder)
            adopt_complete(other, folder)
