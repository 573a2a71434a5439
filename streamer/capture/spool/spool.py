"""Rows that the exchange cannot serve again, on disk while PostgreSQL is away.

A queue of records in segment files, first in, first out. A killed process loses nothing that was
appended, because the kernel has it. A power cut loses at most ``SYNC_INTERVAL_S``: a growing
segment is synced at this interval, and once more when it is full. A new process never appends to an
old segment. The total size is bounded: the oldest segment is dropped first, and its losses are
returned. Damaged or missing data is skipped and its losses are returned too: its rows are unknown,
so each symbol of the spool is reported.

Blocking; thread-safe.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import structlog

from include.domain.timeframes import to_us
from include.store.trades.captured import RAW_TABLES
from streamer.capture.spool.losses import Loss
from streamer.capture.spool.segments import (
    SUFFIX,
    Record,
    encoded,
    last_number,
    name_of,
    piece_at,
    pieces,
    write_complete,
)

log = structlog.get_logger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
SYNC_INTERVAL_S = 1.0
FULL = "the spool was full while the database was away"
DAMAGED = "the spool was damaged on the disk"
GONE = "a file of the spool was deleted"


class _Place(NamedTuple):
    """Position of a record: its segment and the offset after it."""

    segment: int
    end: int


@dataclass(slots=True)
class _Segment:
    """A segment file of the queue.

    Attributes:
        size: bytes of complete records, as far as this process wrote the file.
        modified_us: when an earlier process last wrote it.
        times_us: times of the first and the last row of each dataset, if this process wrote them.
    """

    size: int = 0
    modified_us: int = 0
    times_us: dict[str, tuple[int, int]] = field(default_factory=dict)


class Spool:
    """A bounded queue of records on disk.

    Args:
        folder: exclusive folder of this process.
        max_bytes: maximum bytes of all segments together.
        segment_bytes: size at which a segment is full.
        sync_interval_s: seconds between syncs of a growing segment.
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
        self._segments: dict[int, _Segment] = {}
        """Segments, oldest first."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            found = path.stat()
            self._segments[int(path.stem)] = _Segment(found.st_size, found.st_mtime_ns // 1000)
        self._left: dict[int, int] = {}
        """Bytes of replayed segments whose files could not be deleted yet."""
        self._number = last_number(folder)
        self._file: FileIO | None = None
        self._offset = 0
        """Offset up to which the oldest segment has been replayed."""
        self._reading: _Place | None = None
        self._read_us: dict[str, int] = {}
        """Time of the last row of each dataset that was read."""
        self._appended: dict[str, set[str]] = {}
        """Symbols with rows from this process, by dataset."""
        self._found: dict[str, set[str]] = {}
        """Symbols with rows that were read, by dataset."""
        self._synced_s = float("-inf")

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._waiting_bytes + sum(self._left.values())

    @property
    def is_empty(self) -> bool:
        """Whether the queue is empty."""
        return not self._segments

    def append(self, record: Record) -> list[Loss]:
        """Append a record; return the losses of segments dropped to stay within the bound.

        Raises:
            OSError: the disk refuses the write; the record is not in the spool.
        """
        data = encoded(record)
        with self._lock:
            file = self._writable()
            segment = self._segments[self._number]
            size = segment.size
            try:
                write_complete(file, data)
                segment.size += len(data)
                now_s = time.monotonic()
                if now_s - self._synced_s >= self._sync_interval_s:
                    os.fsync(file.fileno())
                    self._synced_s = now_s
                if segment.size >= self._segment_bytes:
                    self._close()
            except OSError:
                self._undo(size)
                raise
            first_us, last_us = _note(record, self._appended)
            begin_us, _ = segment.times_us.get(record.dataset, (first_us, last_us))
            segment.times_us[record.dataset] = (begin_us, last_us)
            return self._keep_bound()

    def read(self) -> Record | list[Loss] | None:
        """Return the oldest record, until ``done`` is called; None if the queue is empty.

        If the record is damaged or gone, return its losses; the next call continues after it.

        Raises:
            OSError: the disk does not return the record.
        """
        with self._lock:
            self._reading = None
            while self._segments:
                number, segment = next(iter(self._segments.items()))
                if self._offset >= segment.size:
                    self._remove(number)
                    continue
                try:
                    record, end = piece_at(self._path(number), self._offset, segment.size)
                except FileNotFoundError as error:
                    losses = self._lost(number, segment.size, GONE)
                    _log_unreadable(number, segment.size - self._offset, error)
                    self._remove(number)
                    return losses
                except OSError as error:
                    error.filename = self._path(number)  # an error of read() has no file name
                    raise
                if record is None:
                    losses = self._lost(number, end, DAMAGED)
                    _log_torn(number, self._offset, end)
                    self._offset = end
                    return losses
                self._reading = _Place(number, end)
                _, self._read_us[record.dataset] = _note(record, self._found)
                return record
            return None

    def done(self) -> None:
        """Mark the record that ``read`` returned as stored, and continue after it."""
        with self._lock:
            if self._reading is None:
                raise ValueError("done() without a record that was read")
            number, self._offset = self._reading
            self._reading = None
            if self._offset >= self._segments[number].size:
                self._remove(number)

    def close(self) -> None:
        """Sync and close; the next process replays the remaining records.

        Raises:
            OSError: the disk refuses the sync.
        """
        with self._lock:
            self._close()

    # --- files

    @property
    def _waiting_bytes(self) -> int:
        return sum(segment.size for segment in list(self._segments.values()))

    def _writable(self) -> FileIO:
        if self._file is not None and not os.fstat(self._file.fileno()).st_nlink:
            self._let_go()  # the file was deleted from outside
        if self._file is None:
            if sum(self._left.values()) > self._max_bytes:
                raise OSError(errno.ENOSPC, "files of the spool cannot be removed", self._folder)
            self._number += 1
            # Unbuffered: a buffer would hold bytes that the disk refused and write them at close.
            self._file = self._path(self._number).open("xb", buffering=0)
            self._segments[self._number] = _Segment()
        return self._file

    def _path(self, number: int) -> Path:
        return self._folder / name_of(number)

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                os.fsync(file.fileno())

    def _let_go(self) -> None:
        """Close a segment without a sync, because it is not read again."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                file.close()

    def _undo(self, size: int) -> None:
        """Truncate a partly written record after a refusal; the next one goes into a new file."""
        self._segments[self._number].size = size
        if not size:
            self._remove(self._number)
            return
        with contextlib.suppress(OSError):
            os.truncate(self._path(self._number), size)
        with contextlib.suppress(OSError):
            self._close()

    def _remove(self, number: int) -> None:
        """Drop a segment, and delete its file as soon as the disk allows it."""
        if number == self._number:
            self._let_go()
        if number == next(iter(self._segments)):
            self._offset = 0
        self._left[number] = self._segments.pop(number).size
        for left in list(self._left):
            try:
                self._path(left).unlink(missing_ok=True)
            except OSError as error:
                if left == number:
                    log.error("spool_file_left", segment=name_of(left), error=str(error))  # noqa: TRY400
            else:
                del self._left[left]

    # --- what is lost

    def _keep_bound(self) -> list[Loss]:
        losses: list[Loss] = []
        while self._waiting_bytes > self._max_bytes:
            # The record being stored now is not lost, so the next segment is dropped.
            held = self._reading.segment if self._reading is not None else None
            oldest = next((one for one in self._segments if one != held), None)
            if oldest is None or (oldest == self._number and self._file is not None):
                break
            losses += self._dropped(oldest)
            self._remove(oldest)
        return losses

    def _dropped(self, number: int) -> list[Loss]:
        offset = self._offset if number == next(iter(self._segments)) else 0
        size = self._segments[number].size
        found: dict[tuple[str, str], list[int]] = {}
        cause = ""
        try:
            for record, end in pieces(self._path(number), offset, size):
                if record is None:
                    cause = DAMAGED
                    _log_torn(number, offset, end)
                else:
                    tally(record.dataset, record.lines, found)
                offset = end
        except OSError as error:
            cause = GONE if isinstance(error, FileNotFoundError) else DAMAGED
            _log_unreadable(number, size - offset, error)
        losses = losses_of(found, FULL)
        return losses + self._lost(number, size, cause) if cause else losses

    def _lost(self, number: int, end: int, cause: str) -> list[Loss]:
        """Return the losses up to an offset: rows between the last record before and the first one
        after.

        If an earlier process wrote them and none has been read before, the last row before comes
        from the table. If there is none after them either, nothing is reported here: the table's
        last row shows what was missed while no process captured.
        """
        segment = self._segments[number]
        behind_us = self._first_behind(number, end)
        symbols = self._appended if segment.times_us else self._found
        losses: list[Loss] = []
        for dataset in segment.times_us or symbols:
            first_us, last_us = segment.times_us.get(dataset, (None, None))
            befores = [one for one in (first_us, self._read_us.get(dataset)) if one is not None]
            behinds = [one for one in (last_us, behind_us.get(dataset)) if one is not None]
            from_us = max(befores, default=None)
            to_us = min(behinds, default=segment.modified_us)
            if from_us is not None and from_us > to_us:
                from_us = None  # another process's rows were read before
            losses += [
                Loss(dataset, symbol, cause, from_us, to_us) for symbol in sorted(symbols[dataset])
            ]
        return losses

    def _first_behind(self, number: int, end: int) -> dict[str, int]:
        """Return the time of each dataset's first row after a place, from the first file that has
        one."""
        found: dict[str, int] = {}
        for later, segment in self._segments.items():
            if later < number:
                continue
            offset = end if later == number else 0
            with contextlib.suppress(OSError):  # that loss is reported separately
                for record, _ in pieces(self._path(later), offset, segment.size):
                    if record is not None:
                        found.setdefault(record.dataset, _note(record, self._found)[0])
            if found:
                break
        return found


def _log_torn(number: int, offset: int, end: int) -> None:
    log.warning(
        "spool_record_torn", segment=name_of(number), offset=offset, bytes_left_out=end - offset
    )


def _log_unreadable(number: int, left_out: int, error: OSError) -> None:
    log.warning(
        "spool_file_lost", segment=name_of(number), bytes_left_out=left_out, error=str(error)
    )


def _note(record: Record, into: dict[str, set[str]]) -> tuple[int, int]:
    """Add a record's symbols to those known, by dataset; return the times (µs) of its first and
    last row."""
    symbols = into.setdefault(record.dataset, set())
    symbols.update(line.partition("\t")[0] for line in record.lines)
    first, last = record.lines[0], record.lines[-1]
    return _moment_us(record.dataset, first), _moment_us(record.dataset, last)


def _moment_us(dataset: str, line: str) -> int:
    at = line.split("\t")[RAW_TABLES[dataset].time_index]
    return to_us(datetime.fromisoformat(at.rstrip("\n")))


def tally(dataset: str, lines: Sequence[str], into: dict[tuple[str, str], list[int]]) -> None:
    """Add rows to a count by dataset and symbol: rows, first and last time (µs)."""
    for line in lines:
        moment_us = _moment_us(dataset, line)
        entry = into.setdefault((dataset, line.partition("\t")[0]), [0, moment_us, moment_us])
        entry[0] += 1
        entry[1] = min(entry[1], moment_us)
        entry[2] = max(entry[2], moment_us)


def losses_of(counted: dict[tuple[str, str], list[int]], cause: str) -> list[Loss]:
    """Convert a count of rows to losses."""
    return [
        Loss(dataset, symbol, cause, first_us, last_us, rows)
        for (dataset, symbol), (rows, first_us, last_us) in counted.items()
    ]
