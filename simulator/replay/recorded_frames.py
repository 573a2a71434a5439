"""Reads recorded frames from files.

Two formats, plain or gzipped, one frame per line: `<ns> <frame>` and `<seconds>: <frame>`, where a
frame is in combined form. Other lines (URLs, HTTP answers) are skipped.
"""

from __future__ import annotations

import gzip
import heapq
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from simulator.rest.parameters import MICROSECONDS_FROM
from simulator.wire.payloads import US_PER_MS

_NANOSECONDS = re.compile(rb"(\d{15,20}) (?=\{)")
_SECONDS = re.compile(rb"(\d{9,11})(?:\.(\d{1,9})\d*)?: (?=\{)")


class RecordedFrame(NamedTuple):
    """One line: time of receipt, stream, payload and the whole combined frame."""

    received_ns: int
    stream: str
    payload: bytes
    frame: bytes


class _Wrapper(msgspec.Struct):
    stream: str
    data: msgspec.Raw


class _Timed(msgspec.Struct):
    E: int = 0


_read_wrapper = msgspec.json.Decoder(_Wrapper)
_read_time = msgspec.json.Decoder(_Timed)


def read_frames(path: Path) -> Iterator[RecordedFrame]:
    """Yield the frames of one file, in order.

    Raises:
        ValueError: a frame cannot be read, or the file is damaged; names file and line.
    """
    with _open(path) as lines:
        for number, line in _numbered(path, lines):
            head = _NANOSECONDS.match(line)
            if head is not None:
                received_ns = int(head[1])
            else:
                head = _SECONDS.match(line)
                if head is None:
                    continue
                received_ns = int(head[1]) * 10**9 + int((head[2] or b"").ljust(9, b"0"))
            frame = line[head.end() :].rstrip()
            if not frame.startswith(b'{"stream"'):
                continue  # an HTTP answer
            try:
                wrapper = _read_wrapper.decode(frame)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: not a frame: {error}") from error
            yield RecordedFrame(received_ns, wrapper.stream, bytes(wrapper.data), frame)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _numbered(path: Path, lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            yield number, line
    except EOFError as error:
        raise ValueError(
            f"{path} is truncated: its gzip stream ends after line {number}; `zcat` into a plain "
            "file keeps the readable part"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}, after line {number}: damaged gzip file: {error}") from error


def merge_frames(paths: Sequence[Path]) -> Iterator[RecordedFrame]:
    """Yield the frames of several files by time of receipt; a single file keeps its order."""
    if len(paths) == 1:
        return read_frames(paths[0])
    return heapq.merge(*map(read_frames, paths), key=lambda frame: frame.received_ns)


def event_time_us(frame: RecordedFrame) -> int:
    """Return the event time of a frame in µs; 0 if it has none (spot bookTicker)."""
    return as_us(_read_time.decode(frame.payload).E)


def as_us(time: int) -> int:
    """Convert a time in ms or µs to µs."""
    return time if time >= MICROSECONDS_FROM else time * US_PER_MS
