"""Which files of the inbox are ready to load."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from include.config import Settings
from include.errors import PermanentError, RejectedInputError
from include.jobs.files.inbox import load_file
from include.jobs.files.inbox_folder import find_files, set_aside


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


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [(b"\xffb.csv", "is not UTF-8"), (b"x" * 241 + b".csv", "has 245 bytes")],
)
def test_name_that_tasks_cannot_use_is_refused_once_and_others_load(
    tmp_path: Path, name: bytes, reason: str, kind: str
) -> None:
    drop(tmp_path, "ABC-1m-2025-01-01.csv")
    bad = tmp_path / os.fsdecode(name)
    if kind == "folder":
        bad.mkdir()
        drop(bad, "ABC-1m-2025-01-02.csv")
    else:
        bad.write_text("1\n")
    assert unchanged(tmp_path) == ["ABC-1m-2025-01-01.csv"]
    assert not os.path.lexists(bad)
    kept, why = sorted((tmp_path / "failed").iterdir())
    kept.name.encode()
    assert why.name == f"{kept.name}.reason.txt"
    assert reason in why.read_text()
    assert kept.is_dir() == (kind == "folder")
    assert unchanged(tmp_path) == ["ABC-1m-2025-01-01.csv"]
    assert len(list((tmp_path / "failed").iterdir())) == 2


def test_deeper_folders_than_linux_opens_are_refused_and_others_load(tmp_path: Path) -> None:
    drop(tmp_path, "ABC-1m-2025-01-01.csv")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):  # 6,000 bytes, made from within, as a path of this length cannot be opened
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("ABC-1m-2025-01-02.csv", os.O_CREAT, dir_fd=here))
    os.close(here)
    assert unchanged(tmp_path) == ["ABC-1m-2025-01-01.csv"]
    (why,) = (tmp_path / "failed").glob("*.reason.txt")
    assert "its path in the inbox has 1,004 bytes, 1000 at most" in why.read_text()
    assert unchanged(tmp_path) == ["ABC-1m-2025-01-01.csv"]


def test_file_below_a_folder_with_the_name_of_a_failed_file_is_set_aside(tmp_path: Path) -> None:
    drop(tmp_path, "failed/x.csv")
    path = drop(tmp_path, "x.csv/y.csv")
    assert set_aside(tmp_path, "failed", "x.csv/y.csv", path, "bad\n") == "failed/x.csv_y.csv"
    assert (tmp_path / "failed" / "x.csv_y.csv.reason.txt").read_text() == "bad\n"


SECRET = "hunter2-password-of-the-database"


@pytest.mark.parametrize("kind", ["link", "folder", "broken", "pipe", "hard link"])
def test_links_and_pipes_are_refused_without_being_opened(
    raw_settings: Settings, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    inbox = raw_settings.inbox
    inbox.mkdir(parents=True, exist_ok=True)
    dropped = inbox / "ABC-1m-2025-01-01.csv"
    if kind == "pipe":
        os.mkfifo(dropped)
    elif kind == "hard link":
        os.link(secret, dropped)
    else:
        targets = {"link": secret, "folder": tmp_path, "broken": tmp_path / "none"}
        dropped.symlink_to(targets[kind])
    [file] = find_files(inbox, unchanged_for_s=0)
    with pytest.raises(RejectedInputError, match="copy the file itself") as refused:
        load_file(settings=raw_settings, file=file)
    assert SECRET not in str(refused.value)
    reason = (inbox / "failed" / f"{dropped.name}.reason.txt").read_text()
    assert SECRET not in reason
    assert os.path.lexists(inbox / "failed" / dropped.name)
    assert find_files(inbox, unchanged_for_s=0) == []


def test_claimed_link_of_a_killed_run_is_refused_too(raw_settings: Settings) -> None:
    inbox = raw_settings.inbox
    claimed = inbox / ".claimed" / "of-a-killed-run" / "ABC-1m-2025-01-01.csv"
    claimed.parent.mkdir(parents=True)
    claimed.symlink_to("/etc/passwd")
    [file] = find_files(inbox, unchanged_for_s=0)
    with pytest.raises(RejectedInputError, match="symbolic link"):
        load_file(settings=raw_settings, file=file)
    assert not os.path.lexists(claimed)


def test_reason_never_quotes_the_first_line_of_a_file(raw_settings: Settings) -> None:
    inbox = raw_settings.inbox
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / "ABC-1m-2025-01-01.csv").write_text(f"{SECRET}\n")
    [file] = find_files(inbox, unchanged_for_s=0)
    with pytest.raises(RejectedInputError, match="the first line, with 1 field,") as refused:
        load_file(settings=raw_settings, file=file)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["failed", "done", ".claimed"])
def test_folders_of_the_inbox_must_not_be_links(
    raw_settings: Settings, tmp_path: Path, name: str
) -> None:
    inbox = raw_settings.inbox
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / name).symlink_to(tmp_path)
    with pytest.raises(PermanentError, match="is a symbolic link"):
        find_files(inbox, unchanged_for_s=0)


def test_link_in_the_place_of_a_reason_file_is_not_followed(
    raw_settings: Settings, tmp_path: Path
) -> None:
    inbox, victim = raw_settings.inbox, tmp_path / "victim"
    victim.write_text("untouched")
    failed = inbox / "failed"
    failed.mkdir(parents=True)
    (failed / "notes.txt.reason.txt").symlink_to(victim)
    (inbox / "notes.txt").write_text("hello\n")
    [file] = find_files(inbox, unchanged_for_s=0)
    with pytest.raises(PermanentError):
        load_file(settings=raw_settings, file=file)
    assert victim.read_text() == "untouched"
    assert "is none of" in (failed / "notes.txt.reason.txt").read_text()
