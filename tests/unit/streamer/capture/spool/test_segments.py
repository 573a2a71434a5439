"""Whole records are found again; bytes that are none cost no more than they must."""

from __future__ import annotations

import random
import zlib
from io import FileIO
from pathlib import Path

import msgspec
import pytest

from streamer.capture.spool.segments import (
    Piece,
    Record,
    encoded,
    last_number,
    name_of,
    piece_at,
    pieces,
    write_complete,
)

RECORDS = [Record("book_tickers", [f"row {n} {'x' * n}\n"]) for n in range(6)]
PARTS = [encoded(record) for record in RECORDS]
WHOLE = b"".join(PARTS)


def read_records(path: Path, data: bytes) -> list[Record | None]:
    path.write_bytes(data)
    return [piece.record for piece in pieces(path, 0, len(data))]


def test_reading_can_start_at_any_record(tmp_path: Path) -> None:
    path = tmp_path / "one"
    assert read_records(path, WHOLE) == RECORDS
    assert piece_at(path, len(PARTS[0]), len(WHOLE)) == Piece(
        RECORDS[1], len(PARTS[0]) + len(PARTS[1])
    )


@pytest.mark.parametrize("number", range(5))
def test_damaged_record_is_skipped_by_its_length(tmp_path: Path, number: int) -> None:
    parts = list(PARTS)
    parts[number] = parts[number][:-1] + b"!"
    expected = [*RECORDS[:number], None, *RECORDS[number + 1 :]]
    assert read_records(tmp_path / "one", b"".join(parts)) == expected


def test_bytes_after_a_damaged_length_are_skipped(tmp_path: Path) -> None:
    damaged = b"\x00\x00\x00\x05" + PARTS[2][4:]
    assert read_records(tmp_path / "one", b"".join([*PARTS[:2], damaged, *PARTS[3:]])) == [
        *RECORDS[:2], None
    ]  # fmt: skip


@pytest.mark.parametrize("zeros", [1, 7, 8, 9, 64, 5_000])
def test_zeros_are_not_a_record(tmp_path: Path, zeros: int) -> None:
    assert read_records(tmp_path / "one", WHOLE + bytes(zeros)) == [*RECORDS, None]
    assert read_records(tmp_path / "one", bytes(zeros)) == [None]


@pytest.mark.parametrize(
    "payload", [b"\xc1", msgspec.msgpack.encode(["a"]), msgspec.msgpack.encode([1, [2]])]
)
def test_undecodable_bytes_with_a_valid_checksum_are_not_a_record(
    tmp_path: Path, payload: bytes
) -> None:
    head = len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big")
    assert read_records(tmp_path / "one", head + payload + PARTS[0]) == [None, RECORDS[0]]


def test_random_damage_never_yields_a_record_that_was_not_written(tmp_path: Path) -> None:
    rng = random.Random(4)
    for _ in range(300):
        data = bytearray(WHOLE)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[start] ^= 1 << rng.randrange(8)
                case 1:
                    del data[start:]
                case 2:
                    data[start : start + 20] = bytes(20)
                case _:
                    data += rng.randbytes(rng.randrange(40))
            if not data:
                break
        kept = [
            record for record in read_records(tmp_path / "one", bytes(data)) if record is not None
        ]
        assert [record for record in RECORDS if record in kept] == kept


def test_truncated_file_is_read_up_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(WHOLE[:-3])
    assert [piece.record for piece in pieces(path, 0, len(WHOLE))] == [*RECORDS[:-1], None]


def test_partial_writes_are_completed(tmp_path: Path) -> None:
    class Slow(FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            return super().write(data[:5])

    with Slow(tmp_path / "one", "w") as file:
        write_complete(file, WHOLE)
    assert (tmp_path / "one").read_bytes() == WHOLE


def test_disk_that_accepts_no_bytes_is_an_error(tmp_path: Path) -> None:
    class Stuck(FileIO):
        def write(self, _: bytes) -> int:  # type: ignore[override]
            return 0

    with Stuck(tmp_path / "one", "w") as file, pytest.raises(OSError, match="takes nothing"):
        write_complete(file, WHOLE)


def test_files_are_numbered_in_their_order(tmp_path: Path) -> None:
    assert last_number(tmp_path) == 0
    for number in (2, 11, 1_000):
        (tmp_path / name_of(number)).touch()
    assert last_number(tmp_path) == 1_000
    assert sorted(path.name for path in tmp_path.iterdir()) == [name_of(n) for n in (2, 11, 1_000)]
