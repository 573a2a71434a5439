"""Each process has its own folder; folders of ended processes are taken over."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from include.errors import PermanentError
from streamer.capture.spool.folders import claim_folder
from streamer.capture.spool.losses import LOSSES_FILE, Loss, Losses
from streamer.capture.spool.segments import Record
from streamer.capture.spool.spool import FULL, Spool

AT_US = 1_763_716_800_000_000
ONE, OTHER = (
    Record("book_tickers", [f"BTCUSDT\t2025-11-21\t{n}\t1\t1\t1\t1\t\\N\t2025-11-21 09:20+00\n"])
    for n in (1, 2)
)


def test_each_process_has_its_own_folder_and_adopts_those_of_ended_ones(
    tmp_path: Path,
) -> None:
    folder, lock = claim_folder(tmp_path)
    other, other_lock = claim_folder(tmp_path)
    assert folder != other
    Spool(folder, max_bytes=1 << 20).append(ONE)
    ended = Spool(other, max_bytes=1 << 20)
    ended.append(OTHER)
    with contextlib.closing(lock), contextlib.closing(other_lock):
        pass

    mine, third_lock = claim_folder(tmp_path)
    with contextlib.closing(third_lock):
        spool = Spool(mine, max_bytes=1 << 20)
        for one in (ONE, OTHER):
            assert spool.read() == one
            spool.done()


def test_uncreatable_folder_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(PermanentError, match="CANDELABRA_HOME"):
        claim_folder(tmp_path / "spool")


def test_unrecorded_losses_of_ended_processes_are_adopted(tmp_path: Path) -> None:
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
