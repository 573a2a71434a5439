"""How the streams of each symbol are, as the aggregators tell it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from include.domain.candles import CandleCandidate, Status
from include.domain.timeframes import MINUTE_US

BEHIND_AFTER_US = 3 * MINUTE_US
"""A minute is settled within seconds of its end: three minutes without one is too long."""


class SymbolState(enum.StrEnum):
    """What is known of a symbol's streams."""

    CONNECTING = "connecting"
    """Nothing was settled from its streams yet."""
    LIVE = "live"
    SILENT = "silent"
    """Neither trades nor klines come although its connection delivers others."""
    HALTED = "halted"
    """The exchange itself says that it does not trade."""
    DEAD = "dead"
    """One of its streams does not deliver what the other, or its neighbours, show to be there."""


QUIET = frozenset({SymbolState.SILENT, SymbolState.HALTED})
"""States in which no new minute is to be expected."""


class SymbolStates:
    """The present state of each symbol, and its newest settled minute."""

    def __init__(self) -> None:
        self._states: dict[str, SymbolState] = {}
        self._settled_us: dict[str, int] = {}

    def end(self, symbol: str) -> None:
        """Watch this one no longer."""
        self._states.pop(symbol, None)
        self._settled_us.pop(symbol, None)

    def enter(self, symbol: str, state: SymbolState) -> bool:
        """Note a state; returns whether it is new."""
        was, self._states[symbol] = self._states.get(symbol), state
        return was is not state

    def settled(self, offer: CandleCandidate) -> None:
        """A minute of it came from the streams; the exchange's word shows that they live."""
        symbol, open_time_us = offer.candle.symbol, offer.candle.open_time_us
        if open_time_us > self._settled_us.get(symbol, 0):
            self._settled_us[symbol] = open_time_us
        if offer.status is Status.VERIFIED and self._states.get(symbol) is not SymbolState.HALTED:
            self._states[symbol] = SymbolState.LIVE

    def of(self, symbol: str) -> SymbolState:
        """Its state."""
        return self._states.get(symbol, SymbolState.CONNECTING)

    def counts(self, symbols: Iterable[str]) -> dict[SymbolState, int]:
        """How many of these are in each state, all states named."""
        counts = dict.fromkeys(SymbolState, 0)
        for symbol in symbols:
            counts[self.of(symbol)] += 1
        return counts

    def is_behind(self, symbol: str, exchange_us: int, delivering_since_us: int) -> bool:
        """Whether minutes should have been settled that were not.

        A symbol that joined a connection at work has its time from when it is first asked about.

        Args:
            exchange_us: the exchange's clock.
            delivering_since_us: when the connection began to deliver; earlier minutes are REST's.
        """
        if self.of(symbol) in QUIET:
            return False
        settled_until_us = self._settled_us.setdefault(symbol, exchange_us) + MINUTE_US
        return exchange_us - max(settled_until_us, delivering_since_us) > BEHIND_AFTER_US
