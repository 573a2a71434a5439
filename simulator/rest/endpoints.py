"""The answers of each REST endpoint, and a table of endpoints per market."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, SimulatedClock
from simulator.market.continuous import CONTINUOUS_TYPES
from simulator.market.instruments import MarketName
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, Interval, parse_interval
from simulator.rest.derivatives import DERIVATIVE_ENDPOINTS, DerivativeEndpoints
from simulator.rest.derivatives import Answer as DerivativeAnswer
from simulator.rest.exchange_info import exchange_info
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.statistics import Answer as StatisticsAnswer
from simulator.rest.statistics import StatisticsEndpoints, statistics_endpoints
from simulator.rest.tickers import Tickers
from simulator.rest.venue import (
    AggTradeQuery,
    KlineQuery,
    MarketVenue,
    Row,
    UnavailableError,
    Venue,
    contracts_of_pair,
)
from simulator.wire.payloads import US_PER_MS

_SYMBOL = re.compile(r"[A-Z0-9-_.]{1,40}\Z|[^\x00-\x7f]")
_HOUR_US = 3_600 * SECOND_US
_UM_AGG_TRADES_SPAN_US = 2 * DAY_US
# How old `historicalTrades` may be, and in which words the exchange says so.
_TRADES_AGE: dict[MarketName, tuple[int, str]] = {
    "um": (92 * DAY_US, "3 months"),
    "cm": (31 * DAY_US, "1 months"),
}
_CM_KLINES_SPAN_US = 200 * DAY_US
_UM_QUOTE_DECIMALS = 2  # recorded: quoteQty is truncated to this many
_MAX_KLINES: dict[MarketName, int] = {"spot": 1_000, "um": 1_500, "cm": 1_500}
_FUTURES_DEPTHS = (5, 10, 20, 50, 100, 500, 1_000)
_MAX_SYMBOLS = 100
_WINDOW = re.compile(r"([1-5]?[1-9]|[1-5]0)m\Z|(1?[1-9]|10|2[0-3])h\Z|[1-7]d\Z")
_WINDOW_UNITS_US = {"m": MINUTE_US, "h": _HOUR_US, "d": DAY_US}

_SEVERAL: dict[MarketName, tuple[str, ...]] = {
    "spot": ("symbol", "symbols", "symbolStatus"),
    "um": ("symbol",),
    "cm": ("symbol", "pair"),
}

FUTURES_DATA = "futures/data/"
"""Prefix of the endpoints whose whole path is their name, on both futures markets."""

Handler = Callable[[QueryParameters, int], Any]


@dataclass(frozen=True, slots=True)
class RestEndpoint:
    """One endpoint: its name after the version, its handler, and all parameters it takes."""

    name: str
    handler: Handler
    known: tuple[str, ...] = ()
    needs_key: bool = False


class RestEndpoints:
    """The answers of one market.

    A handler takes the parameters and the unit of times (µs), and returns a value to encode as
    JSON.

    Args:
        weight_limit: shown in exchangeInfo.
    """

    def __init__(self, venue: Venue, clock: SimulatedClock, *, weight_limit: int) -> None:
        self._venue = venue
        self._weight_limit = weight_limit
        self._is_um = venue.name == "um"
        self._is_cm = venue.name == "cm"
        self._is_spot = venue.name == "spot"
        self._tickers = Tickers(venue.market, clock) if isinstance(venue, MarketVenue) else None
        self._derivatives: DerivativeEndpoints | None = None
        self._statistics_of: StatisticsEndpoints | None = None
        if isinstance(venue, MarketVenue):
            self._derivatives = DerivativeEndpoints(venue, self._listed)
            self._statistics_of = StatisticsEndpoints(venue, self._listed)

    def table(self) -> list[RestEndpoint]:
        """Return all endpoints of the market."""
        window = ("symbol", "interval", "startTime", "endTime", "limit")
        several = _SEVERAL[self._venue.name]
        shared = [
            RestEndpoint("ping", lambda _params, _unit: {}),
            RestEndpoint("time", self._time),
            RestEndpoint(
                "exchangeInfo",
                self._exchange_info,
                ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"),
            ),
            RestEndpoint("klines", self._klines, (*window, "timeZone")),
            RestEndpoint(
                "aggTrades",
                self._agg_trades,
                ("symbol", "fromId", "startTime", "endTime", "limit"),
            ),
            RestEndpoint("trades", self._trades, ("symbol", "limit")),
            RestEndpoint(
                "historicalTrades",
                self._historical_trades,
                ("symbol", "limit", "fromId"),
                needs_key=not self._is_spot,
            ),
            RestEndpoint("depth", self._depth, ("symbol", "limit", "symbolStatus")),
            RestEndpoint("ticker/24hr", self._statistics, (*several, "type")),
            RestEndpoint("ticker/price", self._price, several),
            RestEndpoint("ticker/bookTicker", self._book_ticker, several),
        ]
        if not self._is_spot:
            return [
                *shared,
                RestEndpoint("premiumIndex", self._premium, several),
                RestEndpoint(
                    "continuousKlines",
                    self._continuous_klines,
                    ("pair", "contractType", *window[1:]),
                ),
                *(
                    RestEndpoint(name, self._of_contracts(answer), known)
                    for name, answer, known in DERIVATIVE_ENDPOINTS
                ),
                *(
                    RestEndpoint(FUTURES_DATA + name, self._of_statistics(answer), known)
                    for name, answer, known in statistics_endpoints(self._venue.name)
                ),
            ]
        return [
            *shared,
            RestEndpoint("uiKlines", self._klines, (*window, "timeZone")),
            RestEndpoint("avgPrice", self._average, ("symbol",)),
            RestEndpoint("ticker", self._window, (*several, "windowSize", "type")),
        ]

    # --- parameters

    def _symbol(self, params: QueryParameters) -> str:
        return self._listed(params.required("symbol"))

    def _listed(self, symbol: str) -> str:
        if not _SYMBOL.search(symbol):
            raise ApiError(
                -1100,
                "Illegal characters found in parameter 'symbol'; "
                "legal range is '^[A-Z0-9-_.]{1,20}$'.",
            )
        if all(instrument.symbol != symbol for instrument in self._venue.listed()):
            raise ApiError(-1121, "Invalid symbol.")
        return symbol

    def _named(self, params: QueryParameters) -> list[str] | None:
        """Return the symbols of `symbol`, `symbols` or `pair`; None if none was sent."""
        symbol, names = params.text("symbol"), params.text("symbols")
        pair = params.text("pair") if self._is_cm else None
        if pair is not None:
            if symbol is not None:
                raise ApiError(-1128, "Combination of optional parameters invalid.")
            return [one.symbol for one in contracts_of_pair(self._venue, pair)]
        if symbol is not None and names is not None:
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        if symbol is not None:
            return [self._listed(symbol)]
        if names is None:
            return None
        if not names.startswith("["):
            raise ApiError(-1100, "Illegal characters found in parameter 'symbols'.")
        return [self._listed(name) for name in params.names("symbols") or ()]

    def _interval(self, params: QueryParameters) -> Interval:
        name = params.required("interval")
        if name not in (SPOT_INTERVALS if self._is_spot else UM_INTERVALS):
            raise ApiError(-1120, "Invalid interval.")
        zone = params.text("timeZone") or "0" if self._is_spot else "0"
        try:
            return parse_interval(name, time_zone=zone)
        except ValueError as error:
            raise ApiError(-1130, "Data sent for parameter 'timeZone' is not valid.") from error

    def _span(self, params: QueryParameters) -> tuple[int | None, int | None]:
        """Return `startTime` and `endTime` in µs, both inclusive."""
        start_us, end_us = params.time_us("startTime"), params.time_us("endTime", is_end=True)
        is_both = start_us is not None and end_us is not None
        if is_both and not self._is_spot and start_us > end_us:  # type: ignore[operator]
            raise ApiError(-1023, "Start time is greater than end time.")
        return start_us, end_us

    def _simulated(self) -> tuple[MarketVenue, Tickers]:
        """Return the venue with its book and prices, which a recording does not have."""
        if not isinstance(self._venue, MarketVenue) or self._tickers is None:
            raise UnavailableError("a recording has no statistics and no order book")
        return self._venue, self._tickers

    # --- answers

    def _time(self, _params: QueryParameters, unit_us: int) -> Any:
        return {"serverTime": self._venue.now_us() // unit_us}

    def _exchange_info(self, params: QueryParameters, unit_us: int) -> Any:
        return exchange_info(
            self._venue,
            params,
            self._named(params),
            weight_limit=self._weight_limit,
            unit_us=unit_us,
        )

    def _klines(self, params: QueryParameters, unit_us: int) -> Any:
        query = self._kline_query(params, self._symbol(params))
        venue = self._venue
        if isinstance(venue, MarketVenue):
            text = venue.kline_text(query, unit_us=unit_us)
            if text is not None:
                return msgspec.Raw(text)
        return venue.klines(query, unit_us=unit_us)

    def _kline_query(self, params: QueryParameters, symbol: str) -> KlineQuery:
        interval = self._interval(params)
        limit = params.limit(
            default=500, maximum=_MAX_KLINES[self._venue.name], is_strict=not self._is_spot
        )
        start_us, end_us = self._span(params)
        if self._is_cm:
            start_us, end_us = self._within_200_days(start_us, end_us)
        return KlineQuery(
            symbol=symbol,
            interval=interval,
            start_us=start_us,
            end_us=end_us,
            limit=limit,
            is_latest=self._is_cm,
        )

    def _within_200_days(
        self, start_us: int | None, end_us: int | None
    ) -> tuple[int | None, int | None]:
        """Return the times of a page of klines on COIN-M, which starts at the end.

        As documented: a time that was not sent is 200 days from the other. The error is an
        assumption.
        """
        if start_us is not None and end_us is not None:
            if end_us - start_us >= _CM_KLINES_SPAN_US + US_PER_MS:
                raise ApiError(-1127, "More than 200 days between startTime and endTime.")
            return start_us, end_us
        if start_us is not None:
            return start_us, start_us + _CM_KLINES_SPAN_US
        latest_us = self._venue.now_us() if end_us is None else end_us
        return latest_us - _CM_KLINES_SPAN_US, end_us

    def _continuous_klines(self, params: QueryParameters, unit_us: int) -> Any:
        pair, kind = params.required("pair"), params.required("contractType")
        contracts = contracts_of_pair(self._venue, pair)
        wanted = next((known for known in CONTINUOUS_TYPES if known == kind), None)
        if wanted is None:
            raise ApiError(-1130, "Data sent for parameter 'contractType' is not valid.")
        symbol = next(
            (one.symbol for one in contracts if self._venue.contract_type(one.symbol) == wanted),
            None,
        )
        if symbol is None:
            raise ApiError(-1121, "Invalid symbol.")
        venue, _ = self._simulated()
        query = self._kline_query(params, symbol)
        return venue.continuous_klines(pair, wanted, query, unit_us=unit_us)

    def _agg_trades(self, params: QueryParameters, unit_us: int) -> Any:
        symbol = self._symbol(params)
        from_id = params.integer("fromId")
        start_us, end_us = self._span(params)
        if from_id is not None and (start_us is not None or end_us is not None):
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        limit = params.limit(default=500, maximum=1_000, is_strict=not self._is_spot)
        spans_too_much = (
            start_us is not None
            and end_us is not None
            # an end in ms includes its whole millisecond, which the exchange does not count here
            and end_us - start_us >= _HOUR_US + US_PER_MS
        )
        if not self._is_spot and spans_too_much:
            raise ApiError(-1127, "More than 1 hours between startTime and endTime.")
        query = AggTradeQuery(
            symbol=symbol, from_id=from_id, start_us=start_us, end_us=end_us, limit=limit
        )
        rows = self._venue.agg_trades(query, unit_us=unit_us)
        asked = from_id is not None or start_us is not None or end_us is not None
        if self._is_um and asked and rows:
            self._check_age(rows[0]["T"], _UM_AGG_TRADES_SPAN_US, "2 days")
        return [row | {"nq": row["q"]} for row in rows] if self._is_um else rows

    def _check_age(self, time_ms: int, span_us: int, words: str) -> None:
        """Refuse trades that are too old: futures serve only recent ones."""
        if time_ms * US_PER_MS < self._venue.now_us() - span_us:
            raise ApiError(-4166, f"Search window is restricted to recent {words}.")

    def _trades(self, params: QueryParameters, unit_us: int) -> Any:
        symbol = self._symbol(params)
        limit = params.limit(default=500, maximum=1_000, is_strict=not self._is_spot)
        return self._shown(self._venue.trades(symbol, from_id=None, limit=limit, unit_us=unit_us))

    def _historical_trades(self, params: QueryParameters, unit_us: int) -> Any:
        symbol = self._symbol(params)
        maximum = 1_000 if self._is_spot else 500
        limit = params.limit(default=500, maximum=maximum, is_strict=not self._is_spot)
        from_id = params.integer("fromId")
        rows = self._venue.trades(symbol, from_id=from_id, limit=limit, unit_us=unit_us)
        age = _TRADES_AGE.get(self._venue.name)
        if age is not None and from_id is not None and rows:
            self._check_age(rows[0]["time"], *age)
        return self._shown(rows)

    def _shown(self, rows: list[Row]) -> list[Row]:
        """Return trades with the fields of the market."""
        if not self._is_um:
            return rows
        return [
            row | {"quoteQty": _cut(row["quoteQty"], _UM_QUOTE_DECIMALS), "isRPITrade": False}
            for row in rows
        ]

    def _depth(self, params: QueryParameters, _unit_us: int) -> Any:
        symbol = self._symbol(params)
        if not self._is_spot:
            limit = params.limit(
                default=500, maximum=1_000, is_strict=True, allowed=_FUTURES_DEPTHS
            )
        else:
            limit = params.limit(default=100, maximum=5_000, is_strict=False)
            self._check_status(params, [symbol])
        venue, _ = self._simulated()
        return venue.depth(symbol, limit=limit)

    def _average(self, params: QueryParameters, unit_us: int) -> Any:
        symbol = self._symbol(params)
        return self._simulated()[1].average(symbol, unit_us=unit_us)

    def _is_mini(self, params: QueryParameters) -> bool:
        kind = params.text("type") or "FULL" if self._is_spot else "FULL"
        if kind not in ("FULL", "MINI"):
            raise ApiError(-1130, "Data sent for parameter 'type' is not valid.")
        return kind == "MINI"

    def _statistics(self, params: QueryParameters, unit_us: int) -> Any:
        is_mini = self._is_mini(params)
        _, tickers = self._simulated()
        return self._each(
            params, lambda symbol: tickers.statistics(symbol, is_mini=is_mini, unit_us=unit_us)
        )

    def _window(self, params: QueryParameters, unit_us: int) -> Any:
        text = params.text("windowSize") or "1d"
        if not _WINDOW.match(text):
            raise ApiError(-1130, "Data sent for parameter 'windowSize' is not valid.")
        if params.text("symbols") is None:
            params.required("symbol")
        span_us = int(text[:-1]) * _WINDOW_UNITS_US[text[-1]]
        is_mini = self._is_mini(params)
        _, tickers = self._simulated()
        return self._each(
            params,
            lambda symbol: tickers.window(symbol, span_us, is_mini=is_mini, unit_us=unit_us),
        )

    def _price(self, params: QueryParameters, _unit_us: int) -> Any:
        return self._each(params, self._simulated()[1].price)

    def _book_ticker(self, params: QueryParameters, _unit_us: int) -> Any:
        return self._each(params, self._simulated()[1].book_ticker)

    def _premium(self, params: QueryParameters, _unit_us: int) -> Any:
        return self._each(params, self._contracts().premium_index)

    def _contracts(self) -> DerivativeEndpoints:
        if self._derivatives is None:
            raise UnavailableError("a recording has no derivative series")
        return self._derivatives

    def _of_contracts(self, answer: DerivativeAnswer) -> Handler:
        return lambda params, unit_us: answer(self._contracts(), params, unit_us)

    def _of_statistics(self, answer: StatisticsAnswer) -> Handler:
        def handler(params: QueryParameters, _unit_us: int) -> Any:
            if self._statistics_of is None:
                raise UnavailableError("a recording has no statistics of contracts")
            return answer(self._statistics_of, params)

        return handler

    def _each(self, params: QueryParameters, make: Callable[[str], Any]) -> Any:
        """Return one object if `symbol` was sent, otherwise a list of the named or all symbols.

        COIN-M always returns a list.
        """
        names = self._named(params)
        if self._is_cm:
            return [make(one) for one in names or self._all_names()]
        if params.text("symbol") is not None and names is not None:
            self._check_status(params, names)
            return make(names[0])
        if names is not None and len(names) > _MAX_SYMBOLS:
            raise ApiError(-1101, f"Too many parameters; expected '{_MAX_SYMBOLS}'.")
        status = params.text("symbolStatus")
        chosen = names or self._all_names()
        return [make(one) for one in chosen if status in (None, self._venue.status(one))]

    def _all_names(self) -> list[str]:
        return [instrument.symbol for instrument in self._venue.listed()]

    def _check_status(self, params: QueryParameters, names: list[str]) -> None:
        wanted = params.text("symbolStatus")
        if wanted is not None and any(self._venue.status(name) != wanted for name in names):
            raise ApiError(-1220, "The symbol's status does not match the requested symbolStatus.")


def _cut(text: str, decimals: int) -> str:
    """Truncate a decimal text to `decimals`; pad shorter ones."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction[:decimals]:0<{decimals}}"
