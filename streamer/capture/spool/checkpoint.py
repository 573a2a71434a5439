"""Up to when all ids are stored or known to be missing: kept on disk from one start to the next.

A start looks for missing ids in the rows of the last day or so. What was found earlier and still
waits to be asked for must outlive the process that found it; and what a process that was killed
had no time to find lies behind the moment up to which it had found everything, however long ago
that was. A file that is older than it could be makes a start look further back, and hides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import structlog

from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from streamer.capture.spool.disk import Disk, write_anew

log = structlog.get_logger(__name__)

WHOLE_FILE = "whole.json"
SAVE_INTERVAL_S = 10.0
MARGIN_US = 2 * MINUTE_US
"""What comes late, and what is being written, is younger than that."""


class MissingIds(msgspec.Struct, frozen=True):
    """Ids of one dataset and symbol that wait to be asked for; as ``Hole``."""

    dataset: str
    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int


class Checkpoint(msgspec.Struct, frozen=True):
    """What is known of ids.

    Attributes:
        until_us: of all trades before this time (µs) the ids are stored, told as lost, or among
            ``missing``.
    """

    until_us: int
    missing: list[MissingIds]


_FILE = msgspec.json.Decoder(Checkpoint)


def adopt_whole(other: Path, folder: Path) -> None:
    """Join what an ended process knew of ids, in its folder, to what is known in another one.

    Raises:
        OSError: the disk does not take it.
    """
    theirs, own = _read(other / WHOLE_FILE), _read(folder / WHOLE_FILE)
    if theirs is not None:
        joined = theirs
        if own is not None:
            missing = dict.fromkeys([*own.missing, *theirs.missing])
            joined = Checkpoint(min(own.until_us, theirs.until_us), list(missing))
        _write(folder / WHOLE_FILE, joined)
    (other / WHOLE_FILE).unlink(missing_ok=True)


class WholeUntil:
    """Keeps the file while a process captures.

    Args:
        path: of the file.
        known: what to keep; None while that cannot be told.
    """

    def __init__(self, path: Path, known: Callable[[], Checkpoint | None]) -> None:
        self._path = path
        self._known = known
        self._disk = Disk()

    def load(self) -> Checkpoint | None:
        """What an earlier process kept; None where there is none."""
        return _read(self._path)

    async def run(self) -> None:
        """Save every so often, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self.save()

    async def save(self) -> None:
        """Save what is known now; where the disk does not take it, the next time will do."""
        whole = self._known()
        if whole is None:
            return
        try:
            await self._disk.call(partial(_write, self._path, whole), name="whole")
        except (OSError, TransientError) as error:
            log.warning("capture_whole_unsaved", error=str(error))


# --- inside


def _read(path: Path) -> Checkpoint | None:
    try:
        return _FILE.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("capture_whole_unreadable", path=str(path), error=str(error))
        return None


def _write(path: Path, whole: Checkpoint) -> None:
    write_anew(path, msgspec.json.encode(whole))
