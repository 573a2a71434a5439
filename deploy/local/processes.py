"""Start and stop child processes; none of them survives its supervisor's ``stop``.

Each child leads its own process group and has a marker in its environment, which its descendants
inherit. The marker finds descendants that left the group, as Airflow's tasks do, and processes
that a killed supervisor left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]
import structlog

from deploy.local.polling import attempts

log = structlog.get_logger(__name__)

MARKER = "CANDELABRA_SUPERVISOR"
"""Environment variable with the same value in all processes of one supervisor."""

TAIL_LINES = 30

WRONG_VALUE = 2
"""Exit code of a program that refuses its arguments or settings."""

DESCENDANT_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL for a descendant that left its group. Airflow's tasks handle SIGTERM
but may continue to run."""


@dataclass(frozen=True)
class ProcessExit:
    """How a child ended unexpectedly.

    ``exit_code`` is negative for a signal, as in :mod:`subprocess`.
    """

    name: str
    exit_code: int
    log_file: Path
    log_tail: str

    def __str__(self) -> str:
        how = (
            f"was killed by {signal.Signals(-self.exit_code).name}"
            if self.exit_code < 0
            else f"ended with exit code {self.exit_code}"
        )
        return f"{self.name} {how}; end of {self.log_file}:\n{self.log_tail}"


class SupervisedProcess:
    """A child process in its own process group, with its output appended to a file.

    Args:
        name: used in messages.
        command: the program and its arguments.
        environment: the complete environment, including ``MARKER``.
        log_file: receives standard output and standard error.
        working_folder: the child's working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        log_file: Path,
        working_folder: Path,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._command = command
        self._environment = dict(environment)
        self._working_folder = working_folder
        self._log_start = 0
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as out:
            self._log_start = out.tell()
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._working_folder,
                env=self._environment,
                # Ctrl-C reaches only the supervisor, which stops its children in order.
                start_new_session=True,
            )

    def add_arguments(self, *arguments: str) -> None:
        """Append arguments for the next start."""
        self._command = [*self._command, *arguments]

    @property
    def pid(self) -> int:
        """Process id and id of the process group."""
        return self._process.pid

    def exited(self) -> ProcessExit | None:
        """Return how the child ended, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return ProcessExit(self.name, code, self.log_file, tail(self.log_file))

    def ended(self) -> str | None:
        """Return how the child ended and the end of its log, or None while it runs."""
        end = self.exited()
        return None if end is None else str(end)

    def is_hopeless(self) -> bool:
        """Whether the child refused its arguments or settings, as it would again."""
        return self._process.poll() == WRONG_VALUE

    def start_again(self) -> None:
        """Start the ended child again, after what it left in its process group has ended."""
        for process in marked(self._environment.get(MARKER, "")):
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getpgid(process.pid) == self._process.pid:
                    process.kill()
        self._process = self._spawn()

    def output(self) -> str:
        """Return what the child has written to its log since its last start."""
        with self.log_file.open("rb") as source:
            source.seek(self._log_start)
            return source.read().decode("utf-8", "replace")

    @property
    def is_running(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Send SIGTERM unless the child has ended."""
        self._process.terminate()

    def kill_group(self, *, timeout_s: float = 10.0) -> None:
        """Send SIGKILL to the child's group and wait for the child."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout_s)


def stop_all(
    children: Sequence[SupervisedProcess], *, marker: str, term_timeout_s: float
) -> list[str]:
    """Stop the children and all their descendants: SIGTERM, wait, SIGKILL.

    SIGTERM goes to each child, which stops its own group, and to descendants that left the group.
    A child may wait for those: Airflow's scheduler waits for its tasks.

    Args:
        children: signalled in this order, then awaited together.
        marker: value of ``MARKER``; all processes with it are stopped.
        term_timeout_s: time for all of them after SIGTERM.

    Returns:
        Names of the children that had to be killed.
    """
    killed = terminate(children, marker=marker, timeout_s=term_timeout_s)
    end_marked(marker, term_timeout_s=min(term_timeout_s, DESCENDANT_GRACE_S))
    return killed


def terminate(children: Sequence[SupervisedProcess], *, marker: str, timeout_s: float) -> list[str]:
    """Stop the children like ``stop_all``, but leave other processes with the marker running.

    Descendants that left their group are stopped too, whichever child they belong to.
    """
    for child in children:
        child.terminate()
    signalled_at: dict[int, float] = {}
    for _ in attempts(timeout_s, interval_s=0.1):
        if not any(child.is_running for child in children):
            break
        # Repeated, because a child may start another one before it handles SIGTERM.
        for process in _outside_their_group(marker):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid not in signalled_at:
                    signalled_at[process.pid] = time.monotonic()
                    process.terminate()
                elif time.monotonic() - signalled_at[process.pid] > DESCENDANT_GRACE_S:
                    process.kill()
    late = [child for child in children if child.is_running]
    for child in late:
        child.kill_group()
    if late:
        log.info("processes_killed", names=[child.name for child in late], after_s=timeout_s)
    return [child.name for child in late]


def _outside_their_group(marker: str) -> list[psutil.Process]:
    parents: dict[psutil.Process, int] = {}
    for process in marked(marker):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end meanwhile
            parents[process] = process.ppid()
    # Only our children lead groups that they stop themselves.
    leaders = {process.pid for process, parent in parents.items() if parent == os.getpid()}
    left = []
    for process in parents:
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) not in leaders:
                left.append(process)
    return left


def end_marked(marker: str, *, term_timeout_s: float) -> int:
    """Stop every process with the marker: SIGTERM, then SIGKILL.

    Returns:
        The number of processes found.
    """
    found = marked(marker)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=term_timeout_s)
    # Search again, because a process may have forked during the search.
    while alive or (alive := marked(marker)):
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, stuck = psutil.wait_procs(alive, timeout=10.0)
        if stuck:
            log.error("processes_stuck", pids=[process.pid for process in stuck])
            break
        alive = []
    return len(found)


def marked(marker: str) -> list[psutil.Process]:
    """Return the running processes with the marker in their environment, except this one."""
    return list(_marked(marker, psutil.process_iter()))


def _marked(marker: str, processes: Iterable[psutil.Process]) -> Iterable[psutil.Process]:
    for process in processes:
        # Other users' processes cannot be read and are not our children.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if (
                process.pid != os.getpid()
                and process.environ().get(MARKER) == marker
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                yield process


def tail(file: Path, *, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a text file, or a note that there are none."""
    try:
        with file.open("rb") as source:
            source.seek(max(0, file.stat().st_size - lines * 400))
            text = source.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"
