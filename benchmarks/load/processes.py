"""Start a benchmark's processes, read their output by line, pin them to a core, and stop them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CORES = sorted(os.sched_getaffinity(0))
"""The last core runs the exchange's side, the first one the reader; both are the same if there is
only one."""
NICENESS = -10


class Talking:
    """A process that prints events as lines of JSON and reads commands from standard input."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait(self, event: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait for the next event of this name and discard others before it.

        Raises:
            TimeoutError: the event did not come.
            ChildProcessError: the process ended.
        """
        while True:
            try:
                told = self._events.get(timeout=timeout_s)
            except queue.Empty:
                raise TimeoutError(f"{self._process.args} did not say {event!r}") from None
            if told is None:
                raise ChildProcessError(f"{self._process.args} ended before it said {event!r}")
            if told["event"] == event:
                return told

    def tell(self, words: str) -> None:
        """Write a line to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._events.put(json.loads(line))
        self._events.put(None)


@contextmanager
def talking(
    command: Sequence[str],
    *,
    core: int | None = None,
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
) -> Iterator[Talking]:
    """Start a Python process with these arguments; it is stopped at the end of the block."""
    process = subprocess.Popen(
        [python, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=None if environment is None else os.environ | environment,
    )  # fmt: skip
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, [core])
        yield Talking(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(timeout=10)


def sender(*options: str) -> Any:
    """Start ``benchmarks.load.sender`` with these options on the exchange's core."""
    return talking(
        ["-m", "benchmarks.load.sender", *options],
        core=CORES[-1],
        environment={"WEBSOCKETS_MAX_LINE_LENGTH": "65536"},  # a thousand streams in one URL
    )


def stand_for_other_machines() -> None:
    """Raise this process's priority above PostgreSQL's on their shared core, if permitted.

    In production the exchange and the readers have their own machines, so their wait for a core
    must not be measured.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def cpu_s(process_id: int) -> float:
    """CPU seconds that a process has used, in steps of the kernel's clock (10 ms)."""
    text = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


def waited_s(process_id: int) -> float:
    """Seconds in which threads of a process were ready to run and waited for their core."""
    total = 0
    for folder in Path(f"/proc/{process_id}/task").iterdir():
        try:
            total += int((folder / "schedstat").read_text().split()[1])
        except OSError:
            continue  # the thread or process has ended
    return total / 1e9


def tree_cpu_s(process_id: int) -> float:
    """CPU seconds of a process and its children, including ended ones."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # the thread or process has ended
            if int(folder.name) == process_id:
                total += sum(map(int, text[11:15]))
            elif int(text[1]) == process_id:
                total += sum(map(int, text[11:13]))
    return total / os.sysconf("SC_CLK_TCK")
