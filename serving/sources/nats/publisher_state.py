"""Messages received from each streamer, and whether any are missing."""

from __future__ import annotations

from dataclasses import dataclass, field

SILENT_S = 5.0
"""A streamer without messages for this long counts as gone."""
PATIENCE_S = 2.0
"""Wait after a heartbeat that counts more messages than came, before they count as lost; also the
pause between two requests for states.
"""

Minute = tuple[str, int]
"""Symbol and open time in µs."""


@dataclass(slots=True)
class PublisherState:
    """One connection of one streamer.

    Attributes:
        connection: number of the streamer's connection.
        total: messages that it had sent when it sent the newest one received.
        symbols: those that it publishes.
        lost_at: number of the first message after a loss; None while nothing is missing. States
            from
            the message before it on repair the loss.
        requested_s: when its states were requested.
        since: message numbers, by minute, of what came since the loss.
        received_s: when its last message came.
    """

    streamer: str
    connection: int
    received_s: float
    total: int = 0
    symbols: set[str] = field(default_factory=set)
    lost_at: int | None = None
    requested_s: float = float("-inf")
    since: dict[Minute, int] = field(default_factory=dict)
    _counted: int = 0
    """The heartbeat's count, if it is more than came."""
    _counted_s: float = 0.0
    _receiving: tuple[int, int] | None = None
    """Number and next part of the states that are being received."""

    def on_message(self, total: int, now_s: float) -> bool:
        """Count a message; returns False if messages before it are missing."""
        self.received_s = now_s
        if total <= self.total:
            return True  # overtaken by states that were sent later
        is_next = total == self.total + 1
        self.total = total
        if not is_next:
            self.lose(total)
        return is_next

    def on_heartbeat(self, total: int, now_s: float) -> None:
        """Handle a heartbeat."""
        self.received_s = now_s
        if total > self.total and self._counted <= self.total:
            self._counted, self._counted_s = total, now_s

    def is_behind(self, now_s: float) -> bool:
        """Whether messages that a heartbeat counted are lost."""
        if self._counted <= self.total or now_s - self._counted_s < PATIENCE_S:
            return False
        self.total = self._counted
        self.lose(self.total + 1)
        return True

    def lose(self, total: int) -> None:
        """Note that messages before this one are missing."""
        self.lost_at, self.requested_s, self._receiving = total, float("-inf"), None

    def needs_states(self, now_s: float) -> bool:
        """Whether to request its states now."""
        return self.lost_at is not None and now_s - self.requested_s >= PATIENCE_S

    def is_wanted(self, symbol: str, open_time_us: int, total: int) -> bool:
        """Whether a requested state is at least as new as what came of the minute."""
        return self.since.get((symbol, open_time_us), 0) <= total

    def on_states(self, total: int, part: int, *, is_last: bool) -> bool:
        """Handle a part of its states; returns whether they repair the loss.

        Args:
            total: number of the last message that they include.
        """
        if part == 0:
            self._receiving = (total, 0)
        if self._receiving != (total, part):
            self._receiving = None  # a part is missing: request them again
            return False
        self._receiving = (total, part + 1)
        if not is_last or self.lost_at is None or total < self.lost_at - 1:
            return False
        self.total = max(self.total, total)
        self.lost_at = None
        self.since.clear()
        return True
