"""Keep one stream connection up while the streamer runs, over one socket after another.

A socket that is about to end, by age or because the exchange announced it, is replaced before it
ends, without missing a frame. A socket that ends unexpectedly is replaced after a back-off.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import structlog

from include.backoff import Backoff
from include.binance.streams.connect_budget import ConnectBudget
from include.binance.streams.handover import Handover
from include.binance.streams.messages import decode
from include.binance.streams.session import StreamSession
from streamer.exchange.stream_socket import (
    CLOSE_TIMEOUT_S,
    CONNECTS,
    OPEN_TIMEOUT_S,
    TICK_S,
    StreamSocket,
)
from streamer.runtime.heartbeat import Heartbeat

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=1.0, max_s=30.0, min_s=0.05)
MAX_PATIENCE = 8
"""Maximum growth of the silence timeout while new connections deliver nothing."""
ROTATE_AFTER_S = 23 * 3_600.0
"""Shorter than the 24 hours after which the exchange ends a connection."""
CLOSED_TIMEOUT_S = CLOSE_TIMEOUT_S + 0.5
"""Maximum wait for a socket to close; a socket that hangs longer stays open until the process ends.
"""
ROTATION_JITTER = 0.1
"""Share of ``ROTATE_AFTER_S`` by which a rotation may come earlier, so that rotations spread out.
"""


class StreamConnection:
    """Connects, subscribes, detects silence, rotates and reconnects.

    Args:
        name: of this connection, for logs.
        streams: names to subscribe to.
        on_texts: called with the messages of one read, as bytes; must not raise.
        on_held: called with the messages that a successor received before it took over, and the
            age of each in seconds; without it they go to ``on_texts``.
        on_open: called when a connection is up, before its first frame; not in a rotation.
        on_close: called when a connection is lost or could not be made; not in a rotation.
        stale_after_s: silence after which the connection counts as dead. It doubles up to eight
            times after connections that delivered only answers, as in a market whose symbols are
            all halted.
        decode: decodes a message during a rotation.
        has_delivered: whether this message or a later one has been handled; a successor that
            received it may then take over.
        rotate_after_s: maximum age of a socket.
        proxy: proxy URL, or None.
        connects: budget of connection attempts, shared by all connections.

    Attributes:
        reconnects: sockets that ended or could not be opened.
        rotations: sockets that were replaced before they ended.
        refused: attempts answered with an HTTP status instead of a WebSocket.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        streams: Iterable[str],
        on_texts: Callable[[Sequence[bytes]], None],
        on_open: Callable[[], None],
        on_close: Callable[[], None],
        stale_after_s: float,
        on_held: Callable[[Sequence[bytes], Sequence[float]], None] | None = None,
        decode: Callable[[bytes], object] = decode,
        has_delivered: Callable[[object], bool] = lambda _: True,
        rotate_after_s: float = ROTATE_AFTER_S,
        proxy: str | None = None,
        connects: ConnectBudget = CONNECTS,
    ) -> None:
        self.name = name
        self.reconnects = 0
        self.rotations = 0
        self.refused = 0
        self.heartbeat = Heartbeat()
        self._url = url
        self._streams = dict.fromkeys(streams)
        self._on_texts = on_texts
        self._on_held = on_held
        self._on_open = on_open
        self._on_close = on_close
        self._stale_after_s = stale_after_s
        self._decode = decode
        self._has_delivered = has_delivered
        self._rotate_after_s = rotate_after_s
        self._proxy = proxy
        self._connects = connects
        self._patience = 1
        self._session = StreamSession(list(self._streams))
        self._socket: StreamSocket | None = None
        self._successor: StreamSocket | None = None
        self._handover: Handover | None = None
        self._tasks: dict[StreamSocket, asyncio.Task[str]] = {}
        self._closing: set[asyncio.Task[str]] = set()
        self._rotate_reason: str | None = None
        self._rotate_at_s = 0.0
        self._rotation_failures = 0
        self._next_rotation_s = 0.0

    @property
    def session(self) -> StreamSession:
        """Subscriptions of the current or the last socket."""
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether a socket is up."""
        return self._socket is not None and self._socket.is_open

    @property
    def is_rotating(self) -> bool:
        """Whether a successor is being connected."""
        return self._successor is not None

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of streams that are subscribed or queued."""
        return tuple(self._streams)

    def subscribe(self, names: Iterable[str]) -> None:
        """Subscribe to further streams."""
        new = [name for name in dict.fromkeys(names) if name not in self._streams]
        self._streams.update(dict.fromkeys(new))
        for socket in self._sockets():
            socket.session.subscribe(new)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Unsubscribe from streams."""
        old = [name for name in dict.fromkeys(names) if name in self._streams]
        for name in old:
            del self._streams[name]
        for socket in self._sockets():
            socket.session.unsubscribe(old)

    def reconnect(self, reason: str) -> None:
        """Close the current socket and open a new one."""
        if self._socket is not None:
            self._socket.close(reason)

    def rotate(self, reason: str) -> None:
        """Replace the current socket without missing a frame."""
        if self._rotate_reason is None and not self.is_rotating:
            self._rotate_reason = reason
            self._next_rotation_s = 0.0

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        failures = 0
        try:
            while True:
                if self._socket is None:
                    self._socket = self._begin(self._on_texts)
                await self._until_it_ends()
                failures = await self._replace(failures)
        finally:
            await self._close_all()

    # --- sockets

    def _sockets(self) -> list[StreamSocket]:
        return [socket for socket in (self._socket, self._successor) if socket is not None]

    def _begin(self, on_messages: Callable[[Sequence[bytes]], None]) -> StreamSocket:
        socket = StreamSocket(
            self._url,
            list(self._streams),
            name=self.name,
            on_messages=on_messages,
            on_open=self._opened,
            stale_after_s=self._stale_after_s * self._patience,
            proxy=self._proxy,
            connects=self._connects,
        )
        self._tasks[socket] = asyncio.ensure_future(socket.run())
        return socket

    def _opened(self, socket: StreamSocket) -> None:
        if socket is self._socket:
            self._take_over(socket)
            self._on_open()
            log.info("stream_connected", connection=self.name, streams=len(self._streams))

    def _take_over(self, socket: StreamSocket) -> None:
        """Make a socket the current one."""
        self._socket = socket
        self._session = socket.session
        self._rotate_reason = None
        self._rotation_failures = 0
        share = 1 - ROTATION_JITTER * random.random()  # noqa: S311 - jitter
        opened_s = asyncio.get_running_loop().time() if socket.opened_s is None else socket.opened_s
        self._rotate_at_s = opened_s + self._rotate_after_s * share

    async def _until_it_ends(self) -> None:
        """Wait until the current socket ends, rotating when due."""
        loop = asyncio.get_running_loop()
        while self._socket is not None:
            self.heartbeat.beat(OPEN_TIMEOUT_S)
            task = self._tasks[self._socket]
            if task.done():
                return
            self._rotate(loop.time())
            await asyncio.wait({self._tasks[self._socket]}, timeout=TICK_S)

    async def _replace(self, failures: int) -> int:
        """Continue with the successor, or wait before a new socket; return consecutive failures."""
        socket, self._socket = self._socket, None
        if socket is None:
            return failures
        reason = self._tasks.pop(socket).result()
        self.refused += socket.is_refused
        if socket.went_silent:
            self._patience = 1 if socket.gave_data else min(2 * self._patience, MAX_PATIENCE)
        self._on_close()
        self.reconnects += 1
        lived_s = 0.0
        if socket.opened_s is not None:
            lived_s = asyncio.get_running_loop().time() - socket.opened_s
        failures = 0 if lived_s > BACKOFF.max_s else failures + 1
        has_successor = self._successor is not None and self._successor.is_open
        wait_s = 0.0 if has_successor else BACKOFF.wait_s(failures)
        log.warning(
            "stream_disconnected",
            connection=self.name,
            host=urlsplit(self._url).netloc,
            reason=reason,
            lived_s=round(lived_s, 1),
            retry_in_s=round(wait_s, 2),
        )
        if has_successor:
            self._on_open()
            self._hand_over()
            return 0
        self._drop_successor()
        self._rotate_reason = None
        self.heartbeat.beat(wait_s)
        await asyncio.sleep(wait_s)
        return failures

    # --- rotation

    def _rotate(self, now_s: float) -> None:
        """Take the next step of a rotation that is due."""
        socket, successor = self._socket, self._successor
        if socket is None or not socket.is_open:
            return
        if successor is None:
            is_old = now_s >= self._rotate_at_s
            if (is_old or self._rotate_reason is not None) and now_s >= self._next_rotation_s:
                self._rotate_reason = self._rotate_reason or "it is nearly a day old"
                self._prepare()
        elif self._tasks[successor].done():
            self._postpone(successor, now_s)
        elif self._handover is not None and self._handover.is_ready(now_s, self._has_delivered):
            log.info(
                "stream_rotated",
                connection=self.name,
                reason=self._rotate_reason,
                lived_s=round(now_s - (socket.opened_s or now_s), 1),
                frames_held=len(self._handover.held),
            )
            self.rotations += 1
            self._retire(socket)
            self._hand_over()

    def _prepare(self) -> None:
        """Open a successor and hold its frames."""
        loop = asyncio.get_running_loop()
        successor = self._begin(_discard)
        handover = Handover(successor.session, decode=self._decode)

        def hold(messages: Sequence[bytes]) -> None:
            for data in messages:
                useless = handover.take(data, loop.time())
                if useless is not None:
                    successor.close(useless)

        successor.on_messages = hold
        self._successor, self._handover = successor, handover

    def _hand_over(self) -> None:
        """Make the successor the current socket, starting with its held frames."""
        successor, handover = self._successor, self._handover
        if successor is None or handover is None:
            raise RuntimeError(f"connection {self.name} has no successor")
        self._successor = self._handover = None
        self._take_over(successor)
        successor.on_messages = self._on_texts
        if self._on_held is None:
            self._on_texts(handover.held)
        else:
            now_s = asyncio.get_running_loop().time()
            self._on_held(handover.held, [now_s - at_s for at_s in handover.arrived_s])

    def _postpone(self, successor: StreamSocket, now_s: float) -> None:
        """Retry the rotation later: the successor could not be opened or ended."""
        reason = self._tasks.pop(successor).result()
        self.refused += successor.is_refused
        self._successor = self._handover = None
        self._rotation_failures += 1
        wait_s = BACKOFF.wait_s(self._rotation_failures)
        self._next_rotation_s = now_s + wait_s
        log.warning(
            "rotation_postponed",
            connection=self.name,
            reason=reason,
            retry_in_s=round(wait_s, 2),
        )

    def _drop_successor(self) -> None:
        if self._successor is not None:
            self._retire(self._successor)
        self._successor = self._handover = None

    def _retire(self, socket: StreamSocket) -> None:
        """Close a socket in the background and discard its messages."""
        socket.on_messages = _discard
        task = self._tasks.pop(socket)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        task.cancel()

    async def _close_all(self) -> None:
        for socket in list(self._tasks):
            self._retire(socket)
        self._socket = self._successor = None
        if self._closing:
            _, left = await asyncio.wait(set(self._closing), timeout=CLOSED_TIMEOUT_S)
            if left:
                log.warning("sockets_not_closed", connection=self.name, sockets=len(left))


def _discard(_: Sequence[bytes]) -> None:
    """Discard messages of a retired socket."""
