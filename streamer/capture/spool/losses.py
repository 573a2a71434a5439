"""Rows that raw capture lost, counted and stored on disk until they are in the ledger."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from include.jobs.trades.by_id import RawGap
from streamer.capture.spool.disk import replace_file

LOSSES_FILE = "losses.json"

log = structlog.get_logger(__name__)


class Loss(msgspec.Struct, frozen=True):
    """Lost rows of one dataset and symbol, and approximately when they arrived (µs).

    Attributes:
        from_us: None if the start is unknown until the table is read: the last row before the end.
        rows: number of lost rows; None if unknown, as after a disconnect.
    """

    dataset: str
    symbol: str
    cause: str
    from_us: int | None
    to_us: int
    rows: int | None = None


_FILE = msgspec.json.Decoder(list[Loss])


def adopted_files(folder: Path) -> list[Path]:
    """Return lists of losses adopted from other folders."""
    return sorted(folder.glob(f"adopted-*-{LOSSES_FILE}"))


def adopt_losses(other: Path, folder: Path) -> None:
    """Move an ended process's lists of losses from its folder into another one."""
    numbers = [int(path.name.split("-")[1]) for path in adopted_files(folder)]
    number = max(numbers, default=0)
    for left in (other / LOSSES_FILE, *adopted_files(other)):
        if left.exists():
            number += 1
            left.rename(folder / f"adopted-{number:04d}-{LOSSES_FILE}")


class Losses:
    """Losses that are not in the ledger yet, joined by dataset, symbol and cause.

    The file is replaced by renaming a new one, so that it is complete at any moment.

    Args:
        path: of the file.

    Attributes:
        open: losses with an unknown start; they are on disk as well, but ``take`` does not return
            them.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        """Lost rows since the start whose number is known."""
        self.times = 0
        """Losses since the start, including those without a row count."""
        self._path = path
        self.open: set[Loss] = set()
        self._kept: dict[tuple[str, str, str], Loss] = {}
        self._changes = 0
        self._saved_changes = 0
        self._adopted: list[Path] = []
        self._saving = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def is_saved(self) -> bool:
        """Whether the file contains all losses."""
        return self._saved_changes == self._changes

    def load(self) -> None:
        """Load losses recorded by earlier processes, here or in adopted files."""
        self._read(self._path)
        self._adopted = adopted_files(self._path.parent)
        for path in self._adopted:
            self._read(path)
            self._changes += 1  # the main file will list them all

    def _read(self, path: Path) -> None:
        try:
            left = _FILE.decode(path.read_bytes())
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            log.warning("capture_losses_unreadable", path=str(path), error=str(error))
            return
        self._join(left)

    def add(self, losses: Iterable[Loss]) -> None:
        """Record losses."""
        for loss in losses:
            self.rows += loss.rows or 0
            self.times += loss.from_us is not None  # an open loss may turn out to be empty
            self._join([loss])
            self._changes += 1

    def close(self, loss: Loss, from_us: int | None, to_us: int) -> None:
        """Set the start and end of an open loss; a start of None means that no row was lost."""
        self.open.discard(loss)
        self._changes += 1
        if from_us is not None:
            self.add([msgspec.structs.replace(loss, from_us=from_us, to_us=to_us)])

    def take(self) -> list[RawGap]:
        """Return all losses as gaps for the ledger; call ``forget`` once they are stored."""
        return [
            RawGap(
                loss.dataset,
                loss.symbol,
                loss.from_us,
                loss.to_us,
                loss.cause,
                {} if loss.rows is None else {"rows": loss.rows},
            )
            for loss in self._kept.values()
            if loss.from_us is not None
        ]

    def forget(self, recorded: Iterable[RawGap]) -> None:
        """Remove the losses that have not grown since ``take``."""
        for gap in recorded:
            key = (gap.dataset, gap.symbol, gap.cause)
            loss = self._kept.get(key)
            if loss is not None and (loss.from_us, loss.to_us, loss.rows) == (
                gap.from_us,
                gap.to_us,
                gap.detail.get("rows"),
            ):
                del self._kept[key]
                self._changes += 1

    def save(self) -> None:
        """Write the losses to disk if anything has changed.

        Raises:
            OSError: the disk refuses the write.
        """
        with self._saving:  # the writer and the spiller both save, each in a thread
            changes = self._changes  # read before the write: later additions are not saved
            if changes == self._saved_changes:
                return
            self._write(msgspec.json.encode([*self._kept.values(), *self.open]))
            self._saved_changes = changes

    def _write(self, content: bytes) -> None:
        replace_file(self._path, content)
        while self._adopted:  # after a kill before this the losses count twice, which hides nothing
            self._adopted.pop().unlink(missing_ok=True)

    def _join(self, losses: Iterable[Loss]) -> None:
        for loss in losses:
            if loss.from_us is None:
                self.open.add(loss)
                continue
            key = (loss.dataset, loss.symbol, loss.cause)
            known = self._kept.get(key)
            if known is None or known.from_us is None:
                self._kept[key] = loss
                continue
            counted = [one.rows for one in (known, loss) if one.rows is not None]
            self._kept[key] = Loss(
                *key,
                min(known.from_us, loss.from_us),
                max(known.to_us, loss.to_us),
                sum(counted) if counted else None,
            )
