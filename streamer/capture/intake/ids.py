"""Track one symbol's ids: which arrived, and which ranges are missing.

Pure. Trades may arrive in any order and any number of times; each id counts once. The number of
missing ranges is bounded: beyond the bound the two nearest ranges are joined. The ids between them
are then requested again, and the table stores them once.

A ticker may pass to another instrument whose ids restart. Missing trades of the previous instrument
are lost: their ids now belong to the new instrument, so they cannot be requested.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from include.domain.instruments import REUSED_AFTER_US

MAX_MISSING_RANGES = 64
"""Maximum number of missing ranges of a symbol."""
OVERTAKING_IDS = 100
"""Trades may arrive out of order by this many ids: the last stored trade may not have the highest
id."""


@dataclass(slots=True)
class MissingRange:
    """Missing ids, both ends included, between trades made at these times (µs).

    If the last id is the one before the first, the number of missing trades is unknown.

    Attributes:
        not_before_s: earliest time of the next request; monotonic.
        attempts: failed requests.
    """

    first_id: int
    last_id: int
    from_us: int
    to_us: int
    not_before_s: float = 0.0
    attempts: int = 0

    @property
    def ids(self) -> int:
        """Number of missing ids."""
        return self.last_id - self.first_id + 1


class IdSequence:
    """Tracks the ids of one symbol.

    Args:
        late_s: how long a missing id may still arrive by itself.
        max_missing_ranges: maximum number of missing ranges.
    """

    __slots__ = (
        "_first_us",
        "_late_s",
        "_lost",
        "_max_missing_ranges",
        "_proven_id",
        "_restarted_us",
        "first_id",
        "highest",
        "highest_us",
        "missing_ranges",
    )

    def __init__(self, *, late_s: float, max_missing_ranges: int = MAX_MISSING_RANGES) -> None:
        self.first_id: int | None = None
        """The first id of the current instrument that arrived."""
        self.highest: int | None = None
        self.highest_us = 0
        self.missing_ranges: list[MissingRange] = []
        """Missing ranges: disjoint, ascending."""
        self._first_us = 0
        self._restarted_us = 0
        """Time of the current instrument's first trade; set only if the ticker was reused."""
        self._proven_id: int | None = None
        """Last id for which the exchange confirmed that there is no later trade."""
        self._lost: list[MissingRange] = []
        self._late_s = late_s
        self._max_missing_ranges = max_missing_ranges

    def take(self, number: int, time_us: int, now_s: float) -> bool:
        """Record an id; return whether it is new.

        Args:
            now_s: monotonic clock.
        """
        highest = self.highest
        if highest is None:
            pass
        elif number == highest + 1:
            pass  # the usual case
        elif number > highest:
            if time_us + REUSED_AFTER_US < self.highest_us:
                return True  # a late trade of the previous instrument
            missing_range = MissingRange(
                highest + 1, number - 1, self.highest_us, time_us, now_s + self._late_s
            )
            self._insert(missing_range)
        elif self._fill(number):
            return True
        elif time_us < self.highest_us + REUSED_AFTER_US:
            return False
        else:
            self._restart(highest, self.highest_us, time_us)
            self.first_id = None
        if self.first_id is None:
            self.first_id, self._first_us = number, time_us
        self.highest = number
        if time_us > self.highest_us:
            self.highest_us = time_us
        return True

    def resume(self, stored_id: int, stored_us: int, now_s: float) -> None:
        """Set the last id stored before this process began."""
        if self.first_id is None:
            if self.highest is None or stored_id > self.highest:
                self.highest, self.highest_us = stored_id, stored_us
        elif stored_id + 1 < self.first_id:
            self.miss(
                MissingRange(stored_id + 1, self.first_id - 1, stored_us, self._first_us, now_s)
            )
        elif self._is_of_previous(stored_id, stored_us):
            self._restart(stored_id, stored_us, self._first_us)

    def miss(self, missing_range: MissingRange) -> None:
        """Record ids as missing: the table lacks them, or they were lost before it."""
        if missing_range.ids == 0:
            self._restart(missing_range.last_id, missing_range.from_us, missing_range.to_us)
        elif missing_range.to_us < self._restarted_us:
            self._lost.append(missing_range)
        else:
            self._insert(missing_range)

    def unstore(self, stored: tuple[int, int] | None, last_id: int, now_s: float) -> None:
        """Handle rows that the table lost.

        Args:
            stored: id and time (µs) of the last remaining row; None if there is none.
            last_id: id of the last row before the loss.
        """
        if stored is not None and self._is_of_previous(*stored):
            stored = None
        if self.highest is None or (stored is None and self.first_id is None):
            return  # it is unknown where its rows began
        last_id = min(self.highest, last_id + OVERTAKING_IDS)
        left_id, from_us = stored or ((self.first_id or 0) - 1, self._first_us)
        if left_id < last_id:
            self.miss(MissingRange(left_id + 1, last_id, from_us, self.highest_us, now_s))

    def advance(self, last_id: int, last_us: int) -> None:
        """Record that all ids up to this one were stored by other means."""
        if self.highest is None or last_id > self.highest:
            self.highest, self.highest_us = last_id, max(last_us, self.highest_us)

    def prove(self, last_id: int) -> None:
        """Record that the exchange has no trade after this id while the symbol is not trading."""
        self._proven_id = last_id

    @property
    def missing(self) -> list[MissingRange]:
        """Return the missing ranges, and lost ranges that are not reported yet."""
        return [*self.missing_ranges, *self._lost]

    def take_lost(self) -> list[MissingRange]:
        """Remove and return the ranges that can no longer be requested."""
        lost, self._lost = self._lost, []
        return lost

    def take_due(self, now_s: float, max_ids: int) -> MissingRange | None:
        """Remove and return a range of ids to request; neighbours are joined up to ``max_ids``."""
        due = next(
            (n for n, one in enumerate(self.missing_ranges) if one.not_before_s <= now_s), None
        )
        if due is None:
            return None
        missing_range = self.missing_ranges.pop(due)
        while due < len(self.missing_ranges):
            following = self.missing_ranges[due]
            if (
                following.not_before_s > now_s
                or following.last_id - missing_range.first_id >= max_ids
            ):
                break
            missing_range = _joined(missing_range, self.missing_ranges.pop(due))
        return missing_range

    # --- inside

    def _is_of_previous(self, stored_id: int, stored_us: int) -> bool:
        """Whether a stored row belongs to the previous instrument of the ticker."""
        return (
            self.first_id is not None
            and stored_id >= self.first_id
            and stored_us + REUSED_AFTER_US <= self._first_us
        )

    def _restart(self, last_id: int, last_us: int, first_us: int) -> None:
        """Handle a reused ticker: missing trades of the previous instrument are lost.

        Args:
            last_id, last_us: the previous instrument's last known trade.
            first_us: time of the new instrument's first trade.
        """
        self._restarted_us = max(self._restarted_us, first_us)
        self._lost += [
            missing_range for missing_range in self.missing_ranges if missing_range.to_us < first_us
        ]
        self.missing_ranges = [
            missing_range
            for missing_range in self.missing_ranges
            if missing_range.to_us >= first_us
        ]
        if self._proven_id != last_id:
            self._lost.append(MissingRange(last_id + 1, last_id, last_us, first_us))

    def _insert(self, missing_range: MissingRange) -> None:
        missing_ranges = self.missing_ranges
        at = bisect_right(missing_ranges, missing_range.first_id, key=lambda one: one.first_id)
        missing_ranges.insert(at, missing_range)
        if at and missing_ranges[at - 1].last_id + 1 >= missing_range.first_id:
            at -= 1
            missing_ranges[at : at + 2] = [_joined(missing_ranges[at], missing_ranges[at + 1])]
        while (
            at + 1 < len(missing_ranges)
            and missing_ranges[at].last_id + 1 >= missing_ranges[at + 1].first_id
        ):
            missing_ranges[at : at + 2] = [_joined(missing_ranges[at], missing_ranges[at + 1])]
        if len(missing_ranges) > self._max_missing_ranges:
            nearest = min(
                range(len(missing_ranges) - 1),
                key=lambda n: missing_ranges[n + 1].first_id - missing_ranges[n].last_id,
            )
            missing_ranges[nearest : nearest + 2] = [
                _joined(missing_ranges[nearest], missing_ranges[nearest + 1])
            ]

    def _fill(self, number: int) -> bool:
        """Remove an id from the missing ones; return whether it was missing."""
        missing_ranges = self.missing_ranges
        at = bisect_right(missing_ranges, number, key=lambda one: one.first_id) - 1
        if at < 0 or number > missing_ranges[at].last_id:
            return False
        missing_range = missing_ranges[at]
        parts = []
        if missing_range.first_id < number:
            parts.append(_part(missing_range, missing_range.first_id, number - 1))
        if number < missing_range.last_id:
            parts.append(_part(missing_range, number + 1, missing_range.last_id))
        missing_ranges[at : at + 1] = parts
        return True


def _part(missing_range: MissingRange, first_id: int, last_id: int) -> MissingRange:
    return MissingRange(
        first_id,
        last_id,
        missing_range.from_us,
        missing_range.to_us,
        missing_range.not_before_s,
        missing_range.attempts,
    )


def _joined(one: MissingRange, other: MissingRange) -> MissingRange:
    return MissingRange(
        min(one.first_id, other.first_id),
        max(one.last_id, other.last_id),
        min(one.from_us, other.from_us),
        max(one.to_us, other.to_us),
        max(one.not_before_s, other.not_before_s),
        max(one.attempts, other.attempts),
    )
