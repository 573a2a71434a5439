"""Run tasks concurrently until one of them ends, and end the others within a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable
from types import TracebackType
from typing import Any, Self

import structlog

log = structlog.get_logger(__name__)

CANCEL_TIMEOUT_S = 3.0


class Supervisor:
    """Owns endless tasks: the first one to end, or to fail, ends ``wait``.

    Unlike ``asyncio.TaskGroup`` it raises the failure itself, can end single tasks, and does not
    wait forever for tasks that ignore a cancellation.

    Args:
        name: of the tasks' work, for the log.
        cancel_timeout_s: how long tasks may take to end once they are cancelled.
    """

    def __init__(self, name: str, *, cancel_timeout_s: float = CANCEL_TIMEOUT_S) -> None:
        self._name = name
        self._cancel_timeout_s = cancel_timeout_s
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._first_ended: asyncio.Task[Any] | None = None
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def start(self, work: Coroutine[Any, Any, Any], *, key: Hashable | None = None) -> None:
        """Start a task; with a key it can be cancelled alone."""
        task = asyncio.ensure_future(work)
        self._tasks[task if key is None else key] = task
        task.add_done_callback(self._on_end)

    def cancel(self, key: Hashable) -> None:
        """Cancel one task, which ends in the background."""
        task = self._tasks.pop(key)
        self._cancelled.add(task)
        task.cancel()

    async def wait(self, stop: asyncio.Event | None = None) -> None:
        """Wait until a task ends, or ``stop`` is set; raises what ended the task."""
        waits = [asyncio.ensure_future(self._wake.wait())]
        if stop is not None:
            waits.append(asyncio.ensure_future(stop.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if self._first_ended is not None:
            self._first_ended.result()

    async def close(self) -> None:
        """Cancel all tasks and wait for their end, for a bounded time."""
        self._cancelled |= set(self._tasks.values())
        tasks = set(self._cancelled)
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, running = await asyncio.wait(tasks, timeout=self._cancel_timeout_s)
        if running:
            log.warning("tasks_not_ended", of=self._name, tasks=len(running))

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        if task in self._cancelled:
            self._cancelled.discard(task)
            if not task.cancelled():
                task.exception()  # retrieve the error: a task cancelled on purpose may fail
            return
        if self._first_ended is None:
            self._first_ended = task
            self._wake.set()
        elif not task.cancelled():
            task.exception()


async def run_together(
    *works: Coroutine[Any, Any, Any],
    name: str,
    stop: asyncio.Event | None = None,
    cancel_timeout_s: float = CANCEL_TIMEOUT_S,
) -> None:
    """Run works side by side until one ends or fails, or ``stop`` is set."""
    async with Supervisor(name, cancel_timeout_s=cancel_timeout_s) as tasks:
        for work in works:
            tasks.start(work)
        await tasks.wait(stop)
