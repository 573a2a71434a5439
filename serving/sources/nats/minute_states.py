"""What a server knows of minutes, and which of what it is told is news.

Messages come twice, late, or from two streamers that stream one symbol. States are therefore held
against those known: of a minute that is not settled they go forward only, and of settled ones the
word of the lesser source never replaces that of the greater one, nor the fold of fewer trades
that of more. Of two words of the exchange by the same way the one that comes later stands: bars do
not say when each was given.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from include.domain.candles import PARTIAL_RANK, SOURCE_RANK, Candle, Status
from include.domain.merge import FOLDS
from include.domain.timeframes import MINUTE_US
from streamer.hub.subscription import CandleUpdate

MINUTES_KEPT = 20
"""Of each symbol: more than a streamer tells again to who asks for its states."""
MAX_HELD = 1_500
"""Minutes of a symbol of which the table is still to be read."""


class MinuteStates:
    """The newest minutes of each symbol."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, CandleUpdate]] = {}
        self._newest: dict[str, int] = {}
        self._newest_us = 0
        self._held: set[str] = set()

    @property
    def symbols(self) -> list[str]:
        """Those of which something is known."""
        return list(self._newest)

    @property
    def newest_us(self) -> int:
        """Open time of the newest minute of all that were told; 0 where none was."""
        return self._newest_us

    def newest_us_of(self, symbol: str) -> int | None:
        """Open time of a symbol's newest minute."""
        return self._newest.get(symbol)

    def oldest_us_of(self, symbol: str) -> int | None:
        """Open time of a symbol's oldest minute that is remembered."""
        return min(self._known.get(symbol, ()), default=None)

    def unsettled(self, symbol: str, start_us: int, end_us: int) -> list[int]:
        """Open times of minutes from one time until another of which no settled state is known."""
        known = self._known.get(symbol, {})
        return [
            one
            for one in range(start_us, end_us, MINUTE_US)
            if one not in known or known[one].status is None
        ]

    def newest(self, symbol: str) -> Candle | None:
        """The newest minute of a symbol."""
        newest_us = self._newest.get(symbol)
        return None if newest_us is None else self._known[symbol][newest_us].candle

    def take(self, update: CandleUpdate) -> CandleUpdate | None:
        """A state as it is to be told on; None where it is no news.

        A settled minute that was told with other values is marked as a revision.
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
        """Forget no minute of a symbol: what the table has is still to be held against them."""
        self._held.add(symbol)

    def release(self, symbol: str) -> None:
        """Older minutes may be forgotten again."""
        self._held.discard(symbol)
        if symbol in self._known:
            self._forget(symbol)

    def drop(self, symbol: str) -> None:
        """A symbol is streamed no longer: nothing of it is known."""
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
    if before.source in FOLDS or update.source in FOLDS:
        return _fold_key(update) > _fold_key(before)
    return replace(update, is_revision=False) != replace(before, is_revision=False)


def _progress(update: CandleUpdate) -> tuple[bool, int]:
    last_id = update.candle.last_trade_id
    return update.is_closed, -1 if last_id is None else last_id


def _rank(update: CandleUpdate) -> int:
    if update.status is Status.PARTIAL or update.source is None:
        return PARTIAL_RANK
    return SOURCE_RANK[update.source]


def _fold_key(update: CandleUpdate) -> tuple[int, int, tuple[Decimal | int, ...], str]:
    """As ``order_key`` has it for folds, of which none has a time of evidence here."""
    candle, is_fold = update.candle, update.source in FOLDS
    return (
        candle.trade_count if is_fold else 0,
        (candle.last_trade_id or 0) if is_fold else 0,
        candle.values,
        str(update.source),
    )
