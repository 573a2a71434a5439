"""One socket of a stream connection, from its handshake to its end.

Frames go from the socket's bytes straight to a callback, without a queue or a task for each:
reading stops while they are handled, so the kernel's buffers are the only ones.
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
"""Of the whole process: the exchange counts by address."""


class StreamSocket:
    """A socket and its subscriptions.

    Args:
        name: of the connection it serves, for logs.
        streams: names to subscribe to.
        hear: called with messages as bytes, those of one read at a time; must not raise.
        on_open: called when it is up, before its first frame.
        stale_after_s: silence after which it is taken for dead.
        proxy: proxy URL, or None.
        connects: budget of attempts to connect.

    Attributes:
        hear: may be replaced while it serves.
        opened_s: when it was up; None before.
        is_refused: whether it was answered with a status of HTTP instead of a WebSocket.
        went_silent: whether silence ended it.
    """

    def __init__(
        self,
        url: str,
        streams: Sequence[str],
        *,
        name: str,
        hear: Callable[[Sequence[bytes]], None],
        on_open: Callable[[StreamSocket], None],
        stale_after_s: float,
        proxy: str | None,
        connects: ConnectBudget,
    ) -> None:
        self.session = StreamSession(streams)
        self.hear = hear
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
        self._leave_reason: str | None = None
        self._is_ended = False

    @property
    def is_open(self) -> bool:
        """Whether it is up."""
        return self.opened_s is not None and not self._is_ended

    @property
    def gave_data(self) -> bool:
        """Whether more came than answers, of which each message has one."""
        return self._frames > self.session.sent

    def leave(self, reason: str) -> None:
        """End it soon."""
        self._leave_reason = reason

    async def run(self) -> str:
        """Connect and serve; returns why it ended."""
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
        is_told = False
        while (wait_s := self._connects.take(self._host, loop.time())) > 0:
            if not is_told:
                is_told = True
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
            ping_interval=None,  # the exchange pings; silence is watched here
            proxy=self._proxy,
            create_connection=FastTextConnection,
        ) as opened:
            socket = cast(FastTextConnection, opened)
            self.opened_s = self.last_frame_s = loop.time()
            self._on_open(self)
            socket.on_texts = self._take
            closed = asyncio.ensure_future(socket.wait_closed())
            try:
                while not closed.done():
                    now_s = loop.time()
                    message = self.session.next_message(now_s)
                    if message is not None:
                        async with asyncio.timeout(OPEN_TIMEOUT_S):
                            await socket.send(message, text=True)
                    if self._leave_reason is not None:
                        return self._leave_reason
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

    def _take(self, messages: list[bytes]) -> None:
        self.last_frame_s = asyncio.get_running_loop().time()
        self._frames += len(messages)
        self.hear(messages)


def _explain_status(error: InvalidStatus) -> str:
    status = error.response.status_code
    if status in (403, 451):
        return (
            f"HTTP {status}: the exchange refuses this address; it is blocked in some regions. "
            "Set HTTPS_PROXY, or BINANCE_WS_URL to a host that serves you"
        )
    return f"HTTP {status} instead of a WebSocket"
