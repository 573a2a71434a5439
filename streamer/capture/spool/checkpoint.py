"""The checkpoint file: the time up to which every id is stored or known to be missing.

It is saved regularly, and read at the next start. At its start the streamer searches the rows of
about the last day for missing ids. Ids found earlier that still wait to be requested must survive
the process. A killed process may have missed ids after its last checkpoint, however long ago that
was, so the search begins there. An outdated checkpoint only makes the search longer.
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
from streamer.capture.spool.disk import Disk, replace_file

log = structlog.get_logger(__name__)

WHOLE_FILE = "whole.json"
SAVE_INTERVAL_S = 10.0
MARGIN_US = 2 * MINUTE_US
"""Age in µs beyond which no row is late or still being written."""


class MissingIds(msgspec.Struct, frozen=True):
    """Ids of one dataset and symbol that wait to be requested; as ``MissingRange``."""

    dataset: str
    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int


class Checkpoint(msgspec.Struct, frozen=True):
    """State of the ids.

    Attributes:
        until_us: ids of all trades before this time (µs) are stored, recorded as lost, or among
            ``missing``.
    """

    until_us: int
    missing: list[MissingIds]


_FILE = msgspec.json.Decoder(Checkpoint)


def adopt_complete(other: Path, folder: Path) -> None:
    """Merge the checkpoint in ``other``, the folder of an ended process, into that in ``folder``.

    Raises:
        OSError: the disk refuses it.
    """
    theirs, own = _read(other / WHOLE_FILE), _read(folder / WHOLE_FILE)
    if theirs is not None:
        joined = theirs
        if own is not None:
            missing = dict.fromkeys([*own.missing, *theirs.missing])
            joined = Checkpoint(min(own.until_us, theirs.until_us), list(missing))
        _write(folder / WHOLE_FILE, joined)
    (other / WHOLE_FILE).unlink(missing_ok=True)


class CompleteUntil:
    """Writes the checkpoint file while a process captures.

    Args:
        path: of the file.
        known: returns the state; None while it is unknown.
    """

    def __init__(self, path: Path, known: Callable[[], Checkpoint | None]) -> None:
        self._path = path
        self._known = known
        self._disk = Disk()

    def load(self) -> Checkpoint | None:
        """Return the checkpoint of an earlier process; None if there is none."""
        return _read(self._path)

    async def run(self) -> None:
        """Save periodically, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self.save()

    async def save(self) -> None:
        """Save the current state; if the disk refuses, the next save retries."""
        whole = self._known()
        if whole is None:
            return
        try:
            await self._disk.call(partial(_write, self._path, whole), name="whole")
        except (OSError, TransientError) as error:
            log.warning("capture_checkpoint_unsaved", error=str(error))


# --- inside


def _read(path: Path) -> Checkpoint | None:
    try:
        return _FILE.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("capture_checkpoint_unreadable", path=str(path), error=str(error))
        return None


def _write(path: Path, whole: Checkpoint) -> None:
    replace_file(path, msgspec.json.encode(whole))
