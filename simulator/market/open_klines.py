"""The open kline after any of its trades, without aggregating from the start each time."""

import functools

import numpy as np

from simulator.market.klines import Kline
from simulator.market.trades.columns import TradeColumns


class OpenKline:
    """Cumulative aggregates of trades: `after(row, …)` is the kline with orders up to `row`.

    Args:
        trades: trades of the kline (a minute, or a second for 1s klines).
        open_us, close_us: first and last µs of the kline.
    """

    def __init__(self, trades: TradeColumns, *, open_us: int, close_us: int) -> None:
        self.trades = trades
        self.open_us = open_us
        self.close_us = close_us

    @functools.cached_property
    def _prefixes(self) -> tuple[list[int], ...]:
        trades = self.trades
        buys = ~trades.buyer_is_maker
        columns = (
            np.maximum.accumulate(trades.price),
            np.minimum.accumulate(trades.price),
            trades.price,
            np.cumsum(trades.quantity),
            np.cumsum(trades.quote),
            np.cumsum(trades.fills),
            np.cumsum(trades.quantity * buys),
            np.cumsum(trades.quote * buys),
            trades.last_id,
        )
        return tuple(column.tolist() for column in columns)

    def after(self, row: int, *, unsent_fills: int = 0) -> Kline:
        """Return the kline up to order `row`, without that order's last `unsent_fills` fills."""
        high, low, close, volume, quote, count, buy_volume, buy_quote, last_id = (
            column[row] for column in self._prefixes
        )
        trades = self.trades
        if unsent_fills:
            stop = int(trades.slot_start[row] + trades.fills[row])
            left_out = slice(stop - unsent_fills, stop)
            missing_volume = int(trades.slot_quantity[left_out].sum())
            missing_quote = int(trades.slot_quote[left_out].sum())
            volume -= missing_volume
            quote -= missing_quote
            count -= unsent_fills
            last_id -= unsent_fills
            if not trades.buyer_is_maker[row]:
                buy_volume -= missing_volume
                buy_quote -= missing_quote
        return Kline(
            self.open_us, self.close_us, int(trades.price[0]), high, low, close, volume, quote,
            count, buy_volume, buy_quote, int(trades.first_id[0]), last_id,
        )  # fmt: skip


def extend_kline(earlier: Kline | None, later: Kline) -> Kline:
    """Combine the completed part of a longer kline with a later part; either may have no trades."""
    if earlier is None or earlier.trade_count == 0:
        opened = later if earlier is None else earlier
        return later._replace(open_time_us=opened.open_time_us, close_time_us=opened.close_time_us)
    if later.trade_count == 0:
        return earlier
    return earlier._replace(
        high=max(earlier.high, later.high),
        low=min(earlier.low, later.low),
        close=later.close,
        volume=earlier.volume + later.volume,
        quote_volume=earlier.quote_volume + later.quote_volume,
        trade_count=earlier.trade_count + later.trade_count,
        taker_buy_volume=earlier.taker_buy_volume + later.taker_buy_volume,
        taker_buy_quote_volume=earlier.taker_buy_quote_volume + later.taker_buy_quote_volume,
        last_id=later.last_id,
    )
