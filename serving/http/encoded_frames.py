"""A WebSocket of uvicorn that also takes frames made beforehand.

What many readers are told is encoded once; each of them through the library's own path, a task and
a copy for each message, would cost five times as much as the bytes. An application finds the way
past it in its scope, as the extension ``candelabra.frames``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

EXTENSION = "candelabra.frames"


class Frames(Protocol):
    """Where frames go."""

    def is_writable(self) -> bool:
        """Whether the reader has taken what it was given before, or most of it."""

    def write_frames(self, frames: bytes) -> None:
        """Send whole frames; only where it takes them."""

    def call_when_writable(self, call: Callable[[], None]) -> None:
        """Call once, when it takes frames again."""


class EncodedFramesProtocol(WebSocketsSansIOProtocol):
    """One connection; ``Frames`` to its application."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: list[Callable[[], None]] = []

    def handle_connect(self, event: Any) -> None:
        """A reader shakes hands; its application begins with the loop's next turn."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            scope: Any = self.scope
            scope["extensions"][EXTENSION] = self

    def is_writable(self) -> bool:
        """Whether the reader has taken what it was given before, or most of it."""
        return (
            self.writable.is_set()
            and not self.close_sent
            and not self.disconnected
            and not self.transport.is_closing()
        )

    def write_frames(self, frames: bytes) -> None:
        """Send whole frames; only where it takes them."""
        self.transport.write(frames)

    def call_when_writable(self, call: Callable[[], None]) -> None:
        """Call once, when it takes frames again."""
        self._waiting.append(call)

    def resume_writing(self) -> None:
        """Called by the transport when most of what waited was sent."""
        super().resume_writing()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
