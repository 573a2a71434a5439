"""The newest known states of minutes, which decide what is new in a message.

Messages come twice, late, or from two streamers of one symbol, so states are compared with the
known ones. Open states only move forward. A closed state never loses to a less authoritative
source, nor an aggregate to one of fewer trades. Of two states from the same source the later one
wins, because bars do not say when their evidence was made.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from include.domain.candles import PARTIAL_RANK, SOURCE_RANK, Status
from include.domain.merge import AGGREGATED_SOURCES
from include.domain.timeframes import MINUTE_US
from streamer.hub.subscription import CandleUpdate

MINUTES_KEPT = 20
"""Minutes remembered of each symbol: more than a streamer sends when its states are requested."""
MAX_HELD = 1_500
"""Minutes remembered of a symbol while the table is being read."""


class MinuteStates:
    """The newest minutes of each symbol."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, CandleUpdate]] = {}
        self._newest: dict[str, int] = {}
        self._newest_us = 0
        self._held: set[str] = set()

    @property
    def symbols(self) -> list[str]:
        """Symbols with known minutes."""
        return list(self._newest)

    @property
    def newest_us(self) -> int:
        """Open time of the newest minute of all symbols; 0 if there is none."""
        return self._newest_us

    def newest_us_of(self, symbol: str) -> int | None:
        """Open time of a symbol's newest minute."""
        return self._newest.get(symbol)

    def oldest_us_of(self, symbol: str) -> int | None:
        """Open time of a symbol's oldest remembered minute."""
        return min(self._known.get(symbol, ()), default=None)

    def not_closed(self, symbol: str, start_us: int, end_us: int) -> list[int]:
        """Open times of the minutes in a range without a known closed state."""
        known = self._known.get(symbol, {})
        return [
            one
            for one in range(start_us, end_us, MINUTE_US)
            if one not in known or known[one].status is None
        ]

    def newest(self, symbol: str) -> CandleUpdate | None:
        """The newest minute of a symbol."""
        newest_us = self._newest.get(symbol)
        return None if newest_us is None else self._known[symbol][newest_us]

    def add(self, update: CandleUpdate) -> CandleUpdate | None:
        """Add a state; returns it as readers should receive it, or None if it is not new.

        A closed minute that had other values before is marked as a revision.
        """
        candle = update.candle
        known = self._known.setdefault(candle.symbol, {})
        before = known.get(candle.open_time_us)
        if before is not None:
            if not _is_news(before, update):
                return None
            if before.status is not None and before.candle.values != candle.values:
                update = replace(update, is_revision=True)
        newest_us = max(self._newest.get(candle.symbol, 0), candle.open_time_us)
        self._newest[candle.symbol] = newest_us
        self._newest_us = max(self._newest_us, newest_us)
        known[candle.open_time_us] = update
        self._forget(candle.symbol)
        return update

    def hold(self, symbol: str) -> None:
        """Remember all minutes of a symbol while the table is read."""
        self._held.add(symbol)

    def release(self, symbol: str) -> None:
        """Allow older minutes of a symbol to be forgotten again."""
        self._held.discard(symbol)
        if symbol in self._known:
            self._forget(symbol)

    def drop(self, symbol: str) -> None:
        """Forget a symbol that is no longer streamed."""
        self._held.discard(symbol)
        self._known.pop(symbol, None)
        self._newest.pop(symbol, None)

    def _forget(self, symbol: str) -> None:
        kept = MAX_HELD if symbol in self._held else MINUTES_KEPT
        known, until_us = self._known[symbol], self._newest[symbol] - kept * MINUTE_US
        if len(known) > MINUTES_KEPT:
            for old_us in [one for one in known if one <= until_us]:
                del known[old_us]

    def knows(self, symbol: str, open_time_us: int) -> bool:
        """Whether a minute is remembered."""
        return open_time_us in self._known.get(symbol, {})


def _is_news(before: CandleUpdate, update: CandleUpdate) -> bool:
    if update.status is None:
        return before.status is None and (
            _progress(update) > _progress(before)
            or (_progress(update) == _progress(before) and update.candle != before.candle)
        )
    if before.status is None:
        return True
    if _rank(update) != _rank(before):
        return _rank(update) > _rank(before)
    if before.source in AGGREGATED_SOURCES or update.source in AGGREGATED_SOURCES:
        return _aggregation_key(update) > _aggregation_key(before)
    return replace(update, is_revision=False) != replace(before, is_revision=False)


def _progress(update: CandleUpdate) -> tuple[bool, int]:
    last_id = update.candle.last_trade_id
    return update.is_closed, -1 if last_id is None else last_id


def _rank(update: CandleUpdate) -> int:
    if update.status is Status.PARTIAL or update.source is None:
        return PARTIAL_RANK
    return SOURCE_RANK[update.source]


def _aggregation_key(update: CandleUpdate) -> tuple[int, int, tuple[Decimal | int, ...], str]:
    """Like ``order_key`` for aggregates, which have no time of evidence here."""
    candle, is_aggregated = update.candle, update.source in AGGREGATED_SOURCES
    return (
        candle.trade_count if is_aggregated else 0,
        (candle.last_trade_id or 0) if is_aggregated else 0,
        candle.values,
        str(update.source),
    )
