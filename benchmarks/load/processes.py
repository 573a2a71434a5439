"""Processes of a benchmark: started, read line by line, pinned to a core, ended."""

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
"""The last one is the exchange's side, the first one the reader's: the same where one is alone."""
NICENESS = -10


class Talking:
    """A process that prints events as lines of JSON and takes words on standard input."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def wait(self, event: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """The next event of this name; others before it are passed over.

        Raises:
            TimeoutError: it did not come.
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
        """Write a line to it."""
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
    """A Python process, by its arguments; ended at the latest when the block is left."""
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
    """``benchmarks.load.sender`` with these options, on the exchange's core; see there."""
    return talking(
        ["-m", "benchmarks.load.sender", *options],
        core=CORES[-1],
        environment={"WEBSOCKETS_MAX_LINE_LENGTH": "65536"},  # a thousand streams in one URL
    )


def stand_for_other_machines() -> None:
    """Have this process go before PostgreSQL, which shares its core with it, where one may.

    The exchange and the readers are elsewhere in truth: how long they wait for a core here is none
    of what is measured.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def cpu_s(process_id: int) -> float:
    """Seconds that a process has had a core, in steps of the kernel's clock (10 ms)."""
    text = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


def waited_s(process_id: int) -> float:
    """Seconds that threads of a process were ready to run and had to wait for their core."""
    total = 0
    for folder in Path(f"/proc/{process_id}/task").iterdir():
        try:
            total += int((folder / "schedstat").read_text().split()[1])
        except OSError:
            continue  # it ended
    return total / 1e9


def tree_cpu_s(process_id: int) -> float:
    """The same of a process and its children, the ended ones included."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            if int(folder.name) == process_id:
                total += sum(map(int, text[11:15]))
            elif int(text[1]) == process_id:
                total += sum(map(int, text[11:13]))
    return total / os.sysconf("SC_CLK_TCK")
