"""The state of the ids outlives the process, and never claims more than is true."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streamer.capture.spool import checkpoint as module
from streamer.capture.spool.checkpoint import (
    WHOLE_FILE,
    Checkpoint,
    CompleteUntil,
    MissingIds,
    adopt_complete,
)

ONE = MissingIds("agg_trades", "A", 3, 7, 10, 20)
OTHER = MissingIds("trades", "B", 1, 2, 5, 6)


def save(path: Path, whole: Checkpoint | None) -> None:
    asyncio.run(CompleteUntil(path, lambda: whole).save())


def load(path: Path) -> Checkpoint | None:
    return CompleteUntil(path, lambda: None).load()


def test_saved_checkpoint_is_loaded_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / WHOLE_FILE
    assert load(path) is None
    save(path, Checkpoint(100, [ONE, OTHER]))
    save(path, None)  # while the state is unknown, the file stays
    assert load(path) == Checkpoint(100, [ONE, OTHER])
    assert list(tmp_path.iterdir()) == [path]


async def test_checkpoint_is_saved_periodically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_INTERVAL_S", 0.005)
    known = Checkpoint(100, [])
    one = CompleteUntil(tmp_path / WHOLE_FILE, lambda: known)
    task = asyncio.create_task(one.run())
    async with asyncio.timeout(30):
        while one.load() != known:
            await asyncio.sleep(0.002)
        known = Checkpoint(200, [ONE])
        while one.load() != known:
            await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_failed_save_is_logged_and_the_next_one_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "away" / WHOLE_FILE
    with capture_logs() as logged:
        save(path, Checkpoint(100, []))
    assert [one["event"] for one in logged] == ["capture_checkpoint_unsaved"]
    path.parent.mkdir()
    save(path, Checkpoint(100, []))
    assert load(path) == Checkpoint(100, [])


def test_unreadable_checkpoint_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / WHOLE_FILE).write_bytes(b'{"until_us":')
    with capture_logs() as logged:
        assert load(tmp_path / WHOLE_FILE) is None
    assert [one["event"] for one in logged] == ["capture_checkpoint_unreadable"]


def test_merged_checkpoints_have_the_earlier_time_and_all_missing_ids(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "0", tmp_path / "1"
    for folder in (mine, theirs):
        folder.mkdir()
    save(theirs / WHOLE_FILE, Checkpoint(100, [ONE]))
    adopt_complete(theirs, mine)
    assert load(mine / WHOLE_FILE) == Checkpoint(100, [ONE])
    assert load(theirs / WHOLE_FILE) is None
    adopt_complete(theirs, mine)
    save(theirs / WHOLE_FILE, Checkpoint(200, [OTHER, ONE]))
    adopt_complete(theirs, mine)
    assert load(mine / WHOLE_FILE) == Checkpoint(100, [ONE, OTHER])
    save(theirs / WHOLE_FILE, Checkpoint(50, []))
    adopt_complete(theirs, mine)
    assert load(mine / WHOLE_FILE) == Checkpoint(50, [ONE, OTHER])
