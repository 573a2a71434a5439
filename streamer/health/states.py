"""The state of each symbol's streams."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from include.domain.candles import CandleCandidate, Status
from include.domain.timeframes import MINUTE_US

BEHIND_AFTER_US = 3 * MINUTE_US
"""Time without an emitted candle after which a symbol is behind; normally a candle follows its
minute within seconds."""


class SymbolState(enum.StrEnum):
    """State of a symbol's streams."""

    CONNECTING = "connecting"
    """No candle has been emitted yet."""
    LIVE = "live"
    SILENT = "silent"
    """Neither trades nor klines arrive, although the connection delivers other symbols."""
    HALTED = "halted"
    """The exchange reports that the symbol does not trade."""
    DEAD = "dead"
    """One of its streams delivers nothing, although its other stream or other symbols prove that it
    should."""


QUIET = frozenset({SymbolState.SILENT, SymbolState.HALTED})
"""States in which no new minute is expected."""


class SymbolStates:
    """The state of each symbol and its newest emitted minute."""

    def __init__(self) -> None:
        self._states: dict[str, SymbolState] = {}
        self._emitted_us: dict[str, int] = {}

    def remove(self, symbol: str) -> None:
        """Remove a symbol."""
        self._states.pop(symbol, None)
        self._emitted_us.pop(symbol, None)

    def enter(self, symbol: str, state: SymbolState) -> bool:
        """Set a state; return whether it changed."""
        was, self._states[symbol] = self._states.get(symbol), state
        return was is not state

    def candle_closed(self, candidate: CandleCandidate) -> None:
        """Record a candle from the streams; a verified one shows that they are alive."""
        symbol, open_time_us = candidate.candle.symbol, candidate.candle.open_time_us
        if open_time_us > self._emitted_us.get(symbol, 0):
            self._emitted_us[symbol] = open_time_us
        is_halted = self._states.get(symbol) is SymbolState.HALTED
        if candidate.status is Status.VERIFIED and not is_halted:
            self._states[symbol] = SymbolState.LIVE

    def of(self, symbol: str) -> SymbolState:
        """Return the state of a symbol."""
        return self._states.get(symbol, SymbolState.CONNECTING)

    def counts(self, symbols: Iterable[str]) -> dict[SymbolState, int]:
        """Return the number of symbols in each state, including states without any."""
        counts = dict.fromkeys(SymbolState, 0)
        for symbol in symbols:
            counts[self.of(symbol)] += 1
        return counts

    def is_behind(self, symbol: str, exchange_us: int, delivering_since_us: int) -> bool:
        """Whether a symbol's minutes are overdue.

        For a symbol added to a running connection, the time counts from the first call on.

        Args:
            exchange_us: exchange time.
            delivering_since_us: when the connection began to deliver; REST has earlier minutes.
        """
        if self.of(symbol) in QUIET:
            return False
        emitted_until_us = self._emitted_us.setdefault(symbol, exchange_us) + MINUTE_US
        return exchange_us - max(emitted_until_us, delivering_since_us) > BEHIND_AFTER_US
