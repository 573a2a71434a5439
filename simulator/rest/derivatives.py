"""The answers of the endpoints that only futures have: prices, funding, open interest, ratios.

Endpoints under `/futures/data` serve the last thirty days. Their rows have the times of multiples
of the period; taker volumes are those of the period that ends then.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from simulator.clock import DAY_US, SECOND_US
from simulator.market.derivatives.funding import Settlement
from simulator.market.derivatives.open_interest import (
    PERIODS_US,
    RatioName,
    TakerVolumes,
    statistics_times,
)
from simulator.market.derivatives.price_klines import PriceName
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.intervals import UM_INTERVALS, parse_interval
from simulator.market.market import SimulatedMarket, kline_window
from simulator.market.noise import IntArray
from simulator.market.statistics import closes, taker_volumes
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import MarketVenue
from simulator.wire.derivatives import (
    funding_info_row,
    funding_rate_row,
    premium_index_row,
    price_kline_row,
)
from simulator.wire.open_interest import (
    basis_row,
    long_short_row,
    open_interest_row,
    open_interest_statistics_row,
    taker_ratio_row,
)
from simulator.wire.payloads import US_PER_MS

Row = dict[str, Any]

_MAX_PRICE_KLINES = 1_500
_MAX_FUNDING_RATES = 1_000
_DEFAULT_FUNDING_RATES = 100
_MAX_STATISTICS = 500
_DEFAULT_STATISTICS = 30
_STATISTICS_SPAN_US = 30 * DAY_US
_CONTRACT_TYPES = ("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER")


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
        pair = params.required("pair")
        for instrument in self._venue.listed():
            if instrument.pair == pair:
                return self._market.derivatives(instrument.symbol)
        raise ApiError(-4144, "Invalid pair")

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

    # --- open interest and ratios

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

    def _rows_of(
        self,
        params: QueryParameters,
        endpoint: str,
        series: DerivativeSeries,
        make: Callable[[DerivativeSeries, IntArray, int], list[Row]],
    ) -> list[Row]:
        """Return the rows of one endpoint under `/futures/data`.

        Args:
            make: returns the rows of a series at some times, with the period in µs.
        """
        period = params.required("period")
        step_us = PERIODS_US.get(period)
        if step_us is None:
            raise ApiError(-1130, "parameter 'period' is invalid.")
        limit = params.limit(default=_DEFAULT_STATISTICS, maximum=_MAX_STATISTICS, is_strict=True)
        start_us, end_us = self._span(params)
        now_us = self._venue.now_us()
        oldest_us = now_us - _STATISTICS_SPAN_US
        if start_us is not None and start_us < oldest_us:
            raise ApiError(-1130, "parameter 'startTime' is invalid.")
        history = series.history
        seen_us = self._seen_us(endpoint, history.instrument.symbol)
        first_us = max(oldest_us, history.start_us + 1, start_us or 0)
        times = statistics_times(
            first_us, min(seen_us, seen_us if end_us is None else end_us), step_us
        )
        times = times[history.calendar.listed_mask(times)]
        times = times[-limit:] if start_us is None else times[:limit]
        return make(series, times, step_us) if len(times) else []

    def open_interest_history(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `openInterestHist`."""

        def make(series: DerivativeSeries, times: IntArray, _step_us: int) -> list[Row]:
            instrument = series.history.instrument
            return [
                open_interest_statistics_row(instrument, amount, mark, time_us)
                for amount, mark, time_us in zip(
                    series.served_open_interest(times),
                    series.mark_prices(times),
                    times.tolist(),
                    strict=True,
                )
            ]

        return self._rows_of(params, "openInterestHist", self._series(params), make)

    def top_accounts(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `topLongShortAccountRatio`."""
        return self._ratios(params, "top accounts", "topLongShortAccountRatio")

    def top_positions(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `topLongShortPositionRatio`."""
        return self._ratios(params, "top positions", "topLongShortPositionRatio")

    def all_accounts(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `globalLongShortAccountRatio`."""
        return self._ratios(params, "all accounts", "globalLongShortAccountRatio")

    def _ratios(self, params: QueryParameters, name: RatioName, endpoint: str) -> Any:
        def make(series: DerivativeSeries, times: IntArray, _step_us: int) -> list[Row]:
            symbol = series.history.instrument.symbol
            shares = series.long_shares(name, times)
            return [
                long_short_row(symbol, share, time_us)
                for share, time_us in zip(shares, times.tolist(), strict=True)
            ]

        return self._rows_of(params, endpoint, self._series(params), make)

    def taker_ratio(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `takerlongshortRatio`."""

        def make(series: DerivativeSeries, times: IntArray, step_us: int) -> list[Row]:
            instrument = series.history.instrument
            found: list[TakerVolumes] = taker_volumes(
                self._market, instrument.symbol, times, step_us
            )
            return [
                taker_ratio_row(instrument, volumes, time_us)
                for volumes, time_us in zip(found, times.tolist(), strict=True)
            ]

        return self._rows_of(params, "takerlongshortRatio", self._series(params), make)

    def basis(self, params: QueryParameters, _unit_us: int) -> Any:
        """Answer `basis`: the last price against the index price."""
        series = self._of_pair(params)
        kind = params.required("contractType")
        if kind not in _CONTRACT_TYPES:
            raise ApiError(-1130, "parameter 'contractType' is invalid.")

        def make(series: DerivativeSeries, times: IntArray, _step_us: int) -> list[Row]:
            if kind != "PERPETUAL":
                return []  # the pair has no contract of this type
            instrument = series.history.instrument
            prices = closes(self._market, instrument.symbol, times)
            return [
                basis_row(instrument, kind, price, index, time_us)
                for price, index, time_us in zip(
                    prices, series.index_prices(times), times.tolist(), strict=True
                )
            ]

        return self._rows_of(params, "basis", series, make)


Answer = Callable[[DerivativeEndpoints, QueryParameters, int], Any]

_WINDOW = ("startTime", "endTime", "limit")
_STATISTICS = ("symbol", "period", *_WINDOW)

DERIVATIVE_ENDPOINTS: tuple[tuple[str, Answer, tuple[str, ...]], ...] = (
    ("markPriceKlines", DerivativeEndpoints.mark_klines, ("symbol", "interval", *_WINDOW)),
    ("indexPriceKlines", DerivativeEndpoints.index_klines, ("pair", "interval", *_WINDOW)),
    ("premiumIndexKlines", DerivativeEndpoints.premium_klines, ("symbol", "interval", *_WINDOW)),
    ("fundingRate", DerivativeEndpoints.funding_rate, ("symbol", *_WINDOW)),
    ("fundingInfo", DerivativeEndpoints.funding_info, ()),
    ("openInterest", DerivativeEndpoints.open_interest, ("symbol",)),
    (
        "futures/data/openInterestHist",
        DerivativeEndpoints.open_interest_history,
        _STATISTICS,
    ),
    ("futures/data/topLongShortAccountRatio", DerivativeEndpoints.top_accounts, _STATISTICS),
    ("futures/data/topLongShortPositionRatio", DerivativeEndpoints.top_positions, _STATISTICS),
    ("futures/data/globalLongShortAccountRatio", DerivativeEndpoints.all_accounts, _STATISTICS),
    ("futures/data/takerlongshortRatio", DerivativeEndpoints.taker_ratio, _STATISTICS),
    (
        "futures/data/basis",
        DerivativeEndpoints.basis,
        ("pair", "contractType", "period", *_WINDOW),
    ),
)
"""Name, answer and parameters of each endpoint; `futures/data/…` is the whole path."""
