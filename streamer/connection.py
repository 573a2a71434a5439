"""The socket of one stream connection: thin, around the sans-I/O session.

Frames go from the protocol straight to a callback, without a queue or a task for each:
reading stops while they are handled, so the kernel's buffers are the only ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from include.backoff import Backoff
from include.binance.session import StreamSession

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
BACKOFF = Backoff(first_s=1.0, most_s=30.0, least_s=0.05)
TICK_S = 0.1
MOST_PATIENCE = 8
"""Where connections are made and nothing comes, silence is borne up to so much longer."""
MAX_FRAME_BYTES = 4 * 1024 * 1024
"""A frame of a few hundred bytes is normal; this is a guard against a broken peer."""


class _FrameConnection(ClientConnection):
    """Hands each text message to ``on_text`` as soon as its bytes are parsed."""

    on_text: Callable[[bytes], None] | None = None
    _parts: list[bytes]

    def process_event(self, event: Any) -> None:
        if type(event) is not WireFrame or self.response is None:
            super().process_event(event)
            return
        opcode = event.opcode
        if opcode is Opcode.TEXT and event.fin:
            if self.on_text is not None:
                self.on_text(event.data)  # type: ignore[arg-type]
        elif opcode in (Opcode.TEXT, Opcode.BINARY):
            self._parts = [bytes(event.data)]
        elif opcode is Opcode.CONT:
            self._parts.append(bytes(event.data))
            if event.fin and self.on_text is not None:
                self.on_text(b"".join(self._parts))
        else:
            super().process_event(event)


class StreamConnection:
    """Keeps one connection alive: connects, subscribes, watches, connects anew.

    Args:
        url: where to connect.
        name: of this connection, for logs.
        streams: names to carry.
        on_text: called with each message's bytes; must not raise.
        on_open: called when a connection is up, before its first frame.
        on_close: called when a connection is gone, or could not be made.
        stale_after_s: silence after which the connection is taken for dead; twice, four and
            eight times as long after connections that gave nothing but answers (a market of
            which all symbols are halted or gone is silent for long).
        proxy: proxy URL, or None.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        streams: list[str],
        on_text: Callable[[bytes], None],
        on_open: Callable[[], None],
        on_close: Callable[[], None],
        stale_after_s: float,
        proxy: str | None = None,
    ) -> None:
        self.name = name
        self.session = StreamSession(streams)
        self.is_open = False
        self.reconnects = 0
        self._url = url
        self._streams = streams
        self._on_text = on_text
        self._on_open = on_open
        self._on_close = on_close
        self._stale_after_s = stale_after_s
        self._proxy = proxy
        self._last_frame_s = 0.0
        self._frames = 0
        self._patience = 1
        self._leave_reason: str | None = None

    @property
    def silent_s(self) -> float:
        """Seconds since the last frame."""
        return asyncio.get_running_loop().time() - self._last_frame_s

    async def run(self) -> None:
        """Serve until cancelled."""
        failures = 0
        while True:
            started_s = asyncio.get_running_loop().time()
            try:
                reason = await self._serve()
            except InvalidStatus as error:
                reason = _explain_status(error)
            except (OSError, TimeoutError, WebSocketException, InvalidHandshake) as error:
                reason = f"{type(error).__name__}: {error}"
            self.is_open = False
            self._on_close()
            lived_s = asyncio.get_running_loop().time() - started_s
            failures = 0 if lived_s > BACKOFF.most_s else failures + 1
            self.reconnects += 1
            wait_s = BACKOFF.wait_s(failures)
            log.warning(
                "stream_disconnected",
                connection=self.name,
                host=urlsplit(self._url).netloc,
                reason=reason,
                lived_s=round(lived_s, 1),
                retry_in_s=round(wait_s, 2),
            )
            await asyncio.sleep(wait_s)

    def leave(self, reason: str) -> None:
        """Drop the present connection and make a new one."""
        self._leave_reason = reason

    async def _serve(self) -> str:
        """One connection's life; returns why it ended."""
        loop = asyncio.get_running_loop()
        self.session = StreamSession(self._streams)
        self._leave_reason = None
        self._frames = 0
        async with connect(
            self._url,
            compression=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            ping_interval=None,  # the exchange pings; silence is watched here
            proxy=self._proxy,
            create_connection=_FrameConnection,
        ) as opened:
            socket = cast(_FrameConnection, opened)
            self._last_frame_s = loop.time()
            self._on_open()
            self.is_open = True
            socket.on_text = self._take
            log.info("stream_connected", connection=self.name, streams=len(self._streams))
            closed = asyncio.ensure_future(socket.wait_closed())
            try:
                while not closed.done():
                    now_s = loop.time()
                    message = self.session.next_message(now_s)
                    if message is not None:
                        async with asyncio.timeout(OPEN_TIMEOUT_S):
                            await socket.send(message, text=True)
                    reason = self._take_leave()
                    if reason is not None:
                        return reason
                    if self.session.is_answer_overdue(now_s):
                        return "a subscription was not answered"
                    stale_after_s = self._stale_after_s * self._patience
                    if now_s - self._last_frame_s > stale_after_s:
                        self._note_silence()
                        return f"no frame for {stale_after_s:g} s"
                    await asyncio.wait({closed}, timeout=TICK_S)
            finally:
                closed.cancel()
                socket.on_text = None
        return f"closed by the exchange: {socket.close_code} {socket.close_reason or ''}".strip()

    def _note_silence(self) -> None:
        gave_data = self._frames > self.session.sent  # one answer a message
        self._patience = 1 if gave_data else min(2 * self._patience, MOST_PATIENCE)

    def _take_leave(self) -> str | None:
        reason, self._leave_reason = self._leave_reason, None
        return reason

    def _take(self, data: bytes) -> None:
        self._last_frame_s = asyncio.get_running_loop().time()
        self._frames += 1
        self._on_text(data)


def _explain_status(error: InvalidStatus) -> str:
    status = error.response.status_code
    if status in (403, 451):
        return (
            f"HTTP {status}: the exchange refuses this address; it is blocked in some regions. "
            "Set HTTPS_PROXY, or BINANCE_WS_URL to a host that serves you"
        )
    return f"HTTP {status} instead of a WebSocket"
