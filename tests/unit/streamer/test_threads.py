from __future__ import annotations

import asyncio
import threading

import pytest

from streamer.threads import in_thread


async def test_the_result_and_the_error_of_a_call_come_back() -> None:
    assert await in_thread(lambda: 6 * 7, name="work") == 42
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, name="work")


async def test_a_call_that_is_given_up_holds_nobody_up() -> None:
    release = threading.Event()
    task = asyncio.create_task(in_thread(lambda: release.wait(30), name="slow"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    slow = [thread for thread in threading.enumerate() if thread.name == "slow"]
    assert all(thread.daemon for thread in slow)
    release.set()
    for thread in slow:
        thread.join(10)
        assert not thread.is_alive()
