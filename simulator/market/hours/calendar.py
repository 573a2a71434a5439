"""Trading sessions of a symbol, and the pauses between them.

A symbol is listed, halted, resumed and delisted; its name may return as another instrument, the
next generation. A calendar is a value: a change returns a new one. The caller must not change the
past of a running exchange.
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulator.clock import MINUTE_US
from simulator.market.noise import IntArray

TradingState = Literal["unlisted", "trading", "halted", "delisted"]


class CalendarError(ValueError):
    """The change is not possible at that time."""


@dataclass(frozen=True, slots=True)
class TradingSession:
    """A period with trading.

    Attributes:
        stop_us: exclusive end; None: never ends.
        generation: number of the instrument under this name.
        ends_listing: ends with a delisting, not with a halt.
    """

    start_us: int
    stop_us: int | None = None
    generation: int = 0
    ends_listing: bool = False

    def overlaps(self, from_us: int, until_us: int) -> bool:
        """Whether any part of `from_us … until_us - 1` is in the session."""
        return self.start_us < until_us and (self.stop_us is None or self.stop_us > from_us)


@dataclass(frozen=True, slots=True)
class TradingCalendar:
    """The sessions of one symbol: ascending, disjoint, at least one."""

    sessions: tuple[TradingSession, ...]

    @classmethod
    def open_from(cls, start_us: int, *, delivery_us: int | None = None) -> "TradingCalendar":
        """Return a calendar that starts at a time, floored to the minute.

        Args:
            delivery_us: when the contract ends; None: never.
        """
        start_us = start_us // MINUTE_US * MINUTE_US
        return cls((TradingSession(start_us, delivery_us, ends_listing=delivery_us is not None),))

    # --- questions

    @property
    def is_plain(self) -> bool:
        """Whether there is a single session without end."""
        return len(self.sessions) == 1 and self.sessions[0].stop_us is None

    def latest(self, time_us: int) -> TradingSession | None:
        """Return the current session, or else the last one before; None before the first."""
        starts = [session.start_us for session in self.sessions]
        index = bisect.bisect_right(starts, time_us) - 1
        return self.sessions[index] if index >= 0 else None

    def is_trading(self, time_us: int) -> bool:
        """Whether there is trading at a time."""
        session = self.latest(time_us)
        return session is not None and session.overlaps(time_us, time_us + 1)

    def state(self, time_us: int) -> TradingState:
        """Return the state of the symbol at a time."""
        session = self.latest(time_us)
        if session is None:
            return "unlisted"
        if session.overlaps(time_us, time_us + 1):
            return "trading"
        return "delisted" if session.ends_listing else "halted"

    def generation(self, time_us: int) -> int:
        """Return the generation that has the name at a time (0 before the first)."""
        session = self.latest(time_us)
        return 0 if session is None else session.generation

    def overlaps(self, from_us: int, until_us: int) -> bool:
        """Whether there is trading within `from_us … until_us - 1`."""
        return any(session.overlaps(from_us, until_us) for session in self.sessions)

    def next_open(self, time_us: int) -> int | None:
        """Return the first time with trading from a time on; None if trading has ended."""
        for session in self.sessions:
            if session.overlaps(time_us, time_us + 1):
                return time_us
            if session.start_us > time_us:
                return session.start_us
        return None

    def last_open(self, time_us: int) -> int | None:
        """Return the last time with trading up to a time; None before the first session."""
        session = self.latest(time_us)
        if session is None:
            return None
        return time_us if session.stop_us is None else min(time_us, session.stop_us - 1)

    def trading_mask(self, times_us: IntArray) -> npt.NDArray[np.bool_]:
        """Return which of the times are in a session."""
        mask = np.zeros(len(times_us), dtype=np.bool_)
        for session in self.sessions:
            inside = times_us >= session.start_us
            if session.stop_us is not None:
                inside &= times_us < session.stop_us
            mask |= inside
        return mask

    def overlap_mask(self, opens_us: IntArray, step_us: int) -> npt.NDArray[np.bool_]:
        """Return which of the periods `open … open + step - 1` overlap a session."""
        mask = np.zeros(len(opens_us), dtype=np.bool_)
        for session in self.sessions:
            inside = opens_us + step_us > session.start_us
            if session.stop_us is not None:
                inside &= opens_us < session.stop_us
            mask |= inside
        return mask

    def listed_mask(self, times_us: IntArray) -> npt.NDArray[np.bool_]:
        """Return at which of the times the symbol is listed; a halt does not end a listing."""
        mask = np.zeros(len(times_us), dtype=np.bool_)
        start_us: int | None = None
        for session in self.sessions:
            start_us = session.start_us if start_us is None else start_us
            if session.ends_listing and session.stop_us is not None:
                mask |= (times_us >= start_us) & (times_us < session.stop_us)
                start_us = None
        if start_us is not None:
            mask |= times_us >= start_us
        return mask

    def partial_minutes(self) -> frozenset[int]:
        """Return the minutes (since the epoch) with a session's start or end inside."""
        edges = [
            edge
            for session in self.sessions
            for edge in (session.start_us, session.stop_us)
            if edge is not None and edge % MINUTE_US
        ]
        return frozenset(edge // MINUTE_US for edge in edges)

    def listings(self) -> Iterator[TradingSession]:
        """Yield the first session of each generation."""
        known = -1
        for session in self.sessions:
            if session.generation != known:
                known = session.generation
                yield session

    # --- changes

    def halted(self, from_us: int, until_us: int | None) -> "TradingCalendar":
        """Return the calendar without trading from a time on, until another time or for ever."""
        if until_us is not None and until_us <= from_us:
            raise CalendarError("a halt must end after it begins")
        kept: list[TradingSession] = []
        for session in self.sessions:
            if not session.overlaps(from_us, until_us if until_us is not None else 1 << 62):
                kept.append(session)
                continue
            if session.start_us < from_us:
                kept.append(replace(session, stop_us=from_us, ends_listing=False))
            if until_us is not None and (session.stop_us is None or session.stop_us > until_us):
                kept.append(replace(session, start_us=until_us))
        if tuple(kept) == self.sessions:
            raise CalendarError("there is no trading to halt at that time")
        if not kept:
            raise CalendarError("a halt must begin after the listing")
        return TradingCalendar(tuple(kept))

    def delisted(self, at_us: int) -> "TradingCalendar":
        """Return the calendar with the current instrument delisted at a time."""
        current = self.latest(at_us)
        if current is None or self.state(at_us) == "delisted" or current.start_us >= at_us:
            raise CalendarError("it is not listed at that time")
        kept = [session for session in self.sessions if session.start_us < at_us]
        stop_us = at_us if current.stop_us is None else min(at_us, current.stop_us)
        kept[-1] = replace(current, stop_us=stop_us, ends_listing=True)
        later = [
            session
            for session in self.sessions
            if session.start_us >= at_us and session.generation != current.generation
        ]
        return TradingCalendar((*kept, *later))

    def relisted(self, start_us: int) -> "TradingCalendar":
        """Return the calendar with the name listed again, for another instrument.

        The listing starts at the next full minute.
        """
        last = self.sessions[-1]
        start_us = -(-start_us // MINUTE_US) * MINUTE_US
        if last.stop_us is None or not last.ends_listing or start_us < last.stop_us:
            raise CalendarError("a name can be listed again only after its delisting")
        return TradingCalendar(
            (*self.sessions, TradingSession(start_us, None, last.generation + 1))
        )
