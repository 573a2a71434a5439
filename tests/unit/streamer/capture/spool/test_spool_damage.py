"""A power cut, a bad disk or an operator costs little of the spool, and is reported."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from streamer.capture.spool.losses import Loss
from streamer.capture.spool.segments import encoded
from streamer.capture.spool.spool import DAMAGED, FULL, GONE, Spool
from tests.unit.streamer.capture.spooled import (
    drained,
    modify,
    numbers_of,
    record,
    replayed,
    segments,
    stretches,
)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_truncated_file_loses_only_its_last_record(tmp_path: Path, cut: int) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(3):
        killed.append(record(n))
    (segment,) = tmp_path.glob("*.spool")
    segment.write_bytes(segment.read_bytes()[:-cut])

    after = Spool(tmp_path, max_bytes=1 << 20)
    after.append(record(9))
    assert drained(after) == [0, 1, 9]


def test_damaged_record_yields_no_rows(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(3):
        killed.append(record(n))
    (segment,) = tmp_path.glob("*.spool")
    data = bytearray(segment.read_bytes())
    data[-10] ^= 1
    segment.write_bytes(data)
    assert drained(Spool(tmp_path, max_bytes=1 << 20)) == [0, 1]


@pytest.mark.parametrize("zeros", [1, 8, 64, 10_000])
def test_zeros_at_the_end_are_reported_as_damage(tmp_path: Path, zeros: int) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(3):
        killed.append(record(n))
    modify(segments(tmp_path)[0], lambda data: data.extend(bytes(zeros)))

    after = Spool(tmp_path, max_bytes=1 << 20)
    after.append(record(9))
    found, lost = replayed(after)
    assert found == [0, 1, 2, 9]
    assert stretches(lost) == [("BTCUSDT", DAMAGED, 2, 9)]


def test_damaged_record_is_reported_and_costs_no_other(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(1, 6):
        killed.append(record(n, n, symbol="AB"[n % 2]))
    offset = len(encoded(record(1, 1, symbol="B")))
    modify(segments(tmp_path)[0], lambda data: data.__setitem__(offset + 50, data[offset + 50] ^ 1))

    after = Spool(tmp_path, max_bytes=1 << 20)
    after.append(record(6, symbol="C"))
    found, lost = replayed(after)
    assert found == [1, 1, 3, 3, 4, 4, 5, 5, 6]
    # Its symbol is unknown: one of those beside it, in the same file.
    assert stretches(lost) == [("A", DAMAGED, 1, 3), ("B", DAMAGED, 1, 3)]
    assert {loss.rows for loss in lost} == {None}


def test_consecutive_damaged_records_cost_no_other(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(5):
        killed.append(record(n))
    size = len(encoded(record(0)))
    for n in (1, 2):
        modify(segments(tmp_path)[0], lambda data, at=n * size + 30: data.__setitem__(at, 0))  # type: ignore[misc]
    found, lost = replayed(Spool(tmp_path, max_bytes=1 << 20))
    assert found == [0, 3, 4]
    assert stretches(lost) == [("BTCUSDT", DAMAGED, 0, 3)]


def test_damaged_length_loses_the_rest_of_its_file_and_is_reported(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(5):
        killed.append(record(n))
    modify(segments(tmp_path)[0], lambda data: data.__setitem__(len(encoded(record(0))) + 3, 3))

    after = Spool(tmp_path, max_bytes=1 << 20)
    for n in (6, 7):
        after.append(record(n))
    found, lost = replayed(after)
    assert found == [0, 6, 7]
    assert stretches(lost) == [("BTCUSDT", DAMAGED, 0, 6)]


def test_loss_without_a_known_previous_row_has_an_open_start(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(3):
        killed.append(record(n))
    modify(segments(tmp_path)[0], lambda data: data.__setitem__(30, 0))
    found, lost = replayed(Spool(tmp_path, max_bytes=1 << 20))
    assert found == [1, 2]
    assert stretches(lost) == [("BTCUSDT", DAMAGED, None, 1)]


def test_deleted_file_is_reported_from_its_first_to_its_last_row(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20, segment_bytes=250)
    for n in range(9):
        spool.append(record(n, symbol="AB"[n % 2]))
    assert len(segments(tmp_path)) == 3
    segments(tmp_path)[1].unlink()
    found, lost = replayed(spool)
    assert found == [0, 1, 2, 6, 7, 8]
    assert stretches(lost) == [("A", GONE, 3, 5), ("B", GONE, 3, 5)]


def test_each_deleted_file_is_reported_if_all_are_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20, segment_bytes=250)
    for n in range(8):
        spool.append(record(n))
    for one in segments(tmp_path):
        one.unlink()
    found, lost = replayed(spool)
    assert found == []
    assert stretches(lost) == [
        ("BTCUSDT", GONE, 0, 2), ("BTCUSDT", GONE, 3, 5), ("BTCUSDT", GONE, 6, 7)
    ]  # fmt: skip
    assert segments(tmp_path) == []


def test_new_file_is_started_if_the_current_one_was_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(3):
        spool.append(record(n))
    segments(tmp_path)[0].unlink()
    for n in range(3, 6):
        spool.append(record(n))
    found, lost = replayed(spool)
    assert found == [3, 4, 5]
    assert stretches(lost) == [("BTCUSDT", GONE, 0, 2)]


def test_deleted_file_of_an_earlier_process_is_reported_up_to_the_next_row(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20, segment_bytes=250)
    for n in range(6):
        killed.append(record(n))
    after = Spool(tmp_path, max_bytes=1 << 20)
    segments(tmp_path)[0].unlink()
    found, lost = replayed(after)
    assert found == [3, 4, 5]
    assert stretches(lost) == [("BTCUSDT", GONE, None, 3)]


def test_dropped_file_is_reported_even_if_damaged_or_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=2_000, segment_bytes=250)
    for n in range(9):
        spool.append(record(n))
    first, second, _ = segments(tmp_path)
    modify(first, lambda data: data.__setitem__(30, 0))
    second.unlink()
    losses = [loss for n in range(9, 26) for loss in spool.append(record(n))]
    assert stretches(losses) == [
        ("BTCUSDT", FULL, 1, 2),
        ("BTCUSDT", DAMAGED, 0, 2),
        ("BTCUSDT", GONE, 3, 5),
    ]


@pytest.mark.parametrize("seed", range(40))
def test_every_row_is_replayed_in_order_or_reported_after_any_damage(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    spool = Spool(tmp_path, max_bytes=5_000, segment_bytes=600)
    found: list[int] = []
    lost: list[Loss] = []

    def replay_one() -> None:
        one = spool.read()
        if isinstance(one, list):
            lost.extend(one)
        elif one is not None and rng.random() < 0.8:  # else the database was away
            found.extend(numbers_of(one))
            spool.done()

    for number in range(120):
        lost += spool.append(record(number))
        for _ in range(rng.randrange(3)):
            replay_one()
        files = segments(tmp_path)
        if files and rng.random() < 0.1:
            with rng.choice(files).open("r+b") as file:
                file.seek(rng.randrange(600))
                file.write(rng.randbytes(1))
        if files and rng.random() < 0.05:
            rng.choice(files).unlink()
    while not spool.is_empty:
        replay_one()
    assert found == sorted(found)
    told = {
        number
        for _, _, from_number, to_number in stretches(lost)
        for number in range(-1 if from_number is None else from_number, to_number + 1)
    }
    assert set(range(120)) - set(found) <= told
    assert segments(tmp_path) == []
