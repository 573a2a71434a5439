"""The spool keeps order over restarts, bears a disk that fails, and never outgrows its bound."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.capture.spool import spool as module
from streamer.capture.spool.segments import encoded
from streamer.capture.spool.spool import FULL, Spool
from tests.unit.streamer.capture.spooled import (
    AT_US,
    drained,
    numbers_of,
    record,
    replayed,
    segments,
)


@contextlib.contextmanager
def room_for(file_bytes: int) -> Iterator[None]:
    """The kernel accepts no byte beyond this size of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def _cuts_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """After truncating a file the disk accepts bytes again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in ("truncate", "ftruncate"):
        cut = getattr(os, name)

        def cut_and_lift(*arguments: object, cut: Callable[..., None] = cut) -> None:
            cut(*arguments)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        monkeypatch.setattr(os, name, cut_and_lift)


def test_records_are_read_in_order_and_their_files_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20, segment_bytes=300)
    for n in range(10):
        assert spool.append(record(n)) == []
    assert len(list(tmp_path.glob("*.spool"))) > 2
    assert drained(spool) == list(range(10))
    assert spool.is_empty
    assert spool.size_bytes == 0
    assert list(tmp_path.glob("*.spool")) == []


def test_unstored_record_is_read_again_by_this_and_the_next_process(tmp_path: Path) -> None:
    killed = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(4):
        killed.append(record(n))
    assert numbers_of(killed.read()) == [0]
    killed.done()
    assert numbers_of(killed.read()) == numbers_of(killed.read()) == [1]

    after = Spool(tmp_path, max_bytes=1 << 20)
    after.append(record(4))
    assert drained(after) == [0, 1, 2, 3, 4]  # 0 again: the table stores it once


def test_last_record_is_readable_while_its_file_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    for n in range(5):
        spool.append(record(n))
        assert numbers_of(spool.read()) == [n]
        spool.done()
    assert spool.is_empty


def test_oldest_records_are_dropped_first_and_reported(tmp_path: Path) -> None:
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


def test_record_being_stored_is_not_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=4_000, segment_bytes=500)
    for n in range(10):
        spool.append(record(n))
    assert numbers_of(spool.read()) == [0]
    losses = [loss for n in range(10, 200) for loss in spool.append(record(n))]
    spool.done()
    left = drained(spool)
    assert 0 not in left
    assert sum(loss.rows or 0 for loss in losses) + len(left) + 1 == 200


@pytest.mark.usefixtures("_cuts_make_room")
def test_full_disk_leaves_no_partial_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append(record(1))
    size = len(encoded(record(1)))
    with room_for(size + 12_000), pytest.raises(OSError, match="File too large"):
        spool.append(record(*range(2, 180)))
    spool.append(record(200))
    assert [one.stat().st_size for one in segments(tmp_path)] == [size, spool.size_bytes - size]
    assert replayed(spool) == ([1, 200], [])


def test_refused_writes_leave_no_files(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1 << 20)
    with room_for(0):
        for n in range(1_000):
            with pytest.raises(OSError, match="File too large"):
                spool.append(record(n))
        assert len(segments(tmp_path)) <= 1
        assert len(spool._segments) + len(spool._left) <= 1
    spool.append(record(1_000))
    assert drained(spool) == [1_000]


def test_record_is_not_spooled_if_its_sync_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    spool = Spool(tmp_path, max_bytes=1 << 20, sync_interval_s=0)
    spool.append(record(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            spool.append(record(2))
    spool.append(record(3))
    assert replayed(spool) == ([1, 3], [])


def test_unremovable_file_blocks_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    spool = Spool(tmp_path, max_bytes=1 << 20, segment_bytes=300)
    for n in range(6):
        spool.append(record(n))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert replayed(spool) == (list(range(6)), [])
        assert spool.size_bytes == sum(one.stat().st_size for one in segments(tmp_path)) > 0
    spool.append(record(6))
    assert replayed(spool) == ([6], [])
    assert segments(tmp_path) == []
    assert spool.size_bytes == 0


def test_unremovable_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    bound = 4_000
    spool = Spool(tmp_path, max_bytes=bound, segment_bytes=500)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="cannot be removed"):  # noqa: PT012 - sooner or later
        for n in range(500):
            spool.append(record(n))
    assert sum(one.stat().st_size for one in segments(tmp_path)) < 2 * bound + 2 * 500


def test_failed_read_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append(record(1))
    with monkeypatch.context() as patch:
        patch.setattr(module, "piece_at", fail)
        for _ in range(3):
            with pytest.raises(OSError, match=r"Input/output error: .*0000000001\.spool"):
                spool.read()
    assert replayed(spool) == ([1], [])


def test_append_to_a_deleted_folder_raises_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    spool = Spool(folder, max_bytes=1 << 20)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        spool.append(record(1))
    assert spool.is_empty


def test_syncs_are_limited_by_their_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr("streamer.capture.spool.spool.time.monotonic", lambda: 1.0)  # just booted
    spool = Spool(tmp_path, max_bytes=1 << 20, sync_interval_s=3600)
    for n in range(50):
        spool.append(record(n))
    assert len(synced) == 1
    spool.close()
    assert len(synced) == 2
