"""Files dropped into a folder are loaded once, and none is ever lost."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.config import Settings
from include.errors import PermanentError, TransientError
from include.jobs.files import inbox as inbox_job
from include.jobs.files import inbox_folder
from include.jobs.files.imports import import_file
from include.jobs.files.inbox import load_file, summarise
from include.jobs.files.inbox_folder import find_files
from include.jobs.files.pieces import InboxFile, InboxResult

ROOT = Path(__file__).parents[4]
AT_MS = 1_735_689_600_000  # 2025-01-01


def row(minute: int) -> str:
    at = AT_MS + minute * 60_000
    return f"{at},1,2,1,2,3,{at + 59_999},4,5,1,1,0"


@pytest.fixture
def settings(raw_settings: Settings) -> Settings:
    """The jobs' own role, without an exchange."""
    return raw_settings


@pytest.fixture
def drop(settings: Settings) -> Callable[..., Path]:
    def make(name: str, *lines: str) -> Path:
        path = settings.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return make


def ready_files(settings: Settings) -> list[str]:
    return [one.name for one in find_files(settings.inbox, unchanged_for_s=0)]


def load_all(settings: Settings) -> list[InboxResult | Exception]:
    results: list[InboxResult | Exception] = []
    for one in find_files(settings.inbox, unchanged_for_s=0):
        try:
            results.append(load_file(settings=settings, file=one))
        except PermanentError as error:
            results.append(error)
    return results


def files_of(settings: Settings) -> list[str]:
    return sorted(
        path.relative_to(settings.inbox).as_posix()
        for path in settings.inbox.rglob("*")
        if path.is_file()
    )


def candles(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT symbol, count(*) FROM market.candles_1m GROUP BY 1 ORDER BY 1"
    ).fetchall()


def test_files_are_loaded_and_moved_with_their_market_folders(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path]
) -> None:
    drop("ABC-1m-2025-01-01.csv", row(0), row(1))
    drop("futures/um/ABC-1m-2025-01-01.csv", row(0), row(1)[:20])
    results = [one for one in load_all(settings) if isinstance(one, InboxResult)]
    assert candles(connection) == [("ABC", 2), ("ABC.P", 1)]
    assert files_of(settings) == [
        "done/ABC-1m-2025-01-01.csv",
        "done/futures/um/ABC-1m-2025-01-01.csv",
        "done/futures/um/ABC-1m-2025-01-01.csv.reason.txt",
    ]
    reason = (settings.inbox / f"{results[1].place}.reason.txt").read_text()
    assert "1 row rejected: 5 columns, expected 12" in reason
    assert "ops.rejected_rows" in reason
    assert ready_files(settings) == []
    counts = summarise(results=[*results, None])
    assert (counts.files, counts.rows, counts.rejected, counts.inserted) == (2, 3, 1, 3)
    assert counts.symbols == ["ABC", "ABC.P"]


def test_refused_file_moves_to_failed_with_the_reason(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path]
) -> None:
    drop("ABC-5m-2025-01-01.csv", row(0))
    drop("ABC-1m-2025-01-01.csv", "half a row")
    drop("notes.txt", "hello")
    errors = [str(one) for one in load_all(settings)]
    assert len(errors) == 3
    assert candles(connection) == []
    assert ready_files(settings) == []
    for name, reason in [
        ("ABC-5m-2025-01-01.csv", "holds 5m"),
        ("ABC-1m-2025-01-01.csv", "known are 1m klines"),
        ("notes.txt", "is none of .csv"),
    ]:
        assert (settings.inbox / "failed" / name).exists()
        assert reason in (settings.inbox / "failed" / f"{name}.reason.txt").read_text()


def test_rejected_rows_of_equal_names_are_all_kept(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path]
) -> None:
    name = "ABC-1m-2025-01-01.csv"
    places = []
    for folder, *lines in (
        ("x/", row(0), "1,2"),
        ("y/", row(1), "3,4", "5,6"),
        ("x/", row(2), "7,8", "9,0", "1,1"),
        ("x/", row(2), "7,8", "9,0", "1,1"),  # the same file once more
    ):
        drop(f"{folder}{name}", *lines)
        (result,) = load_all(settings)
        assert isinstance(result, InboxResult)
        places.append(settings.inbox / f"{result.place}.reason.txt")
    kept = connection.execute(
        "SELECT split_part(origin, '#', 1), raw FROM ops.rejected_rows ORDER BY 1, 2"
    ).fetchall()
    assert kept == [
        *(("inbox/x", raw) for raw in ("1,1", "1,2", "7,8", "9,0")),
        *(("inbox/y", raw) for raw in ("3,4", "5,6")),
    ]
    for place, rows in zip(places, (1, 2, 3, 3), strict=True):
        reason = place.read_text()
        assert reason.startswith(f"{rows} row")
        quarantine = reason.rsplit(" and ", 1)[1].strip()
        assert len(Path(quarantine).read_text().splitlines()) == 1 + rows


def test_reason_names_the_file_as_it_was_dropped(
    settings: Settings, drop: Callable[..., Path]
) -> None:
    drop("mine/notes.txt", "hello")
    (error,) = load_all(settings)
    assert ".claimed" in str(error)  # the message's path
    reason = (settings.inbox / "failed/mine/notes.txt.reason.txt").read_text()
    assert reason.startswith("mine/notes.txt is none of .csv")


def test_refused_file_leaves_no_folder_behind(
    settings: Settings, drop: Callable[..., Path]
) -> None:
    drop("readme.txt", "nothing")
    assert len(load_all(settings)) == 1
    assert list((settings.inbox / ".claimed").iterdir()) == []


def test_second_file_of_a_name_does_not_replace_the_first(
    settings: Settings, drop: Callable[..., Path]
) -> None:
    for minute in range(3):
        drop("ABC-1m-2025-01-01.csv", row(minute))
        load_all(settings)
    names = ["ABC-1m-2025-01-01 (2).csv", "ABC-1m-2025-01-01 (3).csv", "ABC-1m-2025-01-01.csv"]
    assert files_of(settings) == [f"done/{name}" for name in names]
    texts = [(settings.inbox / "done" / name).read_text() for name in names]
    assert texts == [f"{row(minute)}\n" for minute in (1, 2, 0)]


def test_runs_at_the_same_time_load_each_file_once(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    imported: list[str] = []
    lock = threading.Lock()

    def counting(**arguments: Any) -> Any:
        with lock:
            imported.append(arguments["path"].name)
        return import_file(**arguments)

    monkeypatch.setattr(inbox_job, "import_file", counting)
    names = [f"ABC-1m-2025-01-{day:02}.csv" for day in range(1, 7)]
    for day, name in enumerate(names):
        drop(name, row(day * 1_440))
    work = find_files(settings.inbox, unchanged_for_s=0) * 4
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda file: load_file(settings=settings, file=file), work))
    assert sorted(imported) == names
    assert sorted(one.state for one in results) == ["gone"] * 18 + ["loaded"] * 6
    assert files_of(settings) == [f"done/{name}" for name in names]
    assert candles(connection) == [("ABC", 6)]


def test_file_waits_for_an_unavailable_database_and_is_loaded_later(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path]
) -> None:
    drop("futures/um/ABC-1m-2025-01-01.csv", row(0))
    (file,) = find_files(settings.inbox, unchanged_for_s=0)
    away = settings.model_copy(
        update={"jobs_database_url": "postgresql://candelabra@127.0.0.1:1/none"}
    )
    with pytest.raises(TransientError):
        load_file(settings=away, file=file)
    assert len(files_of(settings)) == 1
    assert ready_files(settings) == ["futures/um/ABC-1m-2025-01-01.csv"]
    assert load_file(settings=settings, file=file).state == "loaded"  # as a retry does
    assert candles(connection) == [("ABC.P", 1)]
    assert files_of(settings) == ["done/futures/um/ABC-1m-2025-01-01.csv"]
    assert list((settings.inbox / ".claimed").iterdir()) == []


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_checksum_is_verified_and_moves_with_its_file(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path]
) -> None:
    good = drop("ABC-1m-2025-01-01.csv", row(0))
    drop("ABC-1m-2025-01-01.csv.CHECKSUM", f"{sha256(good)}  {good.name}")
    bad = drop("XYZ-1m-2025-01-01.csv", row(0))
    drop("XYZ-1m-2025-01-01.csv.CHECKSUM", f"{'ab' * 32}  {bad.name}")
    found = sha256(bad)
    assert ready_files(settings) == [good.name, bad.name]
    loaded, refused = load_all(settings)
    assert isinstance(loaded, InboxResult)
    assert str(refused) == (
        f"XYZ-1m-2025-01-01.csv does not fit its CHECKSUM: expected SHA-256 abababababab…, "
        f"found {found[:12]}…; fetch both again"
    )
    assert candles(connection) == [("ABC", 1)]
    assert files_of(settings) == [
        "done/ABC-1m-2025-01-01.csv",
        "done/ABC-1m-2025-01-01.csv.CHECKSUM",
        "failed/XYZ-1m-2025-01-01.csv",
        "failed/XYZ-1m-2025-01-01.csv.CHECKSUM",
        "failed/XYZ-1m-2025-01-01.csv.reason.txt",
    ]
    assert ready_files(settings) == []


def test_checksum_waits_for_its_file_and_is_refused_after_an_hour(
    settings: Settings, drop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop("ABC-1m-2025-01-01.csv.CHECKSUM", "ab" * 32)
    assert ready_files(settings) == []
    monkeypatch.setattr(inbox_folder, "CHECKSUM_WAITS_S", 0.0)
    (error,) = load_all(settings)
    assert "no file beside it to verify" in str(error)


def test_link_as_checksum_is_refused_unread(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    drop("ABC-1m-2025-01-01.csv", row(0))
    (settings.inbox / "ABC-1m-2025-01-01.csv.CHECKSUM").symlink_to(secret)
    (error,) = load_all(settings)
    assert "CHECKSUM is a symbolic link" in str(error)
    assert candles(connection) == []
    assert ready_files(settings) == []
    assert secret.read_text() == "hunter2"


def test_checksum_of_a_retried_file_stays_with_it(
    settings: Settings, drop: Callable[..., Path]
) -> None:
    path = drop("ABC-1m-2025-01-01.csv", row(0))
    drop("ABC-1m-2025-01-01.csv.CHECKSUM", "ab" * 32)
    away = settings.model_copy(
        update={"jobs_database_url": "postgresql://candelabra@127.0.0.1:1/none"}
    )
    (settings.inbox / f"{path.name}.CHECKSUM").write_text(sha256(path))
    (file,) = find_files(settings.inbox, unchanged_for_s=0)
    with pytest.raises(TransientError):
        load_file(settings=away, file=file)
    assert ready_files(settings) == [path.name]
    assert [one.state for one in load_all(settings) if isinstance(one, InboxResult)] == ["loaded"]
    assert files_of(settings) == [f"done/{path.name}", f"done/{path.name}.CHECKSUM"]


KILLED = """
import os, signal, sys
import include.jobs.files.inbox as inbox
from include.config import load_settings
from include.jobs.files.pieces import InboxFile

def stopped(**arguments):
    print("claimed", flush=True)
    signal.pause()

inbox.import_file = stopped
inbox.load_file(settings=load_settings(), file=InboxFile(sys.argv[1], 0))
"""


def test_file_of_a_killed_run_is_loaded_only_by_the_next(
    settings: Settings, connection: psycopg.Connection[Any], drop: Callable[..., Path]
) -> None:
    name = "ABC-1m-2025-01-01.csv"
    drop(name, row(0))
    environment = os.environ | {
        "JOBS_DATABASE_URL": settings.jobs_database_url,
        "CANDELABRA_HOME": str(settings.candelabra_home),
    }
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, name], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    ) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"claimed\n"
            assert ready_files(settings) == []
            assert load_file(settings=settings, file=InboxFile(name, 0)).state == "gone"
            # the same name again, meanwhile: another file, for a separate run
            drop(name, row(1))
            assert ready_files(settings) == [name]
            assert load_file(settings=settings, file=InboxFile(name, 0)).state == "loaded"
        finally:
            run.send_signal(signal.SIGKILL)
    assert ready_files(settings) == [name]
    assert [one.state for one in load_all(settings) if isinstance(one, InboxResult)] == ["loaded"]
    assert candles(connection) == [("ABC", 2)]
    assert len(files_of(settings)) == 2
