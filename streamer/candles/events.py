"""Where the results of an aggregator go."""

from __future__ import annotations

from typing import Protocol

from include.domain.candles import CandleCandidate

NOTHING_CAME = "nothing came"
NO_CLOSED_KLINE = "no closed kline"
LACKING = "lacking since the database was away"
"""Causes to ask REST that tell what is known of a minute."""


class AggregatorEvents(Protocol):
    """Takes what aggregators find; the streamer is one. Times are µs."""

    def settle(self, offer: CandleCandidate) -> None:
        """A candle is ready for the table."""

    def ask_rest(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """The minutes that open in this half-open range need the exchange's word by REST."""

    def doubt(self, symbol: str, reason: str) -> None:
        """The symbol's streams do not deliver what they should: subscribe again."""

    def silent(self, symbol: str, since_us: int) -> None:
        """Nothing has come since this minute, although the streams were subscribed anew."""

    def speaks_again(self, symbol: str, since_us: int, until_us: int) -> None:
        """A symbol that was silent between these times delivers again."""

    def hole(self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int) -> None:
        """Trades with these ids, made between these times, did not come."""

    def ids_restarted(self, symbol: str, expected_id: int, trade_id: int, at_us: int) -> None:
        """The ticker goes on with smaller ids: it is another instrument now."""

    def differs(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """The fold and the exchange's closed kline disagree in these values."""

    def corrected(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """A kline of a minute that is still open shows that its fold is not what it should be."""
