"""Which files of the inbox are ready to load."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from include.errors import PermanentError
from include.jobs.files.inbox_folder import find_files


def drop(inbox: Path, name: str) -> Path:
    path = inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1,2,3\n")
    return path


def unchanged(inbox: Path) -> list[str]:
    return [one.name for one in find_files(inbox, unchanged_for_s=0)]


def test_file_being_copied_waits(tmp_path: Path) -> None:
    path = drop(tmp_path, "ABC-1m-2025-01-01.csv")
    long_ago = time.time() - 86_400
    os.utime(path, (long_ago, long_ago))  # copying tools set this time; the inode's change shows
    drop(tmp_path, "ABC-1m-2025-01-02.csv.part")
    drop(tmp_path, ".ABC-1m-2025-01-03.csv.x7Yz")
    drop(tmp_path, ".staging/ABC-1m-2025-01-04.csv")
    assert find_files(tmp_path) == []
    assert unchanged(tmp_path) == ["ABC-1m-2025-01-01.csv"]


def test_file_with_a_future_time_becomes_ready(tmp_path: Path) -> None:
    path = drop(tmp_path, "ABC-1m-2025-01-01.csv")
    ahead = time.time() + 10 * 86_400
    os.utime(path, (ahead, ahead))
    assert find_files(tmp_path) == []  # it was written a moment ago
    assert unchanged(tmp_path) == ["ABC-1m-2025-01-01.csv"]


def test_error_about_an_uncreatable_folder_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="INBOX_FOLDER"):
        find_files(tmp_path / "file" / "inbox")
