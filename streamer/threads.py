"""Blocking calls beside the event loop, in threads that never hold up the process's end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result], *, name: str) -> Result:
    """Run a blocking call in a daemon thread and await its result.

    ``asyncio.to_thread`` would make the process wait at its end for a request that may take
    minutes; the streamer has to stop within ten seconds. A call that is given up goes on in
    its thread until it ends or the process does.
    """
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
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:
            failure = error  # raised where the result is awaited
            if not isinstance(error, Exception):
                raise
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future
