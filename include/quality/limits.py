"""What turns a figure into a fault: how old, how late, how far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

LATE = timedelta(minutes=15)
"""How far before a window trades are looked at, and before the last run ledgers: some come late."""


class ScopeKind(StrEnum):
    """What a run looks at."""

    CHANGED = "changed"
    """What changed since the last such run, and what came of age."""
    ALL = "all"
    """Every row."""
    WINDOW = "window"
    """The minutes of a span of time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the rules.

    Attributes:
        stale_after: how long before the end a trading symbol that is streamed may have its last
            row.
        unverified_after: how long a streamed minute may be unconfirmed, and a gap open.
        settled_after: how long before the end a hole must have ended: a younger one is the
            streamer's.
        followed_for: how long a symbol without rows still counts as one that is kept up.
        jump_multiple: how many usual ranges a close may differ from the one before.
        min_jump: moves of a smaller part of the price are never looked at.
        usual_rows: minutes with trades that a usual range needs.
        silence_before: how long before a halt minutes without a trade are counted, which it must be
            longer than.
        longest_halt: how far from a minute without a trade the trades around it are looked for.
    """

    stale_after: timedelta = timedelta(minutes=10)
    unverified_after: timedelta = timedelta(hours=1)
    settled_after: timedelta = timedelta(minutes=10)
    followed_for: timedelta = timedelta(days=1)
    jump_multiple: Decimal = Decimal(20)
    min_jump: Decimal = Decimal("0.02")
    usual_rows: int = 30
    silence_before: timedelta = timedelta(hours=2)
    longest_halt: timedelta = timedelta(days=1)
