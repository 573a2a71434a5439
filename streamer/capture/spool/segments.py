"""Files of the spool: a sequence of records, each with its length and CRC-32.

A power cut or a bad disk may leave zeros, half a record, or a flipped bit. If the lengths lead past
the damage to a whole record, the damage ends there. Otherwise the start of the next record is
unknown, and the damage extends to the end of the file.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Maximum length of a record; a larger length means that the bytes are damaged."""

SUFFIX = ".spool"

_HEAD = struct.Struct(">II")


class Record(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one table, as lines of COPY."""

    dataset: str
    lines: list[str]


class Piece(NamedTuple):
    """Content at an offset of a file.

    Attributes:
        record: None if the bytes are not a record.
        end: the offset after it.
    """

    record: Record | None
    end: int


_DECODER = msgspec.msgpack.Decoder(Record)
_ENCODER = msgspec.msgpack.Encoder()


def name_of(number: int) -> str:
    """Return a file's name; files are numbered in order of creation."""
    return f"{number:010d}{SUFFIX}"


def last_number(folder: Path) -> int:
    """Return the greatest file number in a folder; 0 without files."""
    return max((int(path.stem) for path in folder.glob(f"*{SUFFIX}")), default=0)


def encoded(record: Record) -> bytes:
    """Encode a record as stored in a file."""
    payload = _ENCODER.encode(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def write_complete(file: FileIO, data: bytes) -> None:
    """Write all bytes; a full disk accepts some of them and fails the next write.

    Raises:
        OSError: the disk refuses them; some may be in the file.
    """
    rest = memoryview(data)
    while rest:
        written = file.write(rest)
        if not written:
            raise OSError(errno.EIO, "the disk takes nothing", file.name)
        rest = rest[written:]


def piece_at(path: Path, offset: int, size: int) -> Piece:
    """Read the content at an offset of a file.

    Args:
        offset: below the size.
        size: bytes of the file to read.

    Raises:
        OSError: the disk does not return it.
    """
    with path.open("rb") as file:
        return _piece(file, offset, size)


def pieces(path: Path, offset: int, size: int) -> Iterator[Piece]:
    """Read all records of a file from an offset on; arguments and errors as in ``piece_at``."""
    with path.open("rb") as file:
        while offset < size:
            piece = _piece(file, offset, size)
            yield piece
            offset = piece.end


def _piece(file: BinaryIO, offset: int, size: int) -> Piece:
    record, end = _record_at(file, offset, size)
    if record is not None:
        return Piece(record, end)
    while end < size:
        record, behind = _record_at(file, end, size)
        if record is not None:
            break
        end = behind
    return Piece(None, end)


def _record_at(file: BinaryIO, offset: int, size: int) -> Piece:
    """Return the record at this offset if it is whole, and its end if its length is plausible."""
    file.seek(offset)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return Piece(None, size)
    length, checksum = _HEAD.unpack(head)
    end = offset + _HEAD.size + length
    # Zeros would be a record of length 0 with a valid CRC-32.
    if not 0 < length <= MAX_RECORD_BYTES or end > size:
        return Piece(None, size)
    payload = file.read(length)
    if len(payload) < length or zlib.crc32(payload) != checksum:
        return Piece(None, end)
    try:
        return Piece(_DECODER.decode(payload), end)
    except msgspec.DecodeError:
        return Piece(None, end)
