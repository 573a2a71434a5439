"""The answers of the endpoints that only futures have: prices, funding, current open interest."""

from collections.abc import Callable
from typing import Any

import numpy as np

from simulator.clock import SECOND_US
from simulator.market.derivatives.funding import Settlement
from simulator.market.derivatives.price_klines import PriceName
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.intervals import UM_INTERVALS, parse_interval
from simulator.market.market import SimulatedMarket, kline_window
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import MarketVenue, contracts_of_pair
from simulator.wire.derivatives import (
    funding_info_row,
    funding_rate_row,
    premium_index_row,
    price_kline_row,
)
from simulator.wire.open_interest import open_interest_row
from simulator.wire.payloads import US_PER_MS

Row = dict[str, Any]

_MAX_PRICE_KLINES = 1_500
_MAX_FUNDING_RATES = 1_000
_DEFAULT_FUNDING_RATES = 100


class DerivativeEndpoints:
    """The answers of one futures market.

    Args:
        listed: checks a symbol and returns it; raises the exchange's error for an unknown one.
    """

    def __init__(self, venue: MarketVenue, listed: Callable[[str], str]) -> None:
        self._venue = venue
        self._listed = listed

    @property
    def _market(self) -> SimulatedMarket:
        return self._venue.market

    def _series(self, params: QueryParameters) -> DerivativeSeries:
        return self._market.derivatives(self._listed(params.required("symbol")))

    def _of_pair(self, params: QueryParameters) -> DerivativeSeries:
        """Return the series of a contract of the pair: all of them have the same index."""
        contracts = contracts_of_pair(self._venue, params.required("pair"))
        return self._market.derivatives(contracts[0].symbol)

    def _seen_us(self, endpoint: str, symbol: str) -> int:
        """Return the time up to which the rows of an endpoint are visible."""
        return self._venue.now_us() - self._venue.series_lag_us(endpoint, symbol)

    def _span(self, params: QueryParameters) -> tuple[int | None, int | None]:
        start_us, end_us = params.time_us("startTime"), params.time_us("endTime", is_end=True)
        if start_us is not None and end_us is not None and start_us > end_us:
            raise ApiError(-1023, "Start time is greater than end time.")
        return start_us, end_us

    # --- prices

    def premium_index(self, symbol: str) -> Row:
        """Return a row of `premiumIndex`, as of the last second."""
        now_us = self._venue.now_us() // SECOND_US * SECOND_US
        series = self._market.derivatives(symbol)
        return premium_index_row(series.history.instrument, series.mark_price(now_us))

    def mark_klines(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `markPriceKlines`."""
        return self._klines(params, "mark", "markPriceKlines", self._series(params))

    def index_klines(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `indexPriceKlines`."""
        return self._klines(params, "index", "indexPriceKlines", self._of_pair(params))

    def premium_klines(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `premiumIndexKlines`."""
        return self._klines(params, "premium", "premiumIndexKlines", self._series(params))

    def _klines(
        self, params: QueryParameters, name: PriceName, endpoint: str, series: DerivativeSeries
    ) -> Any:
        text = params.required("interval")
        if text not in UM_INTERVALS:
            raise ApiError(-1120, "Invalid interval.")
        interval = parse_interval(text)
        limit = params.limit(default=500, maximum=_MAX_PRICE_KLINES, is_strict=True)
        start_us, end_us = self._span(params)
        view_us = self._seen_us(endpoint, series.history.instrument.symbol)
        window = kline_window(
            interval,
            first_us=series.history.start_us,
            view_us=view_us,
            start_us=start_us,
            end_us=end_us,
            limit=limit,
        )
        if window is None:
            return []
        return [
            price_kline_row(one) for one in series.klines(name, interval, *window, view_us=view_us)
        ]

    # --- funding

    def funding_rate(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `fundingRate`, ascending; without a symbol for all contracts."""
        symbol = params.text("symbol")
        limit = params.limit(
            default=_DEFAULT_FUNDING_RATES, maximum=_MAX_FUNDING_RATES, is_strict=True
        )
        start_us, end_us = self._span(params)
        if symbol is not None:
            names = [self._listed(symbol)]
        else:
            names = [instrument.symbol for instrument in self._venue.listed()]
        found: list[tuple[int, str, Settlement]] = []
        for name in names:
            series = self._market.derivatives(name)
            seen_us = self._seen_us("fundingRate", name)
            until_us = (seen_us if end_us is None else min(end_us, seen_us)) + 1
            if start_us is None:
                rows = series.latest_settlements(until_us, limit)
            else:
                # a recorded time may be some ms after its full hour
                rows = series.settlements(start_us // SECOND_US * SECOND_US, until_us)
            found += [
                (one.time_us, name, one)
                for one in rows
                if (start_us or 0) <= one.time_us < until_us
            ]
        found.sort(key=lambda row: row[:2])
        kept = found[-limit:] if start_us is None else found[:limit]
        return [self._funding_row(name, one) for _, name, one in kept]

    def _funding_row(self, symbol: str, settlement: Settlement) -> Row:
        times = np.array([settlement.funding_us], dtype=np.int64)
        (mark,) = self._market.derivatives(symbol).mark_prices(times)
        return funding_rate_row(symbol, settlement, mark)

    def funding_info(self, _params: QueryParameters, _unit_us: int) -> Any:
        """Answer `fundingInfo`: only contracts whose interval or cap was adjusted."""
        now_us = self._venue.now_us()
        rows = []
        for instrument in self._venue.listed():
            info = self._market.derivatives(instrument.symbol).funding_info(now_us)
            if info is not None and not info.is_default:
                rows.append(funding_info_row(instrument.symbol, info))
        return rows

    # --- open interest

    def open_interest(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `openInterest`: the current one."""
        series = self._series(params)
        now_us = self._venue.now_us()
        (amount,) = series.served_open_interest(np.array([now_us], dtype=np.int64))
        instrument = series.history.instrument
        return open_interest_row(
            instrument,
            amount,
            now_us // US_PER_MS,
            contract_type=self._venue.contract_type(instrument.symbol),
        )


Answer = Callable[[DerivativeEndpoints, QueryParameters, int], Any]

_WINDOW = ("startTime", "endTime", "limit")

DERIVATIVE_ENDPOINTS: tuple[tuple[str, Answer, tuple[str, ...]], ...] = (
    ("markPriceKlines", DerivativeEndpoints.mark_klines, ("symbol", "interval", *_WINDOW)),
    ("indexPriceKlines", DerivativeEndpoints.index_klines, ("pair", "interval", *_WINDOW)),
    ("premiumIndexKlines", DerivativeEndpoints.premium_klines, ("symbol", "interval", *_WINDOW)),
    ("fundingRate", DerivativeEndpoints.funding_rate, ("symbol", *_WINDOW)),
    ("fundingInfo", DerivativeEndpoints.funding_info, ()),
    ("openInterest", DerivativeEndpoints.open_interest, ("symbol",)),
)
"""Name, answer and parameters of each endpoint."""
