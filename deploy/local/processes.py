"""Child processes that never outlive their supervisor's ``stop``.

Each child leads a process group of its own and carries a marker in its environment, which all
its descendants inherit. A descendant that left the group (Airflow's tasks do) or that a killed
supervisor left behind is found again by that marker, and by nothing else.
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

log = structlog.get_logger(__name__)

MARKER = "CANDELABRA_SUPERVISOR"
"""Environment variable whose value is the same for all processes of one supervisor."""

TAIL_LINES = 30

DESCENDANT_GRACE_S = 2.0
"""From SIGTERM to SIGKILL of a descendant that left its group: Airflow's tasks hear the first, tell
their operator, and go on."""


@dataclass(frozen=True)
class ProcessExit:
    """A child that ended without being asked to.

    ``exit_code`` is negative for a signal, as in :mod:`subprocess`.
    """

    name: str
    exit_code: int
    log_file: Path
    log_tail: str

    def __str__(self) -> str:
        how = (
            f"was ended by {signal.Signals(-self.exit_code).name}"
            if self.exit_code < 0
            else f"ended with exit code {self.exit_code}"
        )
        return f"{self.name} {how}; end of {self.log_file}:\n{self.log_tail}"


class SupervisedProcess:
    """One child in a process group of its own, its output appended to a file.

    Args:
        name: what the child is called in messages.
        command: the program and its arguments.
        environment: the whole environment of the child, ``MARKER`` among it.
        log_file: takes standard output and standard error.
        working_folder: where the child runs.
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
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=working_folder,
                env=dict(environment),
                # Ctrl-C in the terminal is for the supervisor, who ends its children in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the process group."""
        return self._process.pid

    def exited(self) -> ProcessExit | None:
        """How the child ended, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return ProcessExit(self.name, code, self.log_file, tail(self.log_file))

    @property
    def is_running(self) -> bool:
        """Whether the child has not ended yet."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask the child to end; does nothing once it has."""
        self._process.terminate()

    def kill_group(self, *, timeout_s: float = 10.0) -> None:
        """End the child and all of its group, and wait for the child."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout_s)


def stop_all(
    children: Sequence[SupervisedProcess], *, marker: str, term_timeout_s: float
) -> list[str]:
    """End the children and whatever descends from them: SIGTERM, wait, SIGKILL.

    SIGTERM goes to each child, whose business its own group is, and to descendants that left the
    group, since a child may wait for them: Airflow's scheduler waits for its tasks, and for ever
    when its workers are ended under it.

    Args:
        children: asked in this order, waited for together.
        marker: value of ``MARKER`` in their environment; carried by no process that should stay.
        term_timeout_s: time for all of them after SIGTERM.

    Returns:
        Names of the children that had to be killed.
    """
    killed = terminate(children, marker=marker, timeout_s=term_timeout_s)
    end_marked(marker, term_timeout_s=2.0)
    return killed


def terminate(children: Sequence[SupervisedProcess], *, marker: str, timeout_s: float) -> list[str]:
    """As ``stop_all``, but other processes of the marker go on.

    Descendants that left their group are ended whichever child they descend from.
    """
    deadline = time.monotonic() + timeout_s
    for child in children:
        child.terminate()
    asked_at: dict[int, float] = {}
    while any(child.is_running for child in children) and time.monotonic() < deadline:
        # Again and again: a child may start one more before it hears of its end.
        for process in _that_left_their_group(marker):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid not in asked_at:
                    asked_at[process.pid] = time.monotonic()
                    process.terminate()
                elif time.monotonic() - asked_at[process.pid] > DESCENDANT_GRACE_S:
                    process.kill()
        time.sleep(0.1)
    late = [child for child in children if child.is_running]
    for child in late:
        child.kill_group()
    if late:
        log.warning("processes_killed", names=[child.name for child in late], after_s=timeout_s)
    return [child.name for child in late]


def _that_left_their_group(marker: str) -> list[psutil.Process]:
    found = marked(marker)
    # A group that none of our children leads, or one that a descendant leads itself.
    leaders = {process.pid for process in found if process.ppid() == os.getpid()}
    left = []
    for process in found:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) not in leaders:
                left.append(process)
    return left


def end_marked(marker: str, *, term_timeout_s: float) -> int:
    """End every process that carries the marker: SIGTERM, then SIGKILL.

    Returns:
        How many there were.
    """
    found = marked(marker)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=term_timeout_s)
    # A process that forked while we looked shows up in a second look.
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
    """The running processes whose environment carries the marker, this one excepted."""
    return list(_marked(marker, psutil.process_iter()))


def _marked(marker: str, processes: Iterable[psutil.Process]) -> Iterable[psutil.Process]:
    for process in processes:
        # Processes of other users cannot be read, and are not ours.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if (
                process.pid != os.getpid()
                and process.environ().get(MARKER) == marker
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                yield process


def tail(file: Path, *, lines: int = TAIL_LINES) -> str:
    """The last lines of a text file, or a word that there are none."""
    try:
        with file.open("rb") as source:
            source.seek(max(0, file.stat().st_size - lines * 400))
            text = source.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"
