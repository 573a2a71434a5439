"""Run blocking calls in threads that never delay the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result], *, name: str) -> Result:
    """Run a blocking call in a daemon thread and await its result.

    With ``asyncio.to_thread``, a process that ends would wait for a request of minutes, but the
    streamer has to stop within ten seconds. If the caller is cancelled, the call continues in its
    thread.
    """
    work, future = _work_of(call)
    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


class Threads:
    """A pool of daemon threads for short calls, started as needed; further calls wait.

    ``ThreadPoolExecutor`` joins its threads when the process ends, daemons or not, so a query that
    hangs would prevent the process from ending.

    Args:
        max_threads: number of threads.
        name: of each thread.
    """

    def __init__(self, max_threads: int, *, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unfinished = 0
        """Number of waiting and running calls, including those whose caller was cancelled."""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run a blocking call; it is skipped if its caller is cancelled before its turn."""
        work, future = _work_of(call, ended=self._ended)
        with self._lock:
            self._unfinished += 1
            is_short = self._unfinished > len(self._threads) < self._max_threads
        self._works.put(work)
        if is_short:
            self._threads.append(
                threading.Thread(target=self._run, name=self._name, daemon=True),
            )
            self._threads[-1].start()
        return await future

    def close(self) -> None:
        """End each thread after its calls."""
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
    """Return the thread's function and the future of its result; ``ended`` is called first."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def set_result(result: Result | None, error: BaseException | None) -> None:
        if future.done():  # the caller was cancelled
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
                loop.call_soon_threadsafe(set_result, result, failure)

    return work, future
