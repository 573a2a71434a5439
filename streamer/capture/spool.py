"""Rows that the exchange cannot serve again, on disk while PostgreSQL is away.

A queue of records in segment files, first in, first out. A record is a length, a CRC-32 and the
rows as lines of COPY. A process that is killed loses nothing that was appended, as the kernel
has it; a machine that loses its power loses at most ``SYNC_INTERVAL_S``, after which a segment
is synced while it grows (and once more when it is full). A torn record can only be the last of
its segment, since a new process never appends to an old one; it is left out and told. The
files' bytes are bounded: the oldest segment is dropped first, and what was in it is returned.

Blocking; safe between threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import structlog

from include.domain.timeframes import to_us
from include.errors import PermanentError
from include.store.raw import RAW_TABLES
from streamer.capture.losses import Loss, adopt_losses

log = structlog.get_logger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
SYNC_INTERVAL_S = 1.0
MOST_RECORD_BYTES = 64 * 1024 * 1024
"""A length beyond this is not one: the bytes are damaged."""
MOST_SPOOLS = 64
"""Processes that may spool below one folder."""

_HEAD = struct.Struct(">II")
_SUFFIX = ".spool"
FULL = "the spool was full while the database was away"


class Record(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one table, as lines of COPY."""

    dataset: str
    lines: list[str]


class _Place(NamedTuple):
    """A record's place: its segment and the offset behind it."""

    segment: int
    end: int


_DECODER = msgspec.msgpack.Decoder(Record)
_ENCODER = msgspec.msgpack.Encoder()


def claim_folder(root: Path) -> tuple[Path, BinaryIO]:
    """A folder below ``root`` that no other process spools to, and the file that holds the lock.

    What ended processes left in other folders is moved into it, to be replayed by this one.

    Raises:
        PermanentError: the folder cannot be made or written.
    """
    try:
        for number in range(MOST_SPOOLS):
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
    raise PermanentError(f"{MOST_SPOOLS} processes spool below {root} already")


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
            number = _last_number(folder)
            for segment in sorted(other.glob(f"*{_SUFFIX}")):
                number += 1
                segment.rename(folder / f"{number:010d}{_SUFFIX}")
            adopt_losses(other, folder)


def _last_number(folder: Path) -> int:
    return max((int(path.stem) for path in folder.glob(f"*{_SUFFIX}")), default=0)


class Spool:
    """A bounded queue of records on disk.

    Args:
        folder: of this process alone.
        max_bytes: of all segments together.
        segment_bytes: size at which a segment is full.
        sync_interval_s: see above.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        sync_interval_s: float = SYNC_INTERVAL_S,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(segment_bytes, max_bytes // 4))
        self._sync_interval_s = sync_interval_s
        self._lock = threading.Lock()
        self._sizes = {
            int(path.stem): path.stat().st_size for path in sorted(folder.glob(f"*{_SUFFIX}"))
        }
        """Bytes of each segment, the oldest first."""
        self._number = _last_number(folder)
        self._file: BinaryIO | None = None
        self._offset = 0
        """How far the oldest segment has been replayed."""
        self._reading: _Place | None = None
        self._synced_s = 0.0

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(self._sizes.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._sizes

    def append(self, record: Record) -> list[Loss]:
        """Put a record at the end; returns what had to be dropped to keep the bound.

        Raises:
            OSError: the disk does not take it; the record is not in the spool.
        """
        payload = _ENCODER.encode(record)
        data = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        with self._lock:
            file = self._writable()
            size = self._sizes[self._number]
            try:
                file.write(data)
                file.flush()
            except OSError:
                # Half a record would end the segment: cut it off, and go on with a new one.
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), size)
                self._close()
                raise
            self._sizes[self._number] = size + len(data)
            now_s = time.monotonic()
            if now_s - self._synced_s >= self._sync_interval_s:
                os.fsync(file.fileno())
                self._synced_s = now_s
            if self._sizes[self._number] >= self._segment_bytes:
                self._close()
            return self._keep_bound()

    def read(self) -> Record | None:
        """The oldest record, until ``done`` is said; None where nothing waits."""
        with self._lock:
            while self._sizes:
                number = next(iter(self._sizes))
                found = self._record_at(number, self._offset)
                if found is not None:
                    record, end = found
                    self._reading = _Place(number, end)
                    return record
                self._remove(number)
            return None

    def done(self) -> None:
        """The record that ``read`` returned is stored: go on behind it."""
        with self._lock:
            if self._reading is None:
                raise ValueError("done() without a record that was read")
            number, self._offset = self._reading
            self._reading = None
            if self._offset >= self._sizes[number]:
                self._remove(number)

    def close(self) -> None:
        """Sync and close; what waits is replayed by the next process."""
        with self._lock:
            self._close()

    # --- inside

    def _writable(self) -> BinaryIO:
        if self._file is None:
            self._number += 1
            self._file = self._path(self._number).open("xb")
            self._sizes[self._number] = 0
        return self._file

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010d}{_SUFFIX}"

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                os.fsync(file.fileno())

    def _record_at(self, number: int, offset: int) -> tuple[Record, int] | None:
        """The record that begins there and the offset behind it; None at the segment's end."""
        with self._path(number).open("rb") as file:
            file.seek(offset)
            head = file.read(_HEAD.size)
            if not head:
                return None
            size, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (-1, 0)
            payload = file.read(size) if 0 <= size <= MOST_RECORD_BYTES else b""
        if len(payload) == size and zlib.crc32(payload) == checksum:
            return _DECODER.decode(payload), offset + _HEAD.size + size
        log.warning(
            "spool_record_torn",
            segment=self._path(number).name,
            offset=offset,
            bytes_left_out=self._sizes[number] - offset,
        )
        return None

    def _remove(self, number: int) -> None:
        """Drop a segment; the one in writing is closed first."""
        if number == self._number:
            self._close()
        self._path(number).unlink()
        del self._sizes[number]
        self._offset = 0

    def _keep_bound(self) -> list[Loss]:
        losses: list[Loss] = []
        while self.size_bytes > self._max_bytes:
            # The record that is being stored at this moment is not lost: the next one goes.
            held = self._reading.segment if self._reading is not None else None
            oldest = next((one for one in self._sizes if one != held), None)
            if oldest is None or (oldest == self._number and self._file is not None):
                break
            offset = self._offset if oldest == next(iter(self._sizes)) else 0
            losses += self._losses_of(oldest, offset)
            held_offset = self._offset
            self._remove(oldest)
            if held is not None:
                self._offset = held_offset
        return losses

    def _losses_of(self, number: int, offset: int) -> list[Loss]:
        found: dict[tuple[str, str], list[int]] = {}
        while (place := self._record_at(number, offset)) is not None:
            record, offset = place
            tally(record.dataset, record.lines, found)
        return losses_of(found, FULL)


def tally(dataset: str, lines: Sequence[str], into: dict[tuple[str, str], list[int]]) -> None:
    """Add rows to a count by dataset and symbol: rows, first and last time (µs)."""
    at = RAW_TABLES[dataset].time_index
    for line in lines:
        fields = line.split("\t")
        moment_us = to_us(datetime.fromisoformat(fields[at].rstrip("\n")))
        entry = into.setdefault((dataset, fields[0]), [0, moment_us, moment_us])
        entry[0] += 1
        entry[1] = min(entry[1], moment_us)
        entry[2] = max(entry[2], moment_us)


def losses_of(counted: dict[tuple[str, str], list[int]], cause: str) -> list[Loss]:
    """A count of rows as losses."""
    return [
        Loss(dataset, symbol, cause, first_us, last_us, rows)
        for (dataset, symbol), (rows, first_us, last_us) in counted.items()
    ]
