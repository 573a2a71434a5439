"""Subscriptions and delivery: each frame is encoded once per requested form."""

from collections.abc import Callable, Iterable
from typing import Protocol

from simulator.streams.protocol import StreamSession, StreamTarget

# (unit_us) -> payloads of the stream in that unit of time
Render = Callable[[int], list[str]]


class FrameListener(Protocol):
    """A connection, as the hub sees it."""

    target: StreamTarget
    session: StreamSession

    def queue(self, frames: list[bytes]) -> None:
        """Add encoded WebSocket frames to be written at the next flush."""

    def flush(self) -> None:
        """Write what was queued."""

    async def drained(self) -> None:
        """Wait until the client has read most of what was written."""


def encode_text_frame(payload: bytes) -> bytes:
    """Encode an unmasked, unfragmented text frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def _encoded(stream: str, payloads: list[str], combined: bool) -> list[bytes]:
    if combined:
        payloads = [f'{{"stream":"{stream}","data":{text}}}' for text in payloads]
    return [encode_text_frame(text.encode()) for text in payloads]


class FrameHub:
    """Listeners of each stream of one market.

    Args:
        on_first: called with a stream's name when it gains its first listener.
        on_last: called when a stream loses its last listener.

    Attributes:
        sent_until_us: due time of the newest sent frame. Frames are sent in that order, late if the
            machine is busy.
        max_behind_us: maximum delay so far.
    """

    def __init__(
        self,
        *,
        on_first: Callable[[str], None],
        on_last: Callable[[str], None],
    ) -> None:
        self.sent_until_us = self.max_behind_us = 0
        self._on_first = on_first
        self._on_last = on_last
        self._listeners: dict[str, dict[FrameListener, None]] = {}
        self._waiting: dict[FrameListener, None] = {}

    def subscribe(self, listener: FrameListener, streams: Iterable[str]) -> None:
        """Add a listener to streams; streams that its path does not carry are ignored."""
        for stream in streams:
            if not listener.target.delivers(stream):
                continue
            listeners = self._listeners.setdefault(stream, {})
            is_first = not listeners
            listeners[listener] = None
            if is_first:
                self._on_first(stream)

    def unsubscribe(self, listener: FrameListener, streams: Iterable[str]) -> None:
        """Remove a listener from streams; unknown names are ignored."""
        for stream in streams:
            listeners = self._listeners.get(stream)
            if listeners is None or listener not in listeners:
                continue
            del listeners[listener]
            if not listeners:
                del self._listeners[stream]
                self._on_last(stream)

    def listeners_of(self, stream: str) -> Iterable[FrameListener]:
        """Return the listeners of a stream."""
        return self._listeners.get(stream, ())

    def streams(self) -> tuple[str, ...]:
        """Return all streams with a listener."""
        return tuple(self._listeners)

    def listeners(self) -> tuple[FrameListener, ...]:
        """Return all listeners, each once."""
        return tuple(dict.fromkeys(one for group in self._listeners.values() for one in group))

    def queue(self, listener: FrameListener, frames: list[bytes]) -> None:
        """Queue encoded frames for one listener until the next flush."""
        listener.queue(frames)
        self._waiting[listener] = None

    def deliver(self, stream: str, render: Render) -> int:
        """Queue a frame for all listeners of the stream; return their number."""
        listeners = self._listeners.get(stream)
        if not listeners:
            return 0
        if len(listeners) == 1:
            for listener in listeners:
                unit_us, combined = listener.target.unit_us, listener.session.combined
                listener.queue(_encoded(stream, render(unit_us), combined))
                self._waiting[listener] = None
            return 1
        forms: dict[tuple[int, bool], list[bytes]] = {}
        for listener in listeners:
            unit_us, combined = listener.target.unit_us, listener.session.combined
            frames = forms.get((unit_us, combined))
            if frames is None:
                frames = forms[unit_us, combined] = _encoded(stream, render(unit_us), combined)
            self.queue(listener, frames)
        return len(listeners)

    def flush(self) -> None:
        """Write what is queued, one write per connection."""
        waiting, self._waiting = self._waiting, {}
        for listener in waiting:
            listener.flush()
