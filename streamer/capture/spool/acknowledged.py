"""The last rows that PostgreSQL acknowledged, on disk while rows are spooled.

A standby that takes over may lack them. If the process that wrote them is killed before it can
look, the next one finds newer rows in the spool, and nothing else shows the loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from streamer.capture.spool.disk import replace_file

ACKNOWLEDGED_FILE = "acknowledged.json"

log = structlog.get_logger(__name__)


class AcknowledgedRow(msgspec.Struct, frozen=True):
    """The last stored row of one dataset and symbol: its id and its time (µs)."""

    dataset: str
    symbol: str
    id: int
    time_us: int


_FILE = msgspec.json.Decoder(list[AcknowledgedRow])


def load_acknowledged(folder: Path) -> list[AcknowledgedRow]:
    """Return the rows of a folder; a file that cannot be read is logged and counts as none."""
    path = folder / ACKNOWLEDGED_FILE
    try:
        return _FILE.decode(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        log.warning("acknowledged_rows_unreadable", path=str(path), error=str(error))
        return []


def save_acknowledged(folder: Path, rows: Iterable[AcknowledgedRow]) -> None:
    """Replace the rows of a folder.

    Raises:
        OSError: the disk refuses it; the old file stays.
    """
    replace_file(folder / ACKNOWLEDGED_FILE, msgspec.json.encode(list(rows)))


def adopt_acknowledged(other: Path, folder: Path) -> None:
    """Add the rows in ``other``, the folder of an ended process, to those in ``folder``.

    Raises:
        OSError: the disk refuses it.
    """
    theirs = load_acknowledged(other)
    if theirs:
        save_acknowledged(folder, dict.fromkeys([*load_acknowledged(folder), *theirs]))
    (other / ACKNOWLEDGED_FILE).unlink(missing_ok=True)
