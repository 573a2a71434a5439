"""Child processes end with their supervisor, even those that left the process group."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.local import processes
from deploy.local.processes import MARKER, SupervisedProcess, end_marked, marked, stop_all, tail

POLITE = "import time; print('up', flush=True); time.sleep(600)"
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"
)
WITH_RUNAWAY = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', {DEAF!r}], start_new_session=True)
print('up', flush=True)
time.sleep(600)
"""

WAITS_FOR_RUNAWAY = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {DEAF!r}], start_new_session=True)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0 if child.wait() else 1))
print('up', flush=True)
signal.pause()
"""


def wait_until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not true within {timeout_s:g} s"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DESCENDANT_GRACE_S", 0.2)


@pytest.fixture
def marker() -> str:
    return f"test-{secrets.token_hex(8)}"


@pytest.fixture
def start(tmp_path: Path, marker: str):
    started = []

    def run(code: str, name: str = "child", *, ready: int = 1) -> SupervisedProcess:
        child = SupervisedProcess(
            name,
            [sys.executable, "-c", code],
            environment={**os.environ, MARKER: marker},
            log_file=tmp_path / "logs" / f"{name}.log",
            working_folder=tmp_path,
        )
        started.append(child)
        wait_until(lambda: child.log_file.read_text().count("up") >= ready)
        return child

    yield run
    stop_all(started, marker=marker, term_timeout_s=0.0)


def test_child_ends_after_sigterm(start, marker):
    child = start(POLITE)
    assert [process.pid for process in marked(marker)] == [child.pid]
    assert stop_all([child], marker=marker, term_timeout_s=60) == []
    assert marked(marker) == []


def test_child_that_ignores_sigterm_is_killed_and_named(start, marker):
    assert stop_all([start(DEAF, "deaf")], marker=marker, term_timeout_s=0.1) == ["deaf"]
    assert marked(marker) == []


def test_descendant_that_left_the_group_ends_too(start, marker):
    child = start(WITH_RUNAWAY, ready=2)
    assert len(marked(marker)) == 2
    stop_all([child], marker=marker, term_timeout_s=10)
    assert marked(marker) == []


def test_child_that_waits_for_a_descendant_ends_by_itself(start, marker):
    child = start(WAITS_FOR_RUNAWAY, ready=2)
    assert stop_all([child], marker=marker, term_timeout_s=60) == []
    end = child.exited()
    assert end is not None
    assert end.exit_code == 0
    assert marked(marker) == []


def test_orphans_are_found_only_by_their_marker(start, marker):
    child = start(POLITE)
    assert end_marked(f"not-{marker}", term_timeout_s=1) == 0
    assert child.exited() is None
    assert end_marked(marker, term_timeout_s=60) == 1
    wait_until(lambda: child.exited() is not None)


def test_unexpected_exit_has_name_exit_code_and_log_tail(start):
    child = start("print('up'); raise SystemExit('out of luck')", "unlucky")
    wait_until(lambda: child.exited() is not None)
    end = child.exited()
    assert end is not None
    assert end.exit_code == 1
    assert "unlucky ended with exit code 1" in str(end)
    assert "out of luck" in str(end)


def test_exit_by_signal_names_the_signal(start):
    child = start("import os, signal; print('up', flush=True); os.kill(os.getpid(), 9)")
    wait_until(lambda: child.exited() is not None)
    assert "was killed by SIGKILL" in str(child.exited())


def test_tail_returns_the_last_lines(tmp_path):
    file = tmp_path / "long.log"
    file.write_text("".join(f"line {n}\n" for n in range(10_000)))
    assert tail(file, lines=2) == "line 9998\nline 9999"
    assert tail(tmp_path / "absent.log") == "(no log)"


def test_process_that_ends_during_the_search_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    found = psutil.Process(ended.pid)
    ended.wait(timeout=30)
    with pytest.raises(psutil.NoSuchProcess):
        found.ppid()
    monkeypatch.setattr(processes, "marked", lambda _marker: [found])
    assert processes._outside_their_group("marker") == []
