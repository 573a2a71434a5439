"""The last stored rows outlive the process that stored them."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from streamer.capture.spool.acknowledged import (
    ACKNOWLEDGED_FILE,
    AcknowledgedRow,
    adopt_acknowledged,
    load_acknowledged,
    save_acknowledged,
)

ONE, OTHER = (AcknowledgedRow("book_tickers", symbol, 7, 70) for symbol in ("A", "B"))


def test_saved_rows_are_loaded(tmp_path: Path) -> None:
    assert load_acknowledged(tmp_path) == []
    save_acknowledged(tmp_path, [ONE, OTHER])
    assert load_acknowledged(tmp_path) == [ONE, OTHER]
    assert [path.name for path in tmp_path.iterdir()] == [ACKNOWLEDGED_FILE]


def test_unreadable_file_is_logged(tmp_path: Path) -> None:
    (tmp_path / ACKNOWLEDGED_FILE).write_text("[{")
    with capture_logs() as logged:
        assert load_acknowledged(tmp_path) == []
    assert [one["event"] for one in logged] == ["acknowledged_rows_unreadable"]


def test_rows_of_ended_processes_are_adopted(tmp_path: Path) -> None:
    own, others = tmp_path / "0", tmp_path / "1"
    own.mkdir()
    others.mkdir()
    adopt_acknowledged(others, own)
    save_acknowledged(own, [ONE])
    save_acknowledged(others, [OTHER, ONE])
    adopt_acknowledged(others, own)
    assert load_acknowledged(own) == [ONE, OTHER]
    assert list(others.iterdir()) == []
