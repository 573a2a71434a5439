"""What REST serves of a market: rows as the exchange prints them, bounded by what is visible."""

from typing import Any, Protocol

from simulator.cache import BoundedCache
from simulator.clock import DAY_US, MINUTE_US, Clock
from simulator.market.instruments import Instrument, MarketName
from simulator.market.intervals import Interval
from simulator.market.market import Market
from simulator.wire.frames import US_PER_MS, agg_trade_rows, kline_row, trade_rows

Row = dict[str, Any]


class UnavailableError(LookupError):
    """The venue cannot serve this; told to the client as error −1000."""


class Venue(Protocol):
    """A market behind REST: the simulated one, or one made from recordings."""

    name: MarketName

    def now_us(self) -> int:
        """The exchange's time."""

    def listed(self) -> tuple[Instrument, ...]:
        """All listings."""

    def listed_since_us(self, symbol: str) -> int:
        """When the symbol was listed."""

    def klines(
        self,
        symbol: str,
        interval: Interval,
        start_us: int | None,
        end_us: int | None,
        limit: int | None,
        *,
        unit_us: int,
        is_oracle: bool = False,
    ) -> list[list[int | str]]:
        """Kline rows; the oracle has neither lag nor limit."""

    def agg_trades(
        self,
        symbol: str,
        *,
        from_id: int | None,
        start_us: int | None,
        end_us: int | None,
        limit: int,
        unit_us: int,
    ) -> list[Row]:
        """aggTrade rows by id or by inclusive times, or the latest."""

    def trades(self, symbol: str, *, from_id: int | None, limit: int, unit_us: int) -> list[Row]:
        """Trade rows from an id on, or the latest."""

    def ticker(self, symbol: str, *, unit_us: int) -> Row:
        """Statistics of the last 24 hours."""


class MarketVenue:
    """The simulated market.

    Args:
        kline_lag_us: REST klines leave out trades younger than this.
        trade_lag_us: as much for trades.
    """

    def __init__(
        self,
        name: MarketName,
        market: Market,
        clock: Clock,
        *,
        kline_lag_us: int,
        trade_lag_us: int,
    ) -> None:
        self.name: MarketName = name
        self.market = market
        self._clock = clock
        self._kline_lag_us = kline_lag_us
        self._trade_lag_us = trade_lag_us
        self._tickers: BoundedCache[tuple[str, int], Row] = BoundedCache(10_000)

    def now_us(self) -> int:
        return self._clock.now_us()

    def listed(self) -> tuple[Instrument, ...]:
        return self.market.instruments

    def listed_since_us(self, symbol: str) -> int:
        return self.market.history(symbol).start_us

    def klines(
        self,
        symbol: str,
        interval: Interval,
        start_us: int | None,
        end_us: int | None,
        limit: int | None,
        *,
        unit_us: int,
        is_oracle: bool = False,
    ) -> list[list[int | str]]:
        view_us = self.now_us() - (0 if is_oracle else self._kline_lag_us)
        instrument = self.market.instrument(symbol)
        rows = self.market.klines(symbol, interval, start_us, end_us, view_us=view_us, limit=limit)
        return [kline_row(instrument, row, unit_us=unit_us) for row in rows]

    def agg_trades(
        self,
        symbol: str,
        *,
        from_id: int | None,
        start_us: int | None,
        end_us: int | None,
        limit: int,
        unit_us: int,
    ) -> list[Row]:
        tape = self.market.agg_trades(
            symbol,
            view_us=self.now_us() - self._trade_lag_us,
            from_id=from_id,
            start_us=start_us,
            end_us=end_us,
            limit=limit,
        )
        return agg_trade_rows(tape, unit_us=unit_us)

    def trades(self, symbol: str, *, from_id: int | None, limit: int, unit_us: int) -> list[Row]:
        history = self.market.history(symbol)
        stop_agg = history.agg_id_from(self.now_us() - self._trade_lag_us + 1)
        if from_id is None:
            tape = self.market.agg_trades(
                symbol, view_us=self.now_us() - self._trade_lag_us, limit=limit
            )
            return trade_rows(tape, unit_us=unit_us)[-limit:]
        first = history.ids_before(history.minute_of_trade(from_id))[0]
        if first >= stop_agg:
            return []
        last_minute_id = history.ids_before(history.minute_of_trade(from_id) + 1)[0]
        stop = min(stop_agg, last_minute_id + limit)
        rows = trade_rows(history.orders_by_id(first, stop), unit_us=unit_us)
        return [row for row in rows if int(row["id"]) >= from_id][:limit]

    def ticker(self, symbol: str, *, unit_us: int) -> Row:
        now_us = self.now_us()
        minute_us = now_us // MINUTE_US * MINUTE_US
        row = self._tickers.get((symbol, minute_us), lambda: self._make_ticker(symbol, minute_us))
        close_us = int(row["closeTime"])
        return row | {
            "openTime": (close_us - DAY_US) // unit_us,
            "closeTime": close_us // unit_us,
        }

    def _make_ticker(self, symbol: str, now_us: int) -> Row:
        """24 hours that end with the last whole minute."""
        instrument = self.market.instrument(symbol)
        history = self.market.history(symbol)
        view_us = max(now_us - 1, history.start_us)
        bars = self.market.klines(
            symbol, "1m", max(history.start_us, now_us - DAY_US), view_us=view_us
        )
        traded = [bar for bar in bars if bar.trade_count]
        price, quantity = instrument.format_price, instrument.format_quantity
        opening = traded[0].open if traded else bars[-1].close
        closing = bars[-1].close
        volume = sum(bar.volume for bar in traded)
        quote_volume = sum(bar.quote_volume for bar in traded)
        change = closing - opening
        sign = "-" if change < 0 else ""
        scaled = quote_volume * instrument.quote_divisor // volume if volume else 0
        percent = abs(change) * 100_000 // opening
        row: Row = {
            "symbol": symbol,
            "priceChange": sign + price(abs(change)),
            "priceChangePercent": f"{sign}{percent // 1000}.{percent % 1000:03d}",
            "weightedAvgPrice": price(scaled),
            "lastPrice": price(closing),
            "openPrice": price(opening),
            "highPrice": price(max((bar.high for bar in traded), default=closing)),
            "lowPrice": price(min((bar.low for bar in traded), default=closing)),
            "volume": quantity(volume),
            "quoteVolume": instrument.format_quote(quote_volume),
            "openTime": view_us,
            "closeTime": view_us,
            "firstId": traded[0].first_id if traded else -1,
            "lastId": traded[-1].last_id if traded else -1,
            "count": sum(bar.trade_count for bar in traded),
        }
        return row


def symbol_entry(venue: Venue, instrument: Instrument) -> Row:
    """A symbol of exchangeInfo."""
    price, quantity = instrument.format_price, instrument.format_quantity
    highest = price(10**6 * 10**instrument.price_decimals)
    largest = quantity(9 * 10**9 * 10**instrument.quantity_decimals)
    tick, step = price(instrument.tick), quantity(instrument.step)
    filters: list[Row] = [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": highest, "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": largest, "stepSize": step},
    ]
    entry: Row = {
        "symbol": instrument.symbol,
        "status": "TRADING",
        "baseAsset": instrument.base_asset,
        "quoteAsset": instrument.quote_asset,
    }
    if instrument.market == "spot":
        return entry | {
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": filters,
            "permissions": [],
            "permissionSets": [["SPOT"]],
        }
    return entry | {
        "pair": instrument.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": venue.listed_since_us(instrument.symbol) // US_PER_MS,
        "marginAsset": instrument.quote_asset,
        "pricePrecision": instrument.price_decimals,
        "quantityPrecision": instrument.quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "orderTypes": ["LIMIT", "MARKET"],
        "filters": filters,
    }


def rate_limits(market: MarketName, weight_limit: int) -> list[Row]:
    """The `rateLimits` of exchangeInfo."""
    weight = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": weight_limit,
    }
    if market == "um":
        return [weight]
    raw = {
        "rateLimitType": "RAW_REQUESTS",
        "interval": "MINUTE",
        "intervalNum": 5,
        "limit": 300_000,
    }
    return [weight, raw]
