"""Rows that raw capture lost, counted and stored on disk until they are in the ledger.

A server that takes over may lack the newest rows of the ledger too. So recorded losses are kept for
some minutes, and recorded again after a failure; the ledger has each once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import structlog

from include.jobs.trades.by_id import RawGap
from streamer.capture.spool.disk import replace_file

LOSSES_FILE = "losses.json"

RECORDED_KEPT_S = 600.0
"""Seconds for which a recorded loss is kept: a standby may be behind for as long."""
MAX_RECORDED = 10_000

log = structlog.get_logger(__name__)


class Loss(msgspec.Struct, frozen=True):
    """Lost rows of one dataset and symbol, and approximately when they arrived (µs).

    Attributes:
        from_us: None if the start is unknown until the table is read: the last row before the end.
        rows: number of lost rows; None if unknown, as after a disconnect.
        is_recorded: whether it was in the ledger when it was written to disk.
    """

    dataset: str
    symbol: str
    cause: str
    from_us: int | None
    to_us: int
    rows: int | None = None
    is_recorded: bool = False


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
        now_s: monotonic clock.

    Attributes:
        open: losses with an unknown start; they are on disk as well, but ``take`` does not return
            them.
    """

    def __init__(self, path: Path, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.rows = 0
        """Lost rows since the start whose number is known."""
        self.times = 0
        """Losses since the start, including those without a row count."""
        self._path = path
        self.open: set[Loss] = set()
        self._kept: dict[tuple[str, str, str], Loss] = {}
        self._again: list[Loss] = []
        """Losses that were recorded and are to be recorded again. They are not joined with others:
        the rows in between are not lost."""
        self._recorded: deque[tuple[float, Loss]] = deque(maxlen=MAX_RECORDED)
        """Losses in the ledger, each with the time until which it is kept."""
        self._now_s = now_s
        self._changes = 0
        self._saved_changes = 0
        self._adopted: list[Path] = []
        self._saving = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept) + len(self._again)

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
        gaps = map(_gap_of, (*self._kept.values(), *self._again))
        return [gap for gap in gaps if gap is not None]

    def is_known(self, gap: RawGap) -> bool:
        """Whether a gap of ``take`` was recorded before."""
        return any(_gap_of(loss) == gap for loss in self._again)

    def forget(self, recorded: Iterable[RawGap]) -> None:
        """Count losses as recorded unless they have grown since ``take``."""
        until_s = self._now_s() + RECORDED_KEPT_S
        stored = {
            (gap.dataset, gap.symbol, gap.cause, gap.from_us, gap.to_us, gap.detail.get("rows"))
            for gap in recorded
        }
        for loss in (*self._kept.values(), *self._again):
            if _facts(loss) in stored:
                self._recorded.append((until_s, loss))
                self._changes += 1
        self._kept = {key: loss for key, loss in self._kept.items() if _facts(loss) not in stored}
        self._again = [loss for loss in self._again if _facts(loss) not in stored]

    def record_again(self) -> None:
        """Take losses that were recorded lately once more: the server may be another one."""
        now_s = self._now_s()
        self._again += [loss for until_s, loss in self._recorded if until_s > now_s]
        self._recorded.clear()

    def save(self) -> None:
        """Write the losses to disk if anything has changed.

        Raises:
            OSError: the disk refuses the write.
        """
        with self._saving:  # the writer and the spiller both save, each in a thread
            changes = self._changes  # read before the write: later additions are not saved
            if changes == self._saved_changes:
                return
            now_s = self._now_s()
            kept = [loss for until_s, loss in self._recorded.copy() if until_s > now_s]
            recorded = [
                msgspec.structs.replace(loss, is_recorded=True) for loss in (*self._again, *kept)
            ]
            self._write(msgspec.json.encode([*self._kept.values(), *self.open, *recorded]))
            self._saved_changes = changes

    def _write(self, content: bytes) -> None:
        replace_file(self._path, content)
        while self._adopted:  # after a kill before this the losses count twice, which hides nothing
            self._adopted.pop().unlink(missing_ok=True)

    def _join(self, losses: Iterable[Loss]) -> None:
        for loss in losses:
            if loss.is_recorded:
                self._again.append(msgspec.structs.replace(loss, is_recorded=False))
                continue
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


def _gap_of(loss: Loss) -> RawGap | None:
    """Return a loss as a gap for the ledger; None while its start is unknown."""
    if loss.from_us is None:
        return None
    detail = {} if loss.rows is None else {"rows": loss.rows}
    return RawGap(loss.dataset, loss.symbol, loss.from_us, loss.to_us, loss.cause, detail)


def _facts(loss: Loss) -> tuple[object, ...]:
    return (loss.dataset, loss.symbol, loss.cause, loss.from_us, loss.to_us, loss.rows)
