"""Shared by all dump files: the download folder, and the record of bad files."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import structlog

from include.binance.files.dumps import FetchedDump, NotPublishedError, WrongChecksumError
from include.config import Settings
from include.errors import CandelabraError, PermanentError, RejectedInputError, TransientError
from include.store.candles.merging import Connection
from include.store.ledgers.files import DumpFile, record_dump_file

log = structlog.get_logger(__name__)

DOWNLOADS = "downloads"
NO_CHECKSUM = ""
"""Checksum in the ledger of a file that could not be fetched."""

REPLACED_BY = "replaced_by"
"""Key in an entry's detail: the source used instead of the file."""


@contextmanager
def download_folder(settings: Settings, path: str) -> Iterator[Path]:
    """Open a folder for one file, where an interrupted download can resume.

    The folder is removed at the end, except after a transient error. While another process uses the
    folder, a temporary one is used.
    """
    folder = settings.candelabra_home / DOWNLOADS / PurePosixPath(path).stem
    lock = _lock(folder)
    if lock is None:
        with tempfile.TemporaryDirectory(prefix="candelabra-dump-") as name:
            yield Path(name)
        return
    is_kept = False
    try:
        yield folder
    except TransientError:
        is_kept = True
        raise
    finally:
        if not is_kept:
            shutil.rmtree(folder)
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder; None if another process holds the lock or has just removed the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(lock), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        is_ours = False
    if not is_ours:
        os.close(lock)
        return None
    return lock


def record_unusable(
    connection: Connection,
    *,
    path: str,
    symbol: str,
    kind: str,
    fetched_at_us: int,
    fetched: FetchedDump | None,
    error: CandelabraError,
    replaced_by: str | None,
) -> DumpFile:
    """Record a file that is missing, late, damaged or fails its checksum; return the entry.

    Args:
        fetched: None if the download failed.
        replaced_by: the source used instead; None if there is none.
    """
    if isinstance(error, NotPublishedError):
        verdict, checksum = "missing", NO_CHECKSUM
    elif isinstance(error, WrongChecksumError):
        verdict, checksum = "wrong_checksum", error.found
    elif isinstance(error, RejectedInputError):
        verdict, checksum = "corrupt", fetched.checksum if fetched else NO_CHECKSUM
    elif isinstance(error, PermanentError):
        verdict, checksum = "refused", NO_CHECKSUM
    else:
        verdict, checksum = "unreachable", NO_CHECKSUM
    log.warning("dump_unusable", path=path, verdict=verdict, error=str(error))
    detail = {"error": str(error)}
    if replaced_by is not None:
        detail[REPLACED_BY] = replaced_by
    entry = DumpFile(
        path=path,
        checksum=checksum,
        kind=kind,
        symbol=symbol,
        fetched_at_us=fetched_at_us,
        published_at_us=fetched.published_at_us if fetched else None,
        rows=0,
        verdict=verdict,
        detail=detail,
    )
    record_dump_file(connection, entry)
    return entry
