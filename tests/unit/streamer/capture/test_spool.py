"""The spool keeps order over restarts, tolerates torn ends, and never outgrows its bound."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from pathlib import Path

import pytest

from include.errors import PermanentError
from include.store.raw import BOOK_TICKERS
from streamer.capture import spool as module
from streamer.capture.losses import LOSSES_FILE, Loss, Losses
from streamer.capture.spool import FULL, Record, Spool, claim_folder

AT_US = 1_763_716_800_000_000
"""2025-11-21 09:20 UTC."""


def record(*numbers: int, symbol: str = "BTCUSDT") -> Record:
    price = Decimal("1.5")
    return Record(
        BOOK_TICKERS.name,
        [
            BOOK_TICKERS.line((symbol, n, price, price, price, price, None, AT_US + n))
            for n in numbers
        ],
    )


def numbers_of(record: Record | None) -> list[int]:
    assert record is not None
    return [int(line.split("\t")[2]) for line in record.lines]


def drained(spool: Spool) -> list[int]:
    found: list[int] = []
    while (one := spool.read()) is not None:
        found += numbers_of(one)
        spool.done()
    return found


def test_records_come_back_in_order_and_leave_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20, segment_bytes=300)
    for n in range(10):
        assert spool.append(record(n)) == []
    assert len(list(tmp_path.glob("*.spool"))) > 2
    assert drained(spool) == list(range(10))
    assert spool.is_empty
    assert spool.size_bytes == 0
    assert list(tmp_path.glob("*.spool")) == []


def test_what_was_not_stored_is_read_again_also_by_the_next_process(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(4):
        killed.append(record(n))
    assert numbers_of(killed.read()) == [0]
    killed.done()
    assert numbers_of(killed.read()) == numbers_of(killed.read()) == [1]

    after = Spool(tmp_path, max_bytes=1 << 20)
    after.append(record(4))
    assert drained(after) == [0, 1, 2, 3, 4]  # 0 again: the table takes it once


def test_the_end_of_the_queue_is_read_while_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(5):
        spool.append(record(n))
        assert numbers_of(spool.read()) == [n]
        spool.done()
    assert spool.is_empty


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_end_costs_the_torn_record_alone(tmp_path: Path, cut: int) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(3):
        killed.append(record(n))
    (segment,) = tmp_path.glob("*.spool")
    segment.write_bytes(segment.read_bytes()[:-cut])

    after = Spool(tmp_path, max_bytes=1 << 20)
    after.append(record(9))
    assert drained(after) == [0, 1, 9]


def test_a_damaged_record_is_not_taken_for_rows(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(3):
        killed.append(record(n))
    (segment,) = tmp_path.glob("*.spool")
    data = bytearray(segment.read_bytes())
    data[-10] ^= 1
    segment.write_bytes(data)
    assert drained(Spool(tmp_path, max_bytes=1 << 20)) == [0, 1]


def test_the_oldest_is_dropped_first_and_told(tmp_path: Path) -> None:
    bound = 4_000
    spool = Spool(tmp_path, max_bytes=bound, segment_bytes=500)
    losses = []
    for n in range(200):
        losses += spool.append(record(n, symbol="AB"[n % 2]))
        on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.spool"))
        assert on_disk == spool.size_bytes <= bound
    left = drained(spool)
    assert left == list(range(left[0], 200))
    assert sum(loss.rows or 0 for loss in losses) == left[0]
    assert {(loss.dataset, loss.symbol, loss.cause) for loss in losses} == {
        ("book_tickers", "A", FULL),
        ("book_tickers", "B", FULL),
    }
    assert min(loss.from_us for loss in losses) == AT_US
    assert max(loss.to_us for loss in losses) == AT_US + left[0] - 1


def test_a_record_that_is_being_stored_is_not_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=4_000, segment_bytes=500)
    for n in range(10):
        spool.append(record(n))
    assert numbers_of(spool.read()) == [0]
    losses = [loss for n in range(10, 200) for loss in spool.append(record(n))]
    spool.done()
    left = drained(spool)
    assert 0 not in left
    assert sum(loss.rows or 0 for loss in losses) + len(left) + 1 == 200


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append(record(1))

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def write(self, data: bytes) -> None:
            self.file.write(data[:20])  # type: ignore[attr-defined]
            self.file.flush()  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_file", Full(spool._file))
        with pytest.raises(OSError, match="No space left"):
            spool.append(record(2))
    spool._file = None
    spool.append(record(3))
    assert drained(spool) == [1, 3]


def test_each_process_has_a_folder_of_its_own_and_takes_over_those_of_ended_ones(
    tmp_path: Path,
) -> None:
    folder, lock = claim_folder(tmp_path)
    other, other_lock = claim_folder(tmp_path)
    assert folder != other
    Spool(folder, max_bytes=1 << 20).append(record(1))
    ended = Spool(other, max_bytes=1 << 20)
    ended.append(record(2))
    with contextlib.closing(lock), contextlib.closing(other_lock):
        pass

    mine, third_lock = claim_folder(tmp_path)
    with contextlib.closing(third_lock):
        assert drained(Spool(mine, max_bytes=1 << 20)) == [1, 2]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(PermanentError, match="CANDELABRA_HOME"):
        claim_folder(tmp_path / "spool")


def test_syncs_are_rationed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", synced.append)
    spool = Spool(tmp_path, max_bytes=1 << 20, sync_interval_s=3600)
    for n in range(50):
        spool.append(record(n))
    assert len(synced) == 1
    spool.close()
    assert len(synced) == 2


def test_losses_that_ended_processes_could_not_record_are_taken_over(tmp_path: Path) -> None:
    locks = []
    for number in range(3):
        folder, lock = claim_folder(tmp_path)
        losses = Losses(folder / LOSSES_FILE)
        losses.add([Loss("book_tickers", "BTCUSDT", FULL, AT_US, AT_US + 1, 10**number)])
        losses.save()
        locks.append(lock)
    for lock in locks:
        lock.close()
    for _ in range(2):  # the second time they are in the one file
        folder, lock = claim_folder(tmp_path)
        losses = Losses(folder / LOSSES_FILE)
        losses.load()
        (gap,) = losses.take()
        assert gap.detail == {"rows": 111}
        losses.save()
        assert [path.name for path in tmp_path.rglob("*losses.json")] == [LOSSES_FILE]
        lock.close()
