"""Keeps a connection to NATS, with one session for each connection.

The client's own reconnection is off: it buffers what is published while disconnected, and does not
say what it lost. Here each connection starts a new session, and both ends know.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from include.backoff import Backoff, RetryLoop
from include.errors import PermanentError, TransientError

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=0.25, max_s=5.0, min_s=0.05)
CONNECT_TIMEOUT_S = 5
"""Timeout of connecting to one server; there may be several."""
MAX_CONNECTING_S = 20.0
ANSWER_TIMEOUT_S = 5
"""A server that answers no ping for this long counts as gone."""
PING_INTERVAL_S = 5
CLOSE_TIMEOUT_S = 2.0
CANCEL_TIMEOUT_S = 1.0
POLL_INTERVAL_S = 60.0
"""Fallback poll; task completion normally wakes us."""

_ENDED = (NatsError, OSError, TimeoutError, TransientError, RuntimeError)
"""Errors that end a connection. RuntimeError: uvloop raises it for a socket that was closed just
before the client noticed.
"""

Session = Callable[[Client], Coroutine[Any, Any, None]]
"""Uses one connection, and ends with it."""


class NatsConnection:
    """Connects to NATS, and again after each disconnect.

    Args:
        url: ``nats://host:port`` or ``tls://``, several separated by commas; may hold user and
            password.
        name: shown in the server's list of connections.
        certificate: PEM file of the trusted CA; None trusts those of the system.
    """

    def __init__(self, url: str, *, name: str, certificate: Path | None = None) -> None:
        self._servers = [_plain(one) for one in url.split(",")]
        self._login: dict[str, Any] = _login(url.split(","))
        self._name = name
        self.is_connected = False
        self.disconnects = 0
        self.dropped = 0
        """Messages that did not fit into the client's buffer."""
        self.reason = "not connected yet"
        """Why there is no connection."""
        self._trusted = None if certificate is None else _trusting(certificate)
        self._broken: BaseException | None = None
        self._error = ""

    @property
    def hosts(self) -> str:
        """Hosts and ports, without credentials."""
        return ",".join(one.partition("//")[2] for one in self._servers)

    async def run(self, session: Session) -> None:
        """Connect, and run a session for each connection, until cancelled or one returns."""
        loop = asyncio.get_running_loop()
        retries = RetryLoop(
            BACKOFF, on_retry=partial(log.warning, "nats_unreachable", servers=self.hosts)
        )

        async def connect() -> bool:
            began_s = loop.time()
            try:
                if await self._connection(session):
                    return True
                error: BaseException = TransientError("the server ended the connection")
            except _ENDED as found:
                error = found
            finally:
                was_connected, self.is_connected = self.is_connected, False
                self.disconnects += was_connected
            if was_connected and loop.time() - began_s > BACKOFF.max_s:
                retries.succeeded()
            self.reason = self._reason(error)
            raise TransientError(self.reason) from error

        await retries.run(connect)

    async def _connection(self, session: Session) -> bool:
        """Run one connection; returns whether the session ended by itself."""
        ended = asyncio.Event()
        client = _Strict()
        self._broken, self._error = None, ""

        async def on_closed() -> None:
            ended.set()

        async def on_error(error: Exception) -> None:
            self._note(error)
            if self._broken is not None:
                ended.set()

        try:
            async with asyncio.timeout(MAX_CONNECTING_S):
                await client.connect(
                    self._servers,
                    name=self._name,
                    error_cb=on_error,
                    closed_cb=on_closed,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    ping_interval=PING_INTERVAL_S,
                    no_echo=True,
                    # We flush before we publish more, so nothing needs buffering.
                    pending_size=-1,
                    tls=self._trusted,
                    **self._login,
                )
            self.is_connected, self.reason = True, ""
            log.info("nats_connected", servers=self.hosts)
            is_over = await first_ended(session(client), _wait(ended)) == 0
            if self._broken is not None:
                raise self._broken
            return is_over
        finally:
            await _close(client)

    def _note(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            self.dropped += 1  # message numbers reveal the loss
        elif isinstance(error, (NatsError, OSError, TimeoutError)):
            self._error = str(error) or type(error).__name__
            if "permissions violation" in self._error.lower():
                # It would refuse each message.
                self._broken = TransientError("NATS refuses permission")
        else:
            self._broken = error  # our own error, in a message handler

    def _reason(self, error: BaseException) -> str:
        """The first error, which names the cause; the last one only says that it failed."""
        text = str(error) or type(error).__name__
        return f"{text}: {self._error}" if self._error and self._error not in text else text


class _Strict(Client):
    """The library's client, without its fallback from ``tls://`` to plain text."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        server = self._current_server
        is_secret = server is not None and server.uri.scheme == "tls"
        if initial_connection and is_secret and not info.get("tls_required"):
            raise NatsError("the URL is tls://, but the server does not offer TLS")
        await super()._process_info(info, initial_connection)


async def first_ended(*works: Coroutine[Any, Any, None]) -> int:
    """Run coroutines until one ends; return its position, and cancel the others.

    Raises:
        The error of the one that ended; of several, the first in their order.
    """
    tasks = [asyncio.create_task(one) for one in works]
    try:
        done: set[asyncio.Task[None]] = set()
        while not done:
            done, _ = await asyncio.wait(
                tasks, timeout=POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
            )
    finally:
        left = {one for one in tasks if not one.done()}
        while left:  # the client sometimes swallows a cancel
            for one in left:
                one.cancel()
            _, left = await asyncio.wait(left, timeout=CANCEL_TIMEOUT_S)
        for one in tasks:  # retrieved, so that asyncio does not report it as lost
            if not one.cancelled() and (error := one.exception()) is not None:
                log.debug("nats_work_failed", error=repr(error))
    for place, one in enumerate(tasks):
        if one in done:
            one.result()
            return place
    raise AssertionError("one has ended")


async def flushed(client: Client) -> None:
    """Wait until the server has received everything published.

    Raises:
        TimeoutError: it does not answer.
        nats.errors.Error: the connection has ended.
    """
    await client.flush(timeout=ANSWER_TIMEOUT_S)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # Python 3.11's wait_for, which the client uses, loses a cancel that coincides with the
        # answer.
        raise asyncio.CancelledError


async def _wait(event: asyncio.Event) -> None:
    while not event.is_set():
        try:
            async with asyncio.timeout(POLL_INTERVAL_S):
                await event.wait()
        except TimeoutError:
            continue


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.close()
    except _ENDED as error:
        log.debug("nats_not_closed", error=str(error))


def _plain(url: str) -> str:
    """A server's address without credentials: errors of the client may contain it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or 4222}"


def _login(urls: list[str]) -> dict[str, Any]:
    """User and password, or a token, from the first URL that has them."""
    for parts in map(urlsplit, urls):
        if parts.username and parts.password is not None:
            return {"user": unquote(parts.username), "password": unquote(parts.password)}
        if parts.username:
            return {"token": unquote(parts.username)}
    return {}


def _trusting(certificate: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(certificate))
    except (OSError, ssl.SSLError) as error:
        raise PermanentError(
            f"{certificate}: {error}; should be the PEM file of the trusted CA"
        ) from error
