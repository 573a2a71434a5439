"""Uvicorn's WebSocket protocol, extended to send encoded frames.

A message to many readers is encoded once. Sending it to each of them through the library, with a
task and a copy for each message, would cost five times as much. Applications find the protocol in
their scope as the extension ``candelabra.frames``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

EXTENSION = "candelabra.frames"


class Frames(Protocol):
    """Sends encoded frames to a reader."""

    def is_writable(self) -> bool:
        """Whether the reader has read most of what was sent before."""

    def write_frames(self, frames: bytes) -> None:
        """Send whole frames; only while it is writable."""

    def call_when_writable(self, call: Callable[[], None]) -> None:
        """Call a function once, when it is writable again."""


class EncodedFramesProtocol(WebSocketsSansIOProtocol):
    """One connection; provides ``Frames`` to its application."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: list[Callable[[], None]] = []

    def handle_connect(self, event: Any) -> None:
        """Handle a handshake; its application starts in the loop's next turn."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            scope: Any = self.scope
            scope["extensions"][EXTENSION] = self

    def is_writable(self) -> bool:
        """Whether the reader has read most of what was sent before."""
        return (
            self.writable.is_set()
            and not self.close_sent
            and not self.disconnected
            and not self.transport.is_closing()
        )

    def write_frames(self, frames: bytes) -> None:
        """Send whole frames; only while it is writable."""
        self.transport.write(frames)

    def call_when_writable(self, call: Callable[[], None]) -> None:
        """Call a function once, when it is writable again."""
        self._waiting.append(call)

    def resume_writing(self) -> None:
        """Transport callback: most of the buffer was sent."""
        super().resume_writing()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
