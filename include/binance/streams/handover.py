"""Switch from one connection to its successor without losing a frame. Pure: times are passed in.

Two connections do not deliver in step: if a trade of the successor overtook earlier trades on the
old connection, those would look missing. So the successor's frames are held, starting with the
first frame after its last acknowledgement (an acknowledgement proves nothing), until the old
connection has delivered that frame too, and well beyond. Then the old connection is closed and the
held frames follow; duplicates are recognised by their ids.
"""

from __future__ import annotations

from collections.abc import Callable

from include.binance.streams.messages import (
    AggTrade,
    ControlAnswer,
    Kline,
    ServerShutdown,
    Trade,
    decode,
    microseconds,
)
from include.binance.streams.session import StreamSession
from include.errors import PermanentError

OVERLAP_S = 0.5
"""Maximum lag between streams of one connection."""
MAX_WAIT_S = 10.0
"""Maximum wait for the old connection to deliver the successor's first frame."""
MAX_HELD_BYTES = 64 << 20


class Handover:
    """Holds a successor's frames before it takes over, and decides when it may.

    Args:
        session: the successor's subscriptions.
        decode: decodes a message; raises PermanentError.
        overlap_s: how long both must deliver.
        max_bytes: of held frames; beyond that the successor takes over immediately.

    Attributes:
        held: its frames in order, for the consumer.
        arrived_s: arrival time of each frame; monotonic.
    """

    def __init__(
        self,
        session: StreamSession,
        *,
        decode: Callable[[bytes], object] = decode,
        overlap_s: float = OVERLAP_S,
        max_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.held: list[bytes] = []
        self.arrived_s: list[float] = []
        self._session = session
        self._decode = decode
        self._overlap_s = overlap_s
        self._max_bytes = max_bytes
        self._bytes = 0
        self._proven_s: float | None = None
        self._proof: object = None

    def take(self, data: bytes, now_s: float) -> str | None:
        """Add a message of the successor; return why it is unusable, or None."""
        try:
            frame = self._decode(data)
        except PermanentError:
            frame = None  # held like any frame: the consumer counts and logs it
        if isinstance(frame, ControlAnswer):
            return self._session.on_answer(frame)
        if isinstance(frame, ServerShutdown):
            return "the exchange announced its shutdown"
        if not self._session.is_subscribed:
            self._proven_s = None  # streams were added in the meantime
        elif self._proven_s is None:
            self._proven_s, self._proof = now_s, frame
        if self._proven_s is not None or self.held:
            self.held.append(bytes(data))  # copied: the parser may reuse its memory
            self.arrived_s.append(now_s)
            self._bytes += len(data)
        return None

    def is_ready(self, now_s: float, has_delivered: Callable[[object], bool]) -> bool:
        """Whether the successor may take over.

        Args:
            has_delivered: whether the old connection has delivered a frame, or a later one.
        """
        if self._proven_s is None or not self._session.is_subscribed:
            return False
        if self._bytes > self._max_bytes:
            return True
        waited_s = now_s - self._proven_s
        if waited_s < self._overlap_s:
            return False
        return has_delivered(self._proof) or waited_s >= MAX_WAIT_S


def event_us(frame: object) -> int:
    """Return the exchange's time (µs) of a message about trades; 0 for other messages."""
    return microseconds(frame.event_time) if isinstance(frame, AggTrade | Trade | Kline) else 0
