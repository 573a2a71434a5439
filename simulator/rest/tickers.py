"""Prices and statistics of a symbol: the endpoints `ticker/…` and `avgPrice`."""

from simulator.cache import BoundedCache
from simulator.clock import DAY_US, MINUTE_US, Clock
from simulator.market.instruments import Instrument
from simulator.market.klines import Kline
from simulator.market.market import Market
from simulator.wire.frames import US_PER_MS

Row = dict[str, object]

AVERAGE_MINUTES = 5
_MINI_FIELDS = (
    "symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume",
    "openTime", "closeTime", "firstId", "lastId", "count",
)  # fmt: skip


class Tickers:
    """What the trades and the book of a market say of its prices.

    Statistics of 24 hours end with the last whole minute and are made once a minute.
    """

    def __init__(self, market: Market, clock: Clock) -> None:
        self._market = market
        self._clock = clock
        self._days: BoundedCache[tuple[str, int], Row] = BoundedCache(10_000)

    def statistics(self, symbol: str, *, is_mini: bool, unit_us: int) -> Row:
        """`ticker/24hr`; `is_mini` leaves out all but prices and volumes."""
        minute_us = self._clock.now_us() // MINUTE_US * MINUTE_US
        row = self._days.get((symbol, minute_us), lambda: self._make_day(symbol, minute_us))
        close_us = int(str(row["closeTime"]))
        opened_us = close_us - DAY_US
        if self._market.instrument(symbol).market == "um":
            opened_us = opened_us // MINUTE_US * MINUTE_US  # as recorded: on the minute
        else:
            row = row | self._best(symbol)
        row = row | {"openTime": opened_us // unit_us, "closeTime": close_us // unit_us}
        return {name: row[name] for name in _MINI_FIELDS} if is_mini else row

    def price(self, symbol: str) -> Row:
        """`ticker/price`: the last trade's; USD-M tells its time too."""
        instrument = self._market.instrument(symbol)
        price, time_us = self._last_trade(symbol)
        row: Row = {"symbol": symbol, "price": instrument.format_price(price)}
        return row if instrument.market == "spot" else row | {"time": time_us // US_PER_MS}

    def book_ticker(self, symbol: str) -> Row:
        """`ticker/bookTicker`: best bid and ask; USD-M tells their time too."""
        row: Row = {"symbol": symbol} | self._best(symbol)
        if self._market.instrument(symbol).market == "um":
            row["time"] = (
                self._market.book(symbol).best_at(self._clock.now_us()).time_us // US_PER_MS
            )
        return row

    def average(self, symbol: str, *, unit_us: int) -> Row:
        """`avgPrice`: quote over volume of the last five minutes, else the last price."""
        instrument = self._market.instrument(symbol)
        now_us = self._clock.now_us()
        bars = self._minutes(symbol, now_us - AVERAGE_MINUTES * MINUTE_US, now_us)
        volume, quote = _sum(bars, "volume"), _sum(bars, "quote_volume")
        last, time_us = self._last_trade(symbol)
        price = quote * instrument.quote_divisor // volume if volume else last
        return {
            "mins": AVERAGE_MINUTES,
            "price": instrument.format_price(price),
            "closeTime": time_us // unit_us,
        }

    def _last_trade(self, symbol: str) -> tuple[int, int]:
        """Price (units) and time of the last trade that has happened."""
        history = self._market.history(symbol)
        stop = history.agg_id_from(self._clock.now_us() + 1)
        tape = history.orders_by_id(stop - 1, stop)
        return int(tape.price[0]), int(tape.time_us[0])

    def _best(self, symbol: str) -> Row:
        instrument = self._market.instrument(symbol)
        best = self._market.book(symbol).best_at(self._clock.now_us())
        return {
            "bidPrice": instrument.format_price(best.bid),
            "bidQty": instrument.format_quantity(best.bid_quantity),
            "askPrice": instrument.format_price(best.ask),
            "askQty": instrument.format_quantity(best.ask_quantity),
        }

    def _minutes(self, symbol: str, start_us: int, view_us: int) -> list[Kline]:
        begin = max(self._market.history(symbol).start_us, start_us)
        return self._market.klines(symbol, "1m", begin, view_us=max(view_us, begin))

    def _make_day(self, symbol: str, now_us: int) -> Row:
        """24 hours that end with the last whole minute."""
        instrument = self._market.instrument(symbol)
        history = self._market.history(symbol)
        view_us = max(now_us - 1, history.start_us)
        bars = self._minutes(symbol, now_us - DAY_US, view_us)
        traded = [bar for bar in bars if bar.trade_count]
        row = _statistics(instrument, bars, traded)
        row |= {
            "openTime": view_us,
            "closeTime": view_us,
            "lastQty": self._last_quantity(symbol, view_us),
        }
        if instrument.market == "spot":
            before = history.close_before(max(now_us - DAY_US, history.start_us) // MINUTE_US)
            row["prevClosePrice"] = instrument.format_price(before)
        return row

    def _last_quantity(self, symbol: str, view_us: int) -> str:
        history = self._market.history(symbol)
        stop = max(history.agg_id_from(view_us + 1), history.first_agg_id + 1)
        tape = history.orders_by_id(stop - 1, stop)
        last = int(tape.slot_start[-1] + tape.counted[-1]) - 1
        return history.instrument.format_quantity(int(tape.slot_quantity[last]))


def _statistics(instrument: Instrument, bars: list[Kline], traded: list[Kline]) -> Row:
    price = instrument.format_price
    opening = traded[0].open if traded else bars[-1].close
    closing = bars[-1].close
    volume, quote_volume = _sum(traded, "volume"), _sum(traded, "quote_volume")
    change = closing - opening
    sign = "-" if change < 0 else ""
    average = quote_volume * instrument.quote_divisor // volume if volume else 0
    percent = abs(change) * 100_000 // opening
    return {
        "symbol": instrument.symbol,
        "priceChange": sign + price(abs(change)),
        "priceChangePercent": f"{sign}{percent // 1000}.{percent % 1000:03d}",
        "weightedAvgPrice": price(average),
        "lastPrice": price(closing),
        "openPrice": price(opening),
        "highPrice": price(max((bar.high for bar in traded), default=closing)),
        "lowPrice": price(min((bar.low for bar in traded), default=closing)),
        "volume": instrument.format_quantity(volume),
        "quoteVolume": instrument.format_quote(quote_volume),
        "firstId": traded[0].first_id if traded else -1,
        "lastId": traded[-1].last_id if traded else -1,
        "count": sum(bar.trade_count for bar in traded),
    }


def _sum(bars: list[Kline], column: str) -> int:
    return sum(int(getattr(bar, column)) for bar in bars)
