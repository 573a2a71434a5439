"""Prices and statistics of a symbol: the endpoints `ticker/…` and `avgPrice`."""

from simulator.cache import BoundedCache
from simulator.clock import DAY_US, MINUTE_US, SECOND_US, SimulatedClock
from simulator.market.history import History
from simulator.market.instruments import SPOT_DECIMALS, Instrument, decimal_formatter
from simulator.market.market import SimulatedMarket
from simulator.market.rolling import (
    AVERAGE_PRICE_MINUTES,
    LastTrade,
    WindowStats,
    average_price,
    last_trade,
    percent_change,
    weighted_price,
    window_stats,
)
from simulator.wire.payloads import US_PER_MS
from simulator.wire.tickers import signed

Row = dict[str, int | str]

_MINI_FIELDS = (
    "symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume",
    "openTime", "closeTime", "firstId", "lastId", "count",
)  # fmt: skip


class Tickers:
    """Prices and statistics, from the trades and the book of a market.

    Statistics of 24 hours are as of the last whole second.
    """

    def __init__(self, market: SimulatedMarket, clock: SimulatedClock) -> None:
        self._market = market
        self._clock = clock
        self._days: BoundedCache[tuple[str, int], tuple[WindowStats, LastTrade]] = BoundedCache(
            10_000
        )

    def statistics(self, symbol: str, *, is_mini: bool, unit_us: int) -> Row:
        """Return `ticker/24hr`; `is_mini` keeps only prices and volumes."""
        history = self._market.history(symbol)
        close_us = self._clock.now_us() // SECOND_US * SECOND_US
        stats, last = self._days.get(
            (symbol, close_us), lambda: _last_day(history, max(close_us, history.start_us))
        )
        best = self._best(symbol) if history.instrument.market == "spot" else None
        row = _statistics(history, stats, last, best, unit_us=unit_us)
        if best is not None and stats.trade_count == 0:
            row |= _without_trades(history.instrument)
        return {name: row[name] for name in _MINI_FIELDS} if is_mini else row

    def window(self, symbol: str, span_us: int, *, is_mini: bool, unit_us: int) -> Row:
        """Return `ticker` of spot: the period up to now, starting on a whole minute."""
        history = self._market.history(symbol)
        now_us = self._clock.now_us()
        open_us = (now_us - span_us) // MINUTE_US * MINUTE_US
        stats = window_stats(history, open_us, max(now_us, history.start_us))
        row = _statistics(history, stats, last_trade(history, now_us), None, unit_us=unit_us)
        del row["lastQty"]
        return {name: row[name] for name in _MINI_FIELDS} if is_mini else row

    def price(self, symbol: str) -> Row:
        """Return `ticker/price`: the last trade's price; on the futures also its time."""
        instrument = self._market.instrument(symbol)
        last = last_trade(self._market.history(symbol), self._clock.now_us())
        row: Row = {"symbol": symbol}
        if instrument.market == "cm":
            row["ps"] = instrument.pair
        row["price"] = instrument.format_price(last.price)
        return row if instrument.market == "spot" else row | {"time": last.time_us // US_PER_MS}

    def book_ticker(self, symbol: str) -> Row:
        """Return `ticker/bookTicker`: best bid and ask; on the futures also their time."""
        row = _named(self._market.instrument(symbol))
        row |= self._best(symbol)
        if self._market.instrument(symbol).market != "spot":
            best = self._market.book(symbol).best_at(self._clock.now_us())
            row["time"] = best.time_us // US_PER_MS
        return row

    def average(self, symbol: str, *, unit_us: int) -> Row:
        """Return `avgPrice`: the average price of the last five minutes, or the last price."""
        history = self._market.history(symbol)
        now_us = self._clock.now_us()
        price = average_price(history, now_us, decimals=SPOT_DECIMALS)
        return {
            "mins": AVERAGE_PRICE_MINUTES,
            "price": decimal_formatter(SPOT_DECIMALS, SPOT_DECIMALS)(price),
            "closeTime": last_trade(history, now_us).time_us // unit_us,
        }

    def _best(self, symbol: str) -> Row:
        instrument = self._market.instrument(symbol)
        best = self._market.book(symbol).best_at(self._clock.now_us())
        return {
            "bidPrice": instrument.format_price(best.bid),
            "bidQty": instrument.format_quantity(best.bid_quantity),
            "askPrice": instrument.format_price(best.ask),
            "askQty": instrument.format_quantity(best.ask_quantity),
        }


def _last_day(history: History, close_us: int) -> tuple[WindowStats, LastTrade]:
    open_us = close_us - DAY_US
    if history.instrument.market != "spot":
        open_us = open_us // MINUTE_US * MINUTE_US  # as recorded: on the minute
    return window_stats(history, open_us, close_us), last_trade(history, close_us)


def _statistics(
    history: History, stats: WindowStats, last: LastTrade, best: Row | None, *, unit_us: int
) -> Row:
    """Return the fields in recorded order; without `best` (futures) those of the book are omitted.

    On COIN-M the amount is the base asset's.
    """
    instrument = history.instrument
    price = instrument.format_price
    shown = _price_decimals(instrument)
    mean = weighted_price(history, stats, decimals=shown)
    row = _named(instrument) | {
        "priceChange": signed(stats.last - stats.open, instrument.price_decimals, shown),
        "priceChangePercent": signed(percent_change(stats), 3, 3),
        "weightedAvgPrice": decimal_formatter(shown, shown)(mean),
    }
    if best is not None:
        row["prevClosePrice"] = price(stats.previous_close)
    row |= {
        "lastPrice": price(stats.last),
        "lastQty": instrument.format_quantity(last.quantity),
    }
    return (
        row
        | (best or {})
        | {
            "openPrice": price(stats.open),
            "highPrice": price(stats.high),
            "lowPrice": price(stats.low),
            "volume": instrument.format_quantity(stats.volume),
            "baseVolume" if instrument.is_inverse else "quoteVolume": instrument.format_quote(
                stats.quote_volume
            ),
            "openTime": stats.open_us // unit_us,
            "closeTime": stats.close_us // unit_us,
            "firstId": stats.first_id,
            "lastId": stats.last_id,
            "count": stats.trade_count,
        }
    )


def _named(instrument: Instrument) -> Row:
    """Return the symbol; on COIN-M also its pair."""
    row: Row = {"symbol": instrument.symbol}
    return row | {"pair": instrument.pair} if instrument.market == "cm" else row


def _without_trades(instrument: Instrument) -> Row:
    """Return the recorded values of a spot symbol without a trade for a day."""
    price = instrument.format_price(0)
    prices = dict.fromkeys(("lastPrice", "openPrice", "highPrice", "lowPrice"), price)
    return {
        "priceChangePercent": "0",
        "weightedAvgPrice": "0",
        "lastQty": instrument.format_quantity(0),
        **prices,
    }


def _price_decimals(instrument: Instrument) -> int:
    return SPOT_DECIMALS if instrument.market == "spot" else instrument.price_decimals
