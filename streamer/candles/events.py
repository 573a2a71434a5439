"""Events of an aggregator, and the causes of requests to REST."""

from __future__ import annotations

from typing import Protocol

from include.domain.candles import CandleCandidate

# Causes of repairs and gaps, stored in ops.gaps.cause.
NO_FRAMES = "no frames received"
NO_CLOSED_KLINE = "no closed kline"
KLINE_DISPUTED = "closed kline disputed"
LATE_TRADE = "late trade"
MISSING_TRADES = "missing trades"
NOT_STREAMED = "not streamed"
CONNECTION_LOST = "connection lost"
NOT_VERIFIED_AT_START = "not verified at startup"
AFTER_DATABASE_OUTAGE = "missing after a database outage"
BUFFER_FULL = "write buffer full"
REFUSED_BY_DATABASE = "refused by the database"


class AggregatorEvents(Protocol):
    """Receives the results of aggregators; the streamer implements it. Times are in µs."""

    def candle_closed(self, candidate: CandleCandidate) -> None:
        """Publish and store a closed candle, or a later correction of it."""

    def rest_needed(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Fetch the minutes of this half-open range by REST."""

    def resubscribe_needed(self, symbol: str, reason: str) -> None:
        """Subscribe again: the symbol's streams do not deliver what they should."""

    def symbol_silent(self, symbol: str, since_us: int) -> None:
        """Report that no frame has arrived since this minute, although the symbol was subscribed
        again."""

    def silence_ended(self, symbol: str, since_us: int, until_us: int) -> None:
        """Report that a silent symbol delivers again."""

    def trades_missing(
        self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int
    ) -> None:
        """Report that trades with these ids, made between these times, did not arrive."""

    def trade_ids_restarted(self, symbol: str, expected_id: int, trade_id: int, at_us: int) -> None:
        """Report that trade ids went back: the ticker now belongs to another instrument."""

    def kline_differs(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """Report the values in which a candle differs from its closed kline."""

    def kline_disputed(self, kline: CandleCandidate) -> None:
        """Let REST decide: the closed kline differs from a candle that has each trade by id."""

    def open_candle_corrected(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """Report the values in which an open candle differed from its kline and was corrected."""
