"""Recorded frames, as the lines of a file hold them.

Two formats, plain or gzipped, one frame a line: `<ns> <frame>` and `<seconds>: <frame>`, where a
frame is a combined-stream frame. Other lines (URLs, HTTP answers) are no frames and left out.
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
    """One line: when it was received, its stream, its payload and the whole combined frame."""

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
    """The frames of one file, in its order.

    Raises:
        ValueError: a line looks like a frame and is none, or the file is damaged; it names file
            and line.
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
                raise ValueError(f"{path}, line {number}: no frame: {error}") from error
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
            f"{path} ends within its gzip stream, after line {number}: the recording was cut off; "
            f"`zcat` into a plain file keeps what is readable"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}, after line {number}: no sound gzip file: {error}") from error


def merge_frames(paths: Sequence[Path]) -> Iterator[RecordedFrame]:
    """The frames of several files in order of their receipt; a single file's in its own order."""
    if len(paths) == 1:
        return read_frames(paths[0])
    return heapq.merge(*map(read_frames, paths), key=lambda frame: frame.received_ns)


def event_time_us(frame: RecordedFrame) -> int:
    """The event time of a frame in µs; 0 where it has none (spot bookTicker)."""
    return as_us(_read_time.decode(frame.payload).E)


def as_us(time: int) -> int:
    """A time in ms or µs as µs."""
    return time if time >= MICROSECONDS_FROM else time * US_PER_MS
