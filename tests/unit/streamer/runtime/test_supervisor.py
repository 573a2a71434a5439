"""Tasks that run side by side until one of them ends."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import CapturingLogger

from streamer.runtime import supervisor as module
from streamer.runtime.supervisor import Supervisor, run_together


class Task:
    """Runs until it is cancelled, and records whether it runs."""

    def __init__(self) -> None:
        self.is_running = False
        self.has_ended = asyncio.Event()

    async def run(self) -> None:
        self.is_running = True
        try:
            await self.has_ended.wait()
        finally:
            self.is_running = False


async def fail() -> None:
    raise ValueError("a bug")


async def test_first_failure_is_raised_and_ends_the_others() -> None:
    other = Task()
    with pytest.raises(ValueError, match="a bug"):
        await run_together(other.run(), fail(), name="test")
    assert not other.is_running


async def test_first_task_that_ends_ends_the_others() -> None:
    one, other = Task(), Task()
    one.has_ended.set()
    await run_together(one.run(), other.run(), name="test")
    assert not other.is_running


async def test_stop_ends_all_tasks() -> None:
    one, stop = Task(), asyncio.Event()
    running = asyncio.create_task(run_together(one.run(), name="test", stop=stop))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert one.is_running
    stop.set()
    await running
    assert not one.is_running


async def test_task_cancelled_alone_leaves_the_others_running() -> None:
    one, other = Task(), Task()
    async with Supervisor("test") as tasks:
        tasks.start(one.run(), key="one")
        tasks.start(other.run())
        waiting = asyncio.create_task(tasks.wait())
        await asyncio.sleep(0)
        tasks.cancel("one")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (one.is_running, other.is_running, waiting.done()) == (False, True, False)
        waiting.cancel()
    assert not other.is_running


async def test_task_that_ignores_its_cancellation_delays_the_end_only_briefly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, released = CapturingLogger(), asyncio.Event()
    monkeypatch.setattr(module, "log", log)

    async def ignore() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await released.wait()

    tasks = Supervisor("test", cancel_timeout_s=0.01)
    tasks.start(ignore())
    await asyncio.sleep(0)
    await tasks.close()
    assert [(call.args, call.kwargs) for call in log.calls] == [
        (("tasks_not_ended",), {"of": "test", "tasks": 1})
    ]
    released.set()
    await asyncio.sleep(0)
