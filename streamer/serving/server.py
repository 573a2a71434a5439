"""The streamer's HTTP server, in the streamer's own event loop.

Whoever is served shares the loop with the frames: an application given here answers from memory
and never blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

from include.config import STREAMER_HTTP_PORT as DEFAULT_PORT
from include.errors import PermanentError

log = structlog.get_logger(__name__)

MOST_CONNECTIONS = 64
"""Beyond these, requests are answered with 503: nobody may take the loop's time for his own."""
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 1


class _Server(uvicorn.Server):
    """Uvicorn inside a larger program: signals are the program's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Starlette, *, host: str, port: int | None) -> AsyncIterator[str]:
    """Serve an application; yields its base URL.

    Args:
        host: address to listen on.
        port: 0 lets the system choose; None is 9464, or where that is taken as with 0.

    Raises:
        PermanentError: host or port cannot be had.
    """
    listener = _listen(host, port)
    url = _url_of(listener)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            http="h11",
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
    )
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not server.started:
                if task.done():
                    task.result()
                    raise PermanentError(f"the HTTP server on {url} ended as it started")
                await asyncio.sleep(0.005)
        task.add_done_callback(_note_end)
        log.info("http_listening", url=url)
        yield url
    finally:
        task.remove_done_callback(_note_end)
        server.should_exit = True
        _, left = await asyncio.wait({task}, timeout=STOP_TIMEOUT_S + 1)
        for one in left:
            one.cancel()
        listener.close()


def _note_end(task: asyncio.Task[Any]) -> None:
    """Candles do not stop because nobody can look at them, but somebody should know."""
    error = None if task.cancelled() else task.exception()
    log.error("http_ended", error=repr(error))


def _listen(host: str, port: int | None) -> socket.socket:
    if port is not None:
        return _bound(host, port)
    try:
        return _bound(host, DEFAULT_PORT)
    except PermanentError:
        return _bound(host, 0)


def _bound(host: str, port: int) -> socket.socket:
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PermanentError(
            f"STREAMER_HTTP_HOST={host}: {error.strerror or error}; should be an address of this "
            "machine, such as 127.0.0.1"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(MOST_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise PermanentError(
            f"cannot listen on STREAMER_HTTP_HOST={host}, STREAMER_HTTP_PORT={port}: "
            f"{error.strerror}; free the port, choose another, 0 to let the system choose, or "
            "switch it off with STREAMER_HTTP=false"
        ) from error
    listener.setblocking(False)
    return listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
