"""One socket of a stream connection, from its handshake to its close.

Frames go from the socket's bytes straight to a callback, without a queue or a task in between:
reading stops while they are handled, so the only buffers are the kernel's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import cast
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

from include.binance.streams.connect_budget import ConnectBudget
from include.binance.streams.session import StreamSession
from streamer.exchange.fast_text_frames import MAX_FRAME_BYTES, FastTextConnection

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
TICK_S = 0.1
CONNECTS = ConnectBudget()
"""Shared by the whole process: the exchange counts attempts by IP address."""


class StreamSocket:
    """A socket and its subscriptions.

    Args:
        name: of the connection, for logs.
        streams: names to subscribe to.
        on_messages: called with the messages of one read, as bytes; must not raise.
        on_open: called when the socket is up, before its first frame.
        stale_after_s: silence after which the socket counts as dead.
        proxy: proxy URL, or None.
        connects: budget of connection attempts.

    Attributes:
        on_messages: may be replaced while the socket is up.
        opened_s: when the socket came up; None before.
        is_refused: whether the exchange answered with an HTTP status instead of a WebSocket.
        went_silent: whether silence ended the socket.
    """

    def __init__(
        self,
        url: str,
        streams: Sequence[str],
        *,
        name: str,
        on_messages: Callable[[Sequence[bytes]], None],
        on_open: Callable[[StreamSocket], None],
        stale_after_s: float,
        proxy: str | None,
        connects: ConnectBudget,
    ) -> None:
        self.session = StreamSession(streams)
        self.on_messages = on_messages
        self.opened_s: float | None = None
        self.last_frame_s = 0.0
        self.is_refused = False
        self.went_silent = False
        self._url = url
        self._host = urlsplit(url).netloc
        self._name = name
        self._on_open = on_open
        self._stale_after_s = stale_after_s
        self._proxy = proxy
        self._connects = connects
        self._frames = 0
        self._close_reason: str | None = None
        self._is_ended = False

    @property
    def is_open(self) -> bool:
        """Whether the socket is up."""
        return self.opened_s is not None and not self._is_ended

    @property
    def gave_data(self) -> bool:
        """Whether more frames arrived than answers to control messages."""
        return self._frames > self.session.sent

    def close(self, reason: str) -> None:
        """Close the socket at the next tick."""
        self._close_reason = reason

    async def run(self) -> str:
        """Connect and receive until the socket ends; return the reason."""
        try:
            await self._wait_for_turn()
            return await self._serve()
        except InvalidStatus as error:
            self.is_refused = True
            return _explain_status(error)
        except (OSError, TimeoutError, WebSocketException, InvalidHandshake) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self._is_ended = True

    async def _wait_for_turn(self) -> None:
        """Wait until an attempt to connect is allowed."""
        loop = asyncio.get_running_loop()
        is_logged = False
        while (wait_s := self._connects.take(self._host, loop.time())) > 0:
            if not is_logged:
                is_logged = True
                log.warning(
                    "connects_exhausted",
                    connection=self._name,
                    host=self._host,
                    wait_s=round(wait_s, 1),
                )
            await asyncio.sleep(wait_s + random.uniform(0, 1))  # noqa: S311 - jitter

    async def _serve(self) -> str:
        loop = asyncio.get_running_loop()
        async with connect(
            self._url,
            compression=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            ping_interval=None,  # the exchange pings; silence is detected below
            proxy=self._proxy,
            create_connection=FastTextConnection,
        ) as opened:
            socket = cast(FastTextConnection, opened)
            self.opened_s = self.last_frame_s = loop.time()
            self._on_open(self)
            socket.on_texts = self._on_texts
            closed = asyncio.ensure_future(socket.wait_closed())
            try:
                while not closed.done():
                    now_s = loop.time()
                    message = self.session.next_message(now_s)
                    if message is not None:
                        async with asyncio.timeout(OPEN_TIMEOUT_S):
                            await socket.send(message, text=True)
                    if self._close_reason is not None:
                        return self._close_reason
                    if self.session.is_answer_overdue(now_s):
                        return "a subscription was not answered"
                    if now_s - self.last_frame_s > self._stale_after_s:
                        self.went_silent = True
                        return f"no frame for {self._stale_after_s:g} s"
                    await asyncio.wait({closed}, timeout=TICK_S)
            finally:
                closed.cancel()
                socket.on_texts = None
        return f"closed by the exchange: {socket.close_code} {socket.close_reason or ''}".strip()

    def _on_texts(self, messages: list[bytes]) -> None:
        self.last_frame_s = asyncio.get_running_loop().time()
        self._frames += len(messages)
        self.on_messages(messages)


def _explain_status(error: InvalidStatus) -> str:
    status = error.response.status_code
    if status in (403, 451):
        return (
            f"HTTP {status}: the exchange refuses this address; it is blocked in some regions. "
            "Set HTTPS_PROXY, or BINANCE_WS_URL to a host that serves you"
        )
    return f"HTTP {status} instead of a WebSocket"
