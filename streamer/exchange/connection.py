"""One stream connection for as long as the streamer runs, over one socket after another.

A socket that is about to end, by its age or because the exchange says so, is succeeded before it
ends: nobody above notices. One that ends on its own is replaced after a back-off.
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
"""Where connections are made and nothing comes, silence is borne up to so much longer."""
ROTATE_AFTER_S = 23 * 3_600.0
"""The exchange ends a connection after 24 hours."""
CLOSED_TIMEOUT_S = CLOSE_TIMEOUT_S + 0.5
"""A socket that is closed by then hangs; its task is left to the end of the process."""
ROTATION_JITTER = 0.1
"""Share of it by which a socket may be succeeded sooner, so that they do not all go at once."""


class StreamConnection:
    """Keeps one connection alive: connects, subscribes, watches, rotates, connects anew.

    Args:
        url: where to connect.
        name: of this connection, for logs.
        streams: names to carry.
        on_texts: called with messages as bytes, those of one read at a time; must not raise.
        on_held: called instead with what a successor received before it took over, and how many
            seconds ago each came; None where nobody cares.
        on_open: called when a connection is up, before its first frame; not in a rotation.
        on_close: called when a connection is gone, or could not be made; not in a rotation.
        stale_after_s: silence after which the connection is taken for dead; twice, four and
            eight times as long after connections that gave nothing but answers (a market of
            which all symbols are halted or gone is silent for long).
        decode: types a message, where the connection has to look at one.
        has_delivered: whether a message, or a later one, has been handled: then a successor that
            delivered it may take over.
        rotate_after_s: age at which a socket is succeeded, at most.
        proxy: proxy URL, or None.
        connects: budget of attempts to connect, shared by all connections.
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
        """Sockets that were succeeded before they ended."""
        self.refused = 0
        """Attempts answered with a status of HTTP instead of a WebSocket."""
        self.pulse = Heartbeat()
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
        self._line: StreamSocket | None = None
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
        """Subscriptions of the present socket, or of the last one."""
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether a socket is up."""
        return self._line is not None and self._line.is_open

    @property
    def is_rotating(self) -> bool:
        """Whether a successor is being made."""
        return self._successor is not None

    @property
    def streams(self) -> tuple[str, ...]:
        """Names that it carries or will carry."""
        return tuple(self._streams)

    def subscribe(self, names: Iterable[str]) -> None:
        """Carry these as well."""
        new = [name for name in dict.fromkeys(names) if name not in self._streams]
        self._streams.update(dict.fromkeys(new))
        for line in self._lines():
            line.session.subscribe(new)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Carry these no longer."""
        old = [name for name in dict.fromkeys(names) if name in self._streams]
        for name in old:
            del self._streams[name]
        for line in self._lines():
            line.session.unsubscribe(old)

    def leave(self, reason: str) -> None:
        """Drop the present socket and make a new one."""
        if self._line is not None:
            self._line.leave(reason)

    def rotate(self, reason: str) -> None:
        """Have the present socket succeeded by a new one, and drop it then."""
        if self._rotate_reason is None and not self.is_rotating:
            self._rotate_reason = reason
            self._next_rotation_s = 0.0

    async def run(self) -> None:
        """Serve until cancelled."""
        failures = 0
        try:
            while True:
                if self._line is None:
                    self._line = self._begin(self._on_texts)
                await self._until_it_ends()
                failures = await self._replace(failures)
        finally:
            await self._close_all()

    # --- sockets

    def _lines(self) -> list[StreamSocket]:
        return [line for line in (self._line, self._successor) if line is not None]

    def _begin(self, hear: Callable[[Sequence[bytes]], None]) -> StreamSocket:
        line = StreamSocket(
            self._url,
            list(self._streams),
            name=self.name,
            hear=hear,
            on_open=self._opened,
            stale_after_s=self._stale_after_s * self._patience,
            proxy=self._proxy,
            connects=self._connects,
        )
        self._tasks[line] = asyncio.ensure_future(line.run())
        return line

    def _opened(self, line: StreamSocket) -> None:
        if line is self._line:
            self._take_over(line)
            self._on_open()
            log.info("stream_connected", connection=self.name, streams=len(self._streams))

    def _take_over(self, line: StreamSocket) -> None:
        """A socket becomes the present one."""
        self._line = line
        self._session = line.session
        self._rotate_reason = None
        self._rotation_failures = 0
        share = 1 - ROTATION_JITTER * random.random()  # noqa: S311 - jitter
        opened_s = asyncio.get_running_loop().time() if line.opened_s is None else line.opened_s
        self._rotate_at_s = opened_s + self._rotate_after_s * share

    async def _until_it_ends(self) -> None:
        """Serve on the present socket, or on those that succeed it, until one ends."""
        loop = asyncio.get_running_loop()
        while self._line is not None:
            self.pulse.beat(OPEN_TIMEOUT_S)
            task = self._tasks[self._line]
            if task.done():
                return
            self._rotate(loop.time())
            await asyncio.wait({self._tasks[self._line]}, timeout=TICK_S)

    async def _replace(self, failures: int) -> int:
        """The present socket ended: go on with its successor, or wait; returns failures."""
        line, self._line = self._line, None
        if line is None:
            return failures
        reason = self._tasks.pop(line).result()
        self.refused += line.is_refused
        if line.went_silent:
            self._patience = 1 if line.gave_data else min(2 * self._patience, MAX_PATIENCE)
        self._on_close()
        self.reconnects += 1
        lived_s = 0.0
        if line.opened_s is not None:
            lived_s = asyncio.get_running_loop().time() - line.opened_s
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
        self.pulse.beat(wait_s)
        await asyncio.sleep(wait_s)
        return failures

    # --- rotation

    def _rotate(self, now_s: float) -> None:
        """Begin, go on with, or end a rotation where one is due."""
        line, successor = self._line, self._successor
        if line is None or not line.is_open:
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
                lived_s=round(now_s - (line.opened_s or now_s), 1),
                frames_held=len(self._handover.held),
            )
            self.rotations += 1
            self._retire(line)
            self._hand_over()

    def _prepare(self) -> None:
        """Make a successor, whose frames are held."""
        loop = asyncio.get_running_loop()
        successor = self._begin(_ignore)
        handover = Handover(successor.session, decode=self._decode)

        def hold(messages: Sequence[bytes]) -> None:
            for data in messages:
                useless = handover.take(data, loop.time())
                if useless is not None:
                    successor.leave(useless)

        successor.hear = hold
        self._successor, self._handover = successor, handover

    def _hand_over(self) -> None:
        """The successor becomes the present socket, beginning with what was held of it."""
        successor, handover = self._successor, self._handover
        if successor is None or handover is None:
            raise RuntimeError(f"connection {self.name} has no successor")
        self._successor = self._handover = None
        self._take_over(successor)
        successor.hear = self._on_texts
        if self._on_held is None:
            self._on_texts(handover.held)
        else:
            now_s = asyncio.get_running_loop().time()
            self._on_held(handover.held, [now_s - at_s for at_s in handover.arrived_s])

    def _postpone(self, successor: StreamSocket, now_s: float) -> None:
        """The successor could not be made or ended: try again while the present one lives."""
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

    def _retire(self, line: StreamSocket) -> None:
        """Listen to a socket no more; it closes meanwhile."""
        line.hear = _ignore
        task = self._tasks.pop(line)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        task.cancel()

    async def _close_all(self) -> None:
        for line in list(self._tasks):
            self._retire(line)
        self._line = self._successor = None
        if self._closing:
            _, left = await asyncio.wait(set(self._closing), timeout=CLOSED_TIMEOUT_S)
            if left:
                log.warning("sockets_not_closed", connection=self.name, sockets=len(left))


def _ignore(_: Sequence[bytes]) -> None:
    """What comes of a socket that is not listened to any more."""
