"""The streamer's HTTP server, in the streamer's event loop.

Requests share the loop with the exchange's frames, so an application must answer from memory and
never block.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from include.config import STREAMER_HTTP_PORT as DEFAULT_PORT
from include.errors import PermanentError
from serving.auth.client_network import trusted_hosts
from serving.http.bounded_http import BoundedHttpProtocol
from serving.http.encoded_frames import EncodedFramesProtocol

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 64
"""Further requests are answered with 503, to protect the event loop."""
MAX_MESSAGE_BYTES = 128 << 10
MAX_WAITING_MESSAGES = 16
"""Messages of one WebSocket that may wait to be processed."""
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 1


class _Server(uvicorn.Server):
    """Uvicorn inside a larger program, which handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True)
class Place:
    """Address of an application.

    Attributes:
        host: address to listen on.
        port: 0 lets the system choose; None means ``usual_port``, or any port if that is taken.
        usual_port: the default port.
        setting: prefix of its settings.
        max_connections: further requests are answered with 503.
        has_websockets: the application accepts them.
        trusted_proxies: their X-Forwarded-For and X-Forwarded-Proto count: the client is the
            last address in it that is not one of them.
    """

    host: str
    port: int | None
    usual_port: int = DEFAULT_PORT
    setting: str = "STREAMER_HTTP"
    max_connections: int = MAX_CONNECTIONS
    has_websockets: bool = False
    trusted_proxies: tuple[str, ...] = ()


@asynccontextmanager
async def serving(app: ASGIApp, place: Place) -> AsyncIterator[str]:
    """Serve an application; yields its base URL.

    Raises:
        PermanentError: the host or port is unavailable.
    """
    listener = _listen(place)
    url = _url_of(listener)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=bool(place.trusted_proxies),
            forwarded_allow_ips=trusted_hosts(place.trusted_proxies),
            http=BoundedHttpProtocol,
            ws=EncodedFramesProtocol if place.has_websockets else "none",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_max_queue=MAX_WAITING_MESSAGES,
            ws_per_message_deflate=False,
            limit_concurrency=place.max_connections,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
    )
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not server.started:
                if task.done():
                    task.result()
                    raise PermanentError(f"the HTTP server on {url} ended while starting")
                await asyncio.sleep(0.005)
        task.add_done_callback(_note_end)
        log.info("http_listening", url=url, settings=f"{place.setting}_*")
        yield url
    finally:
        task.remove_done_callback(_note_end)
        server.should_exit = True
        _, left = await asyncio.wait({task}, timeout=STOP_TIMEOUT_S + 1)
        for one in left:
            one.cancel()
        listener.close()


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may resolve to anything


def _note_end(task: asyncio.Task[Any]) -> None:
    """Log the end of the server; streaming continues without it."""
    error = None if task.cancelled() else task.exception()
    log.error("http_server_stopped", error=repr(error))


def _listen(place: Place) -> socket.socket:
    if place.port is not None:
        return _bound(place, place.port)
    try:
        return _bound(place, place.usual_port)
    except PermanentError:
        return _bound(place, 0)


def _bound(place: Place, port: int) -> socket.socket:
    host, setting = place.host, place.setting
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PermanentError(
            f"{setting}_HOST={host}: {error.strerror or error}; should be an address of this "
            "machine, such as 127.0.0.1"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(place.max_connections)
    except OSError as error:
        listener.close()
        raise PermanentError(
            f"cannot listen on {setting}_HOST={host}, {setting}_PORT={port}: "
            f"{error.strerror}; free the port, choose another, 0 to let the system choose, or "
            f"switch it off with {setting}=false"
        ) from error
    listener.setblocking(False)
    return listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
