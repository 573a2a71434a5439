from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from streamer.runtime.threads import Threads, in_thread


async def test_result_and_error_of_a_call_are_returned() -> None:
    assert await in_thread(lambda: 6 * 7, name="work") == 42
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, name="work")


async def test_cancelled_call_delays_nothing() -> None:
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


async def test_calls_share_a_few_threads_created_on_demand() -> None:
    threads = Threads(2, name="few")
    assert [await threads.run(threading.get_ident) for _ in range(5)].count(0) == 0
    assert len(few()) == 1
    release, begun = threading.Event(), []

    def call() -> int:
        begun.append(threading.get_ident())
        release.wait(30)
        return threading.get_ident()

    tasks = [asyncio.create_task(threads.run(call)) for _ in range(5)]
    async with asyncio.timeout(30):
        while len(begun) < 2:
            await asyncio.sleep(0.002)
        tasks[-1].cancel()  # before its turn
        await asyncio.sleep(0)
        release.set()
        used = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({one for one in used if isinstance(one, int)}) == 2
    assert isinstance(used[-1], asyncio.CancelledError)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert len(begun) == 4
    assert all(thread.daemon for thread in few())
    left = few()
    threads.close()
    for thread in left:
        thread.join(10)
    assert few() == []


async def test_cancelled_call_that_hangs_does_not_block_the_next_one() -> None:
    threads = Threads(2, name="few")
    release = threading.Event()
    hanging = asyncio.create_task(threads.run(release.wait))
    async with asyncio.timeout(30):
        while not few():
            await asyncio.sleep(0.002)
        hanging.cancel()
        await asyncio.wait([hanging])
        assert await threads.run(lambda: 7) == 7
    release.set()
    left = few()
    threads.close()
    for thread in left:
        thread.join(10)


def few() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "few"]


def test_hanging_call_does_not_keep_the_process_alive() -> None:
    program = """
import asyncio, threading
from streamer.runtime.threads import Threads

async def main():
    threads = Threads(1, name="hanging")
    asyncio.ensure_future(threads.run(threading.Event().wait))
    await asyncio.sleep(0.05)
    threads.close()

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert ended.returncode == 0
