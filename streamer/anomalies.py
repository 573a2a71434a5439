"""What the streamer's aggregators find wrong: counted, logged, and entered where it is a gap."""

from __future__ import annotations

from collections import Counter

import structlog

from include.domain.timeframes import from_us_text, minute_of
from streamer.storage.gap_ledger import GapLedger

log = structlog.get_logger(__name__)


class Findings:
    """The part of a ``Sink`` that asks for nothing.

    Args:
        ledger: has the gaps.
    """

    def __init__(self, ledger: GapLedger) -> None:
        self._ledger = ledger
        self._counts: Counter[str] = Counter()
        self._holed: dict[str, int] = {}
        """Minute of the last hole that was logged, by symbol."""

    def hole(self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int) -> None:
        """Trades did not come; the candle is seeded anew from a kline."""
        self._ledger.lost(symbol, from_us, to_us + 1, "trades missing")
        self._counts["holes"] += 1
        if self._holed.get(symbol) == (minute := minute_of(to_us)):
            return  # a bad line loses many; the minute's first is told
        self._holed[symbol] = minute
        log.warning(
            "trades_missing",
            symbol=symbol,
            first_id=first_id,
            last_id=last_id,
            since=from_us_text(from_us),
            until=from_us_text(to_us),
        )

    def ids_restarted(self, symbol: str, expected_id: int, trade_id: int, at_us: int) -> None:
        """The ticker was given to another instrument."""
        log.warning(
            "trade_ids_restarted",
            symbol=symbol,
            expected_id=expected_id,
            trade_id=trade_id,
            at=from_us_text(at_us),
        )

    def differs(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """Fold and closed kline disagree; the store keeps both sides."""
        self._counts["differing"] += 1
        open_time = from_us_text(open_time_us)
        log.warning("checksum_differs", symbol=symbol, open_time=open_time, values=values)

    def corrected(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """An open candle was not what it should be; it goes on from the exchange's."""
        self._counts["corrected"] += 1
        open_time = from_us_text(open_time_us)
        log.warning("open_candle_corrected", symbol=symbol, open_time=open_time, values=values)
