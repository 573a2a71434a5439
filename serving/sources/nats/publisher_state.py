"""Streamers as a server hears them: whether it has all that they have said."""

from __future__ import annotations

from dataclasses import dataclass, field

SILENT_S = 5.0
"""A streamer that says nothing for so long is gone, or cut off."""
PATIENCE_S = 2.0
"""Between a heartbeat that counts more messages than came, and the belief that they are lost; and
between two questions for states."""

Minute = tuple[str, int]
"""Symbol and open time in µs."""


@dataclass(slots=True)
class PublisherState:
    """One connection of one streamer.

    Attributes:
        connection: counts the connections of that streamer.
        total: messages that it had sent when the newest that came was sent.
        symbols: those that it told of.
        lost_at: number of the first message behind a loss; None while nothing is missing. What it
            tells of its states from the one before on makes up for it.
        asked_s: when it was asked for its states.
        since: numbers of the messages by minute, of what came since the loss.
        heard_s: when it was heard last.
    """

    streamer: str
    connection: int
    heard_s: float
    total: int = 0
    symbols: set[str] = field(default_factory=set)
    lost_at: int | None = None
    asked_s: float = float("-inf")
    since: dict[Minute, int] = field(default_factory=dict)
    _counted: int = 0
    """What its heartbeat counted, where that is more than came."""
    _counted_s: float = 0.0
    _told: tuple[int, int] | None = None
    """Of the states that are being told: number and next part."""

    def heard(self, total: int, now_s: float) -> bool:
        """A message has come; False where some before it have not."""
        self.heard_s = now_s
        if total <= self.total:
            return True  # overtaken by states that were told later
        is_next = total == self.total + 1
        self.total = total
        if not is_next:
            self.lose(total)
        return is_next

    def counted(self, total: int, now_s: float) -> None:
        """A heartbeat has come."""
        self.heard_s = now_s
        if total > self.total and self._counted <= self.total:
            self._counted, self._counted_s = total, now_s

    def is_behind(self, now_s: float) -> bool:
        """Whether messages that a heartbeat counted have not come, and will not."""
        if self._counted <= self.total or now_s - self._counted_s < PATIENCE_S:
            return False
        self.total = self._counted
        self.lose(self.total + 1)
        return True

    def lose(self, total: int) -> None:
        """Messages before this one did not come."""
        self.lost_at, self.asked_s, self._told = total, float("-inf"), None

    def is_to_be_asked(self, now_s: float) -> bool:
        """Whether its states are wanted, and it was not asked just now."""
        return self.lost_at is not None and now_s - self.asked_s >= PATIENCE_S

    def is_wanted(self, symbol: str, open_time_us: int, total: int) -> bool:
        """Whether a state that it tells on request is not older than what came of the minute."""
        return self.since.get((symbol, open_time_us), 0) <= total

    def states(self, total: int, part: int, *, is_last: bool) -> bool:
        """A part of its states has come; whether that makes up for what was lost.

        Args:
            total: number of the last message that they hold.
        """
        if part == 0:
            self._told = (total, 0)
        if self._told != (total, part):
            self._told = None  # a part is missing: asked again
            return False
        self._told = (total, part + 1)
        if not is_last or self.lost_at is None or total < self.lost_at - 1:
            return False
        self.total = max(self.total, total)
        self.lost_at = None
        self.since.clear()
        return True
