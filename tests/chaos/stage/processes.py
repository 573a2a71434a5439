"""The streamer as a process that is killed, stopped and frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[3]
STOP_TIMEOUT_S = 20.0
REFUSED = "refuses this address"
"""Part of the message with which a start ends on status 403."""
NO_EVENT = "(no event)"
"""Marks lines that are not JSON: a traceback, or a library's warning."""


class EndedError(AssertionError):
    """The streamer ended without being asked, or with an error."""


class StreamerProcess:
    """``candelabra stream``, started again and again; all of its output goes to one file.

    Args:
        environment: its settings, as variables.
        arguments: of ``tests.chaos.stage.hurried``.
        log_file: JSON lines of all its lives.

    Attributes:
        starts: how many lives it had.
        refused: lives that ended because the exchange refused the address.
        max_rss_bytes: most memory that any of them held, as seen when it was struck.
    """

    def __init__(
        self, environment: Mapping[str, str], arguments: Sequence[str], *, log_file: Path
    ) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._environment = {**inherited, **environment, "PYTHONPATH": str(ROOT)}
        self._command = [sys.executable, "-m", "tests.chaos.stage.hurried", *arguments]
        self.log_file = log_file
        self.starts = 0
        self.refused = 0
        self.max_rss_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []

    def start(self) -> None:
        """Start a process."""
        with self.log_file.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.log_file.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._groups.append(self._process.pid)
        self.starts += 1

    def check(self) -> None:
        """Start it again where the exchange refused its address, as a supervisor does.

        Raises:
            EndedError: it has ended by itself for another reason.
        """
        code = None if self._process is None else self._process.poll()
        if code is not None:
            if REFUSED in self.tail(3):
                self.refused += 1
                self.start()
                return
            raise EndedError(f"the streamer ended by itself (exit code {code}):\n{self.tail()}")

    def kill(self) -> None:
        """As ``kill -9``."""
        process = self._running()
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        self._process = None

    def terminate(self) -> None:
        """As a supervisor does; raises EndedError where it does not end cleanly."""
        process = self._running()
        process.terminate()
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise EndedError(
                f"the streamer did not end within {STOP_TIMEOUT_S:g} s of SIGTERM:\n{self.tail()}"
            ) from None
        self._process = None
        # A signal that comes before Python can hear it ends the process as well.
        if code not in (0, -signal.SIGTERM):
            raise EndedError(f"the streamer answered SIGTERM with {code}:\n{self.tail()}")

    def freeze(self) -> None:
        """As a machine that is suspended."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The end of ``freeze``."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        self.check()
        if self._process is None:
            raise AssertionError("the streamer does not run")
        self.max_rss_bytes = max(self.max_rss_bytes, _max_rss_bytes(self._process.pid))
        return self._process

    def left(self) -> list[int]:
        """Process groups of ended lives in which something still runs."""
        running = None if self._process is None else self._process.pid
        return [group for group in self._groups if group != running and _is_alive(group)]

    def events(self) -> Counter[str]:
        """Counts of log events."""
        found: Counter[str] = Counter()
        for line in self.log_file.read_text().splitlines():
            found[_event(line)] += 1
        return found

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Log entries of one event."""
        lines = [line for line in self.log_file.read_text().splitlines() if event in line]
        return [json.loads(line) for line in lines if _event(line) == event]

    def entries(self) -> list[dict[str, Any]]:
        """All log entries, in order."""
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if _event(line) != NO_EVENT]

    def tracebacks(self) -> int:
        """Uncaught errors; libraries may write other lines that are not events."""
        return self.log_file.read_text().count("Traceback (most recent call last)")

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log_file.read_text().splitlines()[-lines:])

    def __enter__(self) -> StreamerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)


def _event(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return NO_EVENT
    return str(entry.get("event", NO_EVENT)) if isinstance(entry, dict) else NO_EVENT


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _max_rss_bytes(pid: int) -> int:
    """The most that a running process has held; 0 of one that is just ending."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
