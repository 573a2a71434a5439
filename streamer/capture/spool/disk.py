"""Run disk calls, which may hang, outside the event loop and with a timeout."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from include.errors import TransientError
from streamer.runtime.threads import in_thread

MAX_CALL_S = 30.0

Result = TypeVar("Result")


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file by writing a new one and renaming it, so that it is complete at any moment.

    Raises:
        OSError: the disk refuses it; the old file stays.
    """
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class Disk:
    """Runs blocking calls; calls of one name run one after the other.

    A hanging call cannot be ended. It is not repeated either, because it may still complete: the
    next one of its name waits for it first.
    """

    def __init__(self) -> None:
        self._hanging: dict[str, asyncio.Task[Any]] = {}

    async def call(
        self,
        call: Callable[[], Result],
        *,
        name: str,
        on_late: Callable[[Result], None] = lambda _: None,
    ) -> Result:
        """Run a call and await its result.

        Args:
            name: of calls that must not overtake each other.
            on_late: receives the result if it arrives after the timeout.

        Raises:
            TransientError: the disk hangs.
            OSError: the call's error.
        """
        hanging = self._hanging.get(name)
        if hanging is not None:
            await self._wait(hanging)
            self._hanging.pop(name, None)
        task = asyncio.ensure_future(in_thread(call, name=name))
        try:
            await self._wait(task)
        except TransientError:
            self._hanging[name] = task
            task.add_done_callback(lambda done: _report_late(done, on_late))
            raise
        except asyncio.CancelledError:
            task.cancel()
            raise
        return task.result()

    async def _wait(self, task: asyncio.Task[Any]) -> None:
        _, left = await asyncio.wait({task}, timeout=MAX_CALL_S)
        if left:
            raise TransientError(f"the disk hangs for {MAX_CALL_S:g} s")


def _report_late(done: asyncio.Task[Result], on_late: Callable[[Result], None]) -> None:
    if not done.cancelled() and done.exception() is None:
        on_late(done.result())
