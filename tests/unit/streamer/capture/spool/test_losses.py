"""Losses are counted, survive the process, and are removed once recorded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamer.capture.spool.losses import LOSSES_FILE, RECORDED_KEPT_S, Loss, Losses


def loss(rows: int | None, from_us: int, to_us: int, symbol: str = "A") -> Loss:
    return Loss("book_tickers", symbol, "spool full", from_us, to_us, rows)


def test_losses_of_one_cause_are_joined(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "losses.json")
    losses.add([loss(3, 10, 20), loss(2, 5, 8), loss(None, 30, 40, "B")])
    gaps = losses.take()
    assert [(gap.symbol, gap.from_us, gap.to_us, gap.detail) for gap in gaps] == [
        ("A", 5, 20, {"rows": 5}),
        ("B", 30, 40, {}),
    ]
    assert losses.rows == 5
    assert losses.times == 3


def test_loss_of_unknown_size_counts_and_an_open_one_counts_once_closed(
    tmp_path: Path,
) -> None:
    losses = Losses(tmp_path / "losses.json")
    losses.add([loss(None, 10, 20)])
    assert (losses.times, losses.rows) == (1, 0)
    opened = [Loss("book_tickers", one, "nobody captured", None, 40) for one in ("A", "B")]
    losses.add(opened)
    assert losses.times == 1
    losses.close(opened[0], 30, 40)
    losses.close(opened[1], None, 40)
    assert losses.times == 2


def test_losses_survive_a_restart_until_recorded(tmp_path: Path) -> None:
    path = tmp_path / "losses.json"
    first = Losses(path)
    first.add([loss(3, 10, 20)])
    first.save()

    second = Losses(path)
    second.load()
    gaps = second.take()
    assert [gap.detail for gap in gaps] == [{"rows": 3}]
    second.forget(gaps)
    second.save()

    third = Losses(path)
    third.load()
    assert len(third) == 1  # recorded once more: the server may be another one


def test_loss_that_grew_while_recorded_stays(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "losses.json")
    losses.add([loss(3, 10, 20)])
    gaps = losses.take()
    losses.add([loss(1, 21, 22)])
    losses.forget(gaps)
    assert [gap.detail for gap in losses.take()] == [{"rows": 4}]


def test_damaged_list_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "losses.json"
    path.write_bytes(b'[["half')
    losses = Losses(path)
    losses.load()
    assert len(losses) == 0


def test_threads_can_save_concurrently(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "losses.json")
    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            losses.add([loss(1, number, number)])
            for saving in [pool.submit(losses.save) for _ in range(4)]:
                saving.result(10)
    again = Losses(tmp_path / "losses.json")
    again.load()
    assert [gap.detail for gap in again.take()] == [{"rows": 200}]


def test_losses_are_saved_by_the_next_attempt_after_a_disk_error(tmp_path: Path) -> None:
    path = tmp_path / "away" / "losses.json"
    losses = Losses(path)
    losses.add([loss(3, 10, 20)])
    with pytest.raises(FileNotFoundError):
        losses.save()
    path.parent.mkdir()
    losses.save()
    again = Losses(path)
    again.load()
    assert len(again) == 1


def test_open_loss_stays_on_disk_until_its_start_is_known(tmp_path: Path) -> None:
    path = tmp_path / "losses.json"
    first = Losses(path)
    opened = [Loss("book_tickers", symbol, "killed", None, 20) for symbol in "AB"]
    first.add(opened)
    assert (first.is_saved, len(first)) == (False, 0)
    first.save()
    assert first.is_saved

    second = Losses(path)
    second.load()
    assert second.open == set(opened)
    second.close(opened[0], 5, 21)
    second.close(opened[1], None, 20)
    assert not second.is_saved
    assert [(gap.symbol, gap.from_us, gap.to_us) for gap in second.take()] == [("A", 5, 21)]
    second.save()

    third = Losses(path)
    third.load()
    assert (third.open, len(third)) == (set(), 1)


def test_list_that_grew_during_a_save_counts_as_unsaved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Losses(tmp_path / "losses.json")
    losses.add([loss(3, 10, 20)])
    write = losses._write

    def grow(content: bytes) -> None:
        losses.add([loss(1, 21, 22)])
        write(content)

    monkeypatch.setattr(losses, "_write", grow)
    losses.save()
    assert not losses.is_saved


def test_recorded_losses_are_recorded_again_after_a_failure_for_some_minutes(
    tmp_path: Path,
) -> None:
    now_s = 0.0
    losses = Losses(tmp_path / LOSSES_FILE, now_s=lambda: now_s)
    first, second = (Loss("trades", "A", "cut", at_us, at_us + 1) for at_us in (10, 90))
    losses.add([first])
    losses.forget(losses.take())
    assert len(losses) == 0
    losses.record_again()
    losses.add([second])
    assert [(gap.from_us, losses.is_known(gap)) for gap in losses.take()] == [
        (90, False),
        (10, True),
    ]
    losses.forget(losses.take())
    now_s = RECORDED_KEPT_S
    losses.record_again()
    assert losses.take() == []


def test_recorded_losses_outlive_the_process(tmp_path: Path) -> None:
    losses = Losses(tmp_path / LOSSES_FILE)
    losses.add([Loss("trades", "A", "cut", 10, 11, rows=3)])
    losses.forget(losses.take())
    losses.save()
    following = Losses(tmp_path / LOSSES_FILE)
    following.load()
    following.add([Loss("trades", "A", "cut", 90, 91)])
    assert [(gap.from_us, gap.detail) for gap in following.take()] == [(90, {}), (10, {"rows": 3})]
