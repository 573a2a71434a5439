"""A hanging disk blocks no caller for ever, and no call runs twice."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from include.errors import TransientError
from streamer.capture.spool import disk as module
from streamer.capture.spool.disk import Disk, replace_file


class Played:
    """Calls wait until they are released."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.made: list[int] = []

    def take(self, number: int) -> int:
        assert self.let_go.wait(10)
        self.made.append(number)
        return number


async def test_hanging_call_is_awaited_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CALL_S", 0.05)
    played, disk, late = Played(), Disk(), list[int]()
    for _ in range(2):
        with pytest.raises(TransientError, match="hangs"):
            await disk.call(lambda: played.take(1), name="spool", on_late=late.append)
    played.let_go.set()
    monkeypatch.setattr(module, "MAX_CALL_S", 30)
    assert await disk.call(lambda: played.take(2), name="spool") == 2
    assert played.made == [1, 2]
    assert late == [1]


async def test_hanging_call_does_not_delay_calls_of_other_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_CALL_S", 0.05)
    played, disk = Played(), Disk()
    with pytest.raises(TransientError):
        await disk.call(lambda: played.take(1), name="spool")
    monkeypatch.setattr(module, "MAX_CALL_S", 30)
    assert await disk.call(lambda: 7, name="losses") == 7
    played.let_go.set()


async def test_disk_error_is_raised_to_the_caller() -> None:
    def refuse() -> None:
        raise OSError("no space left")

    disk = Disk()
    with pytest.raises(OSError, match="no space"):
        await disk.call(refuse, name="spool")
    assert await disk.call(lambda: 7, name="spool") == 7


def test_failed_rewrite_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.json"
    replace_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
