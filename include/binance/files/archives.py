"""Read text from ``.zip``, ``.gz`` or plain files, in blocks of whole lines.

Nothing is unpacked to disk and no name inside an archive is used as a path. Memory is bounded by
the block size; the decompressed size and the reading time have bounds of their own, whatever the
archive states.
"""

from __future__ import annotations

import gzip
import hashlib
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from include.counts import counted
from include.errors import RejectedInputError

BLOCK_BYTES = 16 << 20
"""Decompressed bytes parsed together, about 200,000 rows. Smaller blocks cost more calls; the
allocator returns the memory of larger ones to the system and maps it again (10 % slower)."""

MAX_LINE_BYTES = 1 << 16
"""A longer line is not a row of a market-data file."""

OnRead = Callable[[float], None]
"""Receives the share of a file (0..1) that has been read."""

MAX_TEXT_BYTES = 64 << 30
"""Bound of a file's decompressed size: a hundred years of minutes have 8 GB."""
MAX_RATIO = 250
"""Bound of decompressed to compressed size. Minutes without trades compress best, by 22."""
RATIO_FROM_BYTES = 16 << 20
"""Small files may have any ratio."""
MAX_READ_S = 3_600.0
"""Maximum time for reading a file once, including the processing of its rows."""

_READ_BYTES = 1 << 20
_HEX = frozenset("0123456789abcdef")
_CORRUPT = (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_in(text: str) -> str | None:
    """Return the SHA-256 of a CHECKSUM file, which has the sum and the name; None without one."""
    checksum = next(iter(text.split()), "").lower()
    return checksum if len(checksum) == 64 and _HEX.issuperset(checksum) else None


def check_archive(path: Path) -> None:
    """Read a file to its end, to find corruption before any row is used.

    Raises:
        RejectedInputError: the archive is damaged, truncated or encrypted, or does not contain
            exactly one file.
    """
    with _opened(path) as (stream, _):
        while stream.read(_READ_BYTES):
            pass


def member_name(path: Path) -> str:
    """Return the name of the file in a zip; empty for other files, which have one name.

    Raises:
        RejectedInputError: as ``check_archive``.
    """
    if path.suffix != ".zip":
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            return _only_member(path, archive).filename.rpartition("/")[2]
    except _CORRUPT as error:
        raise RejectedInputError(
            f"{path.name} is damaged: {error or type(error).__name__}; fetch or copy it again"
        ) from error


def read_blocks(
    path: Path, *, block_bytes: int = BLOCK_BYTES, on_read: OnRead | None = None
) -> Iterator[bytes]:
    """Yield the file's text in blocks of whole lines (the last one may end without a newline).

    Args:
        on_read: receives the share of the file (0..1, before decompression) that has been read.

    Raises:
        RejectedInputError: as ``check_archive``; or a line is not text.
    """
    rest = b""
    size = path.stat().st_size if path.is_file() else 0
    with _opened(path) as (stream, raw):
        while chunk := _read(stream, block_bytes):
            end = chunk.rfind(b"\n") + 1
            tail = chunk[end:] if end else rest + chunk
            if len(tail) > MAX_LINE_BYTES:
                raise RejectedInputError(
                    f"{path.name} is not a text file of rows: it has a line of more than "
                    f"{MAX_LINE_BYTES} bytes"
                )
            if on_read is not None:
                on_read(min(1.0, raw.tell() / max(size, 1)))
            if end:
                # A single copy: copying dominates memory use.
                whole = b"".join((rest, memoryview(chunk)[:end]))
                rest = tail
                del chunk
                yield whole
                del whole
            else:
                rest = tail
    if rest:
        yield rest


def _read(stream: IO[bytes], size: int) -> bytes:
    """Read up to a number of bytes, in pieces.

    A large read makes ``zipfile`` copy its input repeatedly (0.66 s instead of 0.41 s for 250 MB).
    """
    pieces: list[bytes] = []
    while size > 0 and (piece := stream.read(min(size, _READ_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


class _Bounded:
    """A compressed text whose size, ratio and time are bounded, whatever the archive states."""

    def __init__(self, path: Path, text: IO[bytes]) -> None:
        self._path = path
        self._text = text
        self._most = MAX_RATIO * path.stat().st_size
        self._until_s = time.monotonic() + MAX_READ_S
        self._size = 0

    def read(self, size: int) -> bytes:
        data = self._text.read(size)
        self._size += len(data)
        if self._size > MAX_TEXT_BYTES:
            raise self._refused(f"expands to more than {MAX_TEXT_BYTES >> 30} GiB of text")
        if self._size > max(self._most, RATIO_FROM_BYTES):
            raise self._refused(f"expands to more than {MAX_RATIO} times its size")
        if time.monotonic() > self._until_s:
            raise self._refused(f"takes more than {MAX_READ_S:g} s to read")
        return data

    def _refused(self, what: str) -> RejectedInputError:
        return RejectedInputError(f"{self._path.name} {what}; split it, or unpack it first")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file's single text as a stream of bytes; yield it and the raw file below it.

    Damage found while reading raises ``RejectedInputError``.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".zip":
                with zipfile.ZipFile(raw) as archive:
                    member = _only_member(path, archive)
                    with archive.open(member) as text:
                        yield cast("IO[bytes]", _Bounded(path, text)), raw
            elif path.suffix == ".gz":
                with gzip.open(raw) as text:
                    yield cast("IO[bytes]", _Bounded(path, cast("IO[bytes]", text))), raw
            else:
                yield raw, raw
    except _CORRUPT as error:
        raise RejectedInputError(
            f"{path.name} is damaged: {error or type(error).__name__}; fetch or copy it again"
        ) from error
    except FileNotFoundError as error:
        raise RejectedInputError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise RejectedInputError(f"{path} is a folder; name the files in it") from error
    except PermissionError as error:
        raise RejectedInputError(f"{path} cannot be read: permission denied") from error


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    files = [
        one
        for one in archive.infolist()
        if not one.is_dir() and not one.filename.startswith("__MACOSX/")
    ]
    if len(files) != 1:
        raise RejectedInputError(
            f"{path.name} holds {counted(len(files), 'file')}; a dump holds one CSV file"
        )
    if files[0].flag_bits & 0x1:
        raise RejectedInputError(f"{path.name} is encrypted; remove the password first")
    return files[0]
