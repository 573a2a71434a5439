"""Thresholds of the rules: ages, delays, distances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

LATE = timedelta(minutes=15)
"""Margin before a window for trades, and before the last run for ledgers: some rows arrive late."""


class ScopeKind(StrEnum):
    """Scope of a run."""

    CHANGED = "changed"
    """Rows that changed since the last such run, and rows that became overdue."""
    ALL = "all"
    """Every row."""
    WINDOW = "window"
    """The minutes of a span of time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the rules.

    Attributes:
        stale_after: maximum age of the last row of a trading, streamed symbol.
        unverified_after: how long a streamed minute may be unconfirmed, and a gap open.
        min_age: minimum age of a gap's end; the streamer repairs younger gaps.
        followed_for: how long a symbol without rows still counts as loaded every day.
        jump_multiple: maximum difference of consecutive closes, in usual ranges.
        min_jump: smaller relative moves are ignored.
        usual_rows: minutes with trades that a usual range needs.
        silence_before: range before a halt in which minutes without a trade are counted; the halt
            must be longer than the sum of these.
        longest_halt: maximum distance from a minute without a trade to search for trades.
    """

    stale_after: timedelta = timedelta(minutes=10)
    unverified_after: timedelta = timedelta(hours=1)
    min_age: timedelta = timedelta(minutes=10)
    followed_for: timedelta = timedelta(days=1)
    jump_multiple: Decimal = Decimal(20)
    min_jump: Decimal = Decimal("0.02")
    usual_rows: int = 30
    silence_before: timedelta = timedelta(hours=2)
    longest_halt: timedelta = timedelta(days=1)
