"""Blocking calls beside the event loop, in threads that never hold up the process's end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result], *, name: str) -> Result:
    """Run a blocking call in a daemon thread and await its result.

    ``asyncio.to_thread`` would make the process wait at its end for a request that may take
    minutes; the streamer has to stop within ten seconds. A call that is given up goes on in
    its thread until it ends or the process does.
    """
    work, future = _work_of(call)
    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


class Threads:
    """Some daemon threads for short calls, made as they are needed; more calls wait in line.

    ``ThreadPoolExecutor`` joins its threads at the process's end, whether or not they are daemons:
    a query that hangs there kept the process from ending.

    Args:
        most: threads.
        name: of each.
    """

    def __init__(self, most: int, *, name: str) -> None:
        self._most = most
        self._name = name
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unfinished = 0
        """Calls in line and under way, those that were given up among them."""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run a blocking call in one of them; one that is given up before its turn is not made."""
        work, future = _work_of(call, ended=self._ended)
        with self._lock:
            self._unfinished += 1
            is_short = self._unfinished > len(self._threads) < self._most
        self._works.put(work)
        if is_short:
            self._threads.append(
                threading.Thread(target=self._run, name=self._name, daemon=True),
            )
            self._threads[-1].start()
        return await future

    def close(self) -> None:
        """Let them end once their calls do."""
        for _ in self._threads:
            self._works.put(None)

    def _ended(self) -> None:
        with self._lock:
            self._unfinished -= 1

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work()


def _work_of(
    call: Callable[[], Result], *, ended: Callable[[], None] = lambda: None
) -> tuple[Callable[[], None], asyncio.Future[Result]]:
    """What a thread has to do, and where the result comes; ``ended`` is told before."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():  # given up meanwhile
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        if future.done():
            ended()
            return
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:
            failure = error  # raised where the result is awaited
            if not isinstance(error, Exception):
                raise
        finally:
            ended()
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failure)

    return work, future
