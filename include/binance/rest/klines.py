"""Klines as REST sends them: typed rows and pages."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from include.binance.streams.messages import microseconds
from include.domain.candles import Candle
from include.domain.timeframes import SECOND_US, Timeframe

FINAL_AFTER_US = 30 * SECOND_US
"""REST can still miss trades of a bar that closed less than this long ago."""

LAG_IS_OVER_US = 600 * SECOND_US
"""Age after which a bar is final even without a later row. A lagging server returns its open bar as
if it had closed; usual lags are seconds. A server that lags by more than this would be trusted."""


class KlineRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One kline of ``GET …/klines``: an array of twelve values, the last unused."""

    open_time: int  # ms or µs
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    close_time: int  # next open − 1 unit; earlier if an outage ended the bar
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal

    def candle(self, symbol: str) -> Candle:
        """Return the row as a candle; REST has no trade ids."""
        return Candle(
            symbol,
            microseconds(self.open_time),
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.trade_count,
            self.taker_buy_volume,
            self.taker_buy_quote_volume,
        )


KLINE_ROWS = msgspec.json.Decoder(list[KlineRow])
"""Decoder of an answer; numbers in quotes become Decimal with every digit."""


@dataclass(frozen=True, slots=True)
class KlinePage:
    """One answer of klines.

    Attributes:
        candles: final rows: their bar closed at least 30 s before ``server_time_us``.
        server_time_us: the server's time, requested before the page and so never later than the
            page: the evidence of its rows.
        not_final: number of rows left out because their bar was open or closed too recently.
        next_start_us: start of the next page; None if this page was not full.
        is_followed: whether rows follow ``candles`` in this answer, final or not.
        is_last_final: whether the bar of the last candle was closed when the server answered: a row
            follows it, or it ended long ago.
    """

    candles: list[Candle]
    server_time_us: int
    not_final: int
    next_start_us: int | None
    is_followed: bool = False
    is_last_final: bool = False

    @property
    def sure(self) -> list[Candle]:
        """The candles that were closed for sure, even if the server lags."""
        return self.candles if self.is_last_final else self.candles[:-1]


def final_until(server_time_us: int) -> int:
    """Return the time up to which bars that ended are final."""
    return server_time_us - FINAL_AFTER_US


def page_of(
    rows: list[KlineRow],
    *,
    symbol: str,
    timeframe: Timeframe,
    server_time_us: int,
    limit: int,
    end_us: int | None = None,
) -> KlinePage:
    """Return the rows of an answer as a page, without incomplete ones.

    Args:
        end_us: rows from here on are not part of the page; they only prove that rows follow.
    """
    listed = [row.candle(symbol) for row in rows]
    candles = [one for one in listed if end_us is None or one.open_time_us < end_us]
    until_us = final_until(server_time_us)
    final = candles
    if candles and timeframe.next_open_us(candles[-1].open_time_us) > until_us:
        final = [one for one in candles if timeframe.next_open_us(one.open_time_us) <= until_us]
    is_followed = len(final) < len(listed)
    last_end_us = timeframe.next_open_us(final[-1].open_time_us) if final else 0
    is_full = len(rows) >= limit and not is_followed
    return KlinePage(
        final,
        server_time_us,
        len(candles) - len(final),
        last_end_us if is_full else None,
        is_followed=is_followed,
        is_last_final=is_followed or last_end_us <= server_time_us - LAG_IS_OVER_US,
    )
