"""One connection to NATS after another.

The client's own reconnecting is left off: it keeps what was published during a cut, without saying
what it lost. Here each connection begins anew, and those at its ends know that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError

from include.backoff import Backoff
from include.errors import PermanentError, TransientError

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=0.25, max_s=5.0, min_s=0.05)
CONNECT_TIMEOUT_S = 5
"""To one server; there may be several."""
MAX_CONNECTING_S = 20.0
ANSWER_TIMEOUT_S = 5
"""A server that answers no ping for so long is gone, or hangs."""
PING_INTERVAL_S = 5
CLOSE_TIMEOUT_S = 2.0
CANCEL_TIMEOUT_S = 1.0
POLL_INTERVAL_S = 60.0
"""An end is heard at once; so often it is looked for all the same."""

_ENDED = (NatsError, OSError, TimeoutError, TransientError, RuntimeError)
"""How a connection ends. RuntimeError: uvloop's word for a socket that was closed a moment before
the client heard of it."""

Session = Callable[[Client], Coroutine[Any, Any, None]]
"""What is done with a connection; it ends with it."""


class NatsConnection:
    """The way to NATS, made anew after each cut, without an end.

    Args:
        url: ``nats://host:port`` or ``tls://``, several by comma; may hold user and password.
        name: shown among the server's connections.
        certificate: PEM file of whom to trust; None trusts whom the system does.
    """

    def __init__(self, url: str, *, name: str, certificate: Path | None = None) -> None:
        self._servers = [_plain(one) for one in url.split(",")]
        self._login: dict[str, Any] = _login(url.split(","))
        self._name = name
        self.is_connected = False
        self.disconnects = 0
        self.dropped = 0
        """Messages that the client had no room for."""
        self.reason = "no connection was made yet"
        """Why there is no connection."""
        self._trusted = None if certificate is None else _trusting(certificate)
        self._broken: BaseException | None = None
        self._error = ""

    @property
    def hosts(self) -> str:
        """Hosts and ports, without who connects."""
        return ",".join(one.partition("//")[2] for one in self._servers)

    async def run(self, session: Session) -> None:
        """Connect, and have a session with each connection, until cancelled or it returns."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                if await self._connection(session):
                    return
                error: BaseException = TransientError("the server ended the connection")
            except _ENDED as found:
                error = found
            finally:
                was_connected, self.is_connected = self.is_connected, False
                self.disconnects += was_connected
            lived_s = loop.time() - began_s if was_connected else 0.0
            failures = 1 if lived_s > BACKOFF.max_s else failures + 1
            self.reason = self._reason(error)
            wait_s = BACKOFF.wait_s(failures)
            log.warning(
                "nats_unreachable",
                servers=self.hosts,
                error=self.reason,
                retry_in_s=round(wait_s, 2),
            )
            await asyncio.sleep(wait_s)

    async def _connection(self, session: Session) -> bool:
        """One connection; whether the session has come to its own end."""
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
                    # We wait for the server's answer to what we said, before we say more.
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
            self.dropped += 1  # the numbers of messages tell what is missing
        elif isinstance(error, (NatsError, OSError, TimeoutError)):
            self._error = str(error) or type(error).__name__
            if "permissions violation" in self._error.lower():
                # It would refuse each message.
                self._broken = TransientError("NATS does not let us")
        else:
            self._broken = error  # of our own, in what takes the messages

    def _reason(self, error: BaseException) -> str:
        """Why, in the words of what failed first; the client's last ones only say that it did."""
        text = str(error) or type(error).__name__
        return f"{text}: {self._error}" if self._error and self._error not in text else text


class _Strict(Client):
    """The library's client, which with ``tls://`` speaks plainly where the server has no TLS."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        server = self._current_server
        is_secret = server is not None and server.uri.scheme == "tls"
        if initial_connection and is_secret and not info.get("tls_required"):
            raise NatsError("tls:// is asked for, and the server does not speak TLS")
        await super()._process_info(info, initial_connection)


async def first_ended(*works: Coroutine[Any, Any, None]) -> int:
    """Run works until one ends; its place among them. The others are cancelled.

    Raises:
        What ended it; of several at once, that of the first in their order.
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
        while left:  # the client loses a cancel now and then
            for one in left:
                one.cancel()
            _, left = await asyncio.wait(left, timeout=CANCEL_TIMEOUT_S)
        for one in tasks:  # only one is raised; asyncio takes what nobody asks for as lost
            if not one.cancelled() and (error := one.exception()) is not None:
                log.debug("nats_work_failed", error=repr(error))
    for place, one in enumerate(tasks):
        if one in done:
            one.result()
            return place
    raise AssertionError("one has ended")


async def flushed(client: Client) -> None:
    """Wait until the server has taken all that was said.

    Raises:
        TimeoutError: it does not answer.
        nats.errors.Error: the connection has ended.
    """
    await client.flush(timeout=ANSWER_TIMEOUT_S)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # Python 3.11's wait_for, in the client, loses a cancel that comes together with the answer.
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
    """The address of a server without who connects: errors of the client may name it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or 4222}"


def _login(urls: list[str]) -> dict[str, Any]:
    """User and password, or a token, that the first URL with one names."""
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
            f"{certificate}: {error}; should be the PEM file of whom to trust"
        ) from error
