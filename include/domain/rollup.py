"""Roll bars up to a coarser timeframe, row by row.

The columnar equivalent is ``columns.candles.roll_up``; tests compare both with the exchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby, pairwise

from include.domain.candles import VALUE_NAMES, Candle
from include.domain.exact import EXACT, ZERO
from include.domain.instruments import market_of
from include.domain.timeframes import MINUTE_US, Timeframe


def roll_up(candles: Iterable[Candle], timeframe: Timeframe) -> list[Candle]:
    """Return the bars of ``timeframe`` from finer ones of one symbol, by open time.

    Bars may be incomplete: they contain the given minutes.

    Args:
        candles: of one symbol, in the order of their open times.

    Raises:
        ValueError: several symbols, or out of order.
    """
    rows = list(candles)
    for earlier, later in pairwise(rows):
        if earlier.symbol != later.symbol or earlier.open_time_us >= later.open_time_us:
            raise ValueError(
                f"bars must have one symbol and be in order: {earlier.symbol} "
                f"{earlier.open_time_us} stands before {later.symbol} {later.open_time_us}"
            )
    return [
        join_bars(list(bars), open_time_us)
        for open_time_us, bars in groupby(
            rows, key=lambda candle: timeframe.open_time_us(candle.open_time_us)
        )
    ]


def join_bars(bars: Sequence[Candle], open_time_us: int) -> Candle:
    """Join consecutive bars to one.

    A bar without trades does not set prices: like the exchange, the result takes its prices from
    bars with trades (spot BTCUSDT 2023-03-24 12:00). The close is the last trade's; a silent bar at
    the end has the same close unless minutes before it are missing. If no bar has trades, the
    result is flat at the last close.

    Args:
        bars: at least one, in order.
    """
    traded = [bar for bar in bars if bar.trade_count]
    if not traded:
        close = bars[-1].close
        return Candle(
            bars[0].symbol, open_time_us, close, close, close, close, ZERO, ZERO, 0, ZERO, ZERO
        )
    return Candle(
        symbol=traded[0].symbol,
        open_time_us=open_time_us,
        open=traded[0].open,
        high=max(bar.high for bar in traded),
        low=min(bar.low for bar in traded),
        close=traded[-1].close,
        volume=_sum(bar.volume for bar in traded),
        quote_volume=_sum(bar.quote_volume for bar in traded),
        trade_count=sum(bar.trade_count for bar in traded),
        taker_buy_volume=_sum(bar.taker_buy_volume for bar in traded),
        taker_buy_quote_volume=_sum(bar.taker_buy_quote_volume for bar in traded),
        first_trade_id=traded[0].first_trade_id,
        last_trade_id=traded[-1].last_trade_id,
    )


def _sum(values: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for value in values:
        total = EXACT.add(total, value)
    return total


_ROUNDED = ("quote_volume", "taker_buy_quote_volume")
_HALF = Decimal("0.000000005")
"""Largest error of an amount that the exchange prints with eight decimals."""


def differing_bar_values(
    symbol: str,
    timeframe: Timeframe,
    open_time_us: int,
    ours: Sequence[Decimal | int],
    theirs: Sequence[Decimal | int],
) -> list[str]:
    """Return the names of the values in which a rolled-up bar differs from the exchange's.

    COIN-M sums exact amounts of the base asset and rounds each bar when it prints it. The sum of
    printed minutes may differ from the printed bar by half a last decimal for each of them.

    Args:
        ours, theirs: in the order of ``VALUE_NAMES``.
    """
    allowed = ZERO
    if market_of(symbol).is_inverse:
        minutes = (timeframe.next_open_us(open_time_us) - open_time_us) // MINUTE_US
        allowed = _HALF * (minutes + 1) if minutes > 1 else ZERO
    return [
        name
        for name, a, b in zip(VALUE_NAMES, ours, theirs, strict=True)
        if a != b and (name not in _ROUNDED or abs(Decimal(a) - Decimal(b)) > allowed)
    ]
