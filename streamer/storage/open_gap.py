"""A gap of one symbol while it is open: how it grows, and what of it is not proven yet."""

from __future__ import annotations

from dataclasses import dataclass, field

from include.domain.ranges import Ranges, united, without
from include.store.ledgers.gap_batches import GapRow

GROWS_FOR_S = 300.0
"""A gap of which minutes are proven takes in new ones for so long: a line that is bad for hours
makes a row in five minutes, not one a minute nor one that never closes."""


@dataclass(slots=True, eq=False)
class OpenGap:
    """A gap until the table says that it is closed, or it is given up.

    Attributes:
        opened_s, proven_s: by the loop's clock; the latter once nothing is left to prove.
        unproven: what is left, as half-open ranges, ascending.
        rows: those of the ledger; several where another streamer opened the same range.
        written: the range its rows have.
        changes: counts what a write may have missed.
    """

    symbol: str
    start_us: int
    end_us: int
    cause: str
    opened_s: float
    unproven: Ranges
    proven_s: float | None = None
    proofs: set[str] = field(default_factory=set)
    given_up: str | None = None
    rows: list[GapRow] = field(default_factory=list)
    written: tuple[int, int] | None = None
    changes: int = 0

    def takes(self, start_us: int, end_us: int, now_s: float) -> bool:
        """Whether a range that it touches is part of it."""
        if start_us >= self.start_us and end_us <= self.end_us:
            return True
        if start_us > self.end_us or end_us < self.start_us:
            return False
        return now_s - self.opened_s < GROWS_FOR_S or not self.proofs

    def add(self, start_us: int, end_us: int) -> bool:
        """Take a range in; whether its row is another one by that."""
        bounds = (min(self.start_us, start_us), max(self.end_us, end_us))
        is_known = self.proven_s is None and bounds == self.written
        self.start_us, self.end_us = bounds
        self.unproven = united([*self.unproven, (start_us, end_us)])
        self.proven_s = None
        self.changes += not is_known
        return not is_known

    def prove(self, start_us: int, end_us: int, by: str, now_s: float) -> None:
        """Take a range off what is left to prove."""
        left = without(self.unproven, [(start_us, end_us)])
        if left == self.unproven:
            return
        self.unproven = left
        self.proofs.add(by)
        if not left:
            self.proven_s = now_s
            self.changes += 1

    @property
    def detail(self) -> dict[str, object]:
        """What is told besides; a reason for giving it up."""
        return {} if self.given_up is None else {"error": self.given_up}
