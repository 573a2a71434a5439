"""The answers under `/futures/data`: open interest, ratios, taker volumes, basis, delivery prices.

They serve the last thirty days. Their rows have the times of multiples of the period; taker volumes
are those of the period that ends then. USD-M has them by symbol, COIN-M by pair and contract type.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from simulator.clock import DAY_US
from simulator.market.continuous import CONTINUOUS_TYPES, ContractPeriod, contract_periods
from simulator.market.derivatives.open_interest import (
    PERIODS_US,
    RatioName,
    TakerVolumes,
    statistics_times,
)
from simulator.market.derivatives.prices import MARK_DECIMALS
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.instruments import MarketName, decimal_formatter
from simulator.market.market import SimulatedMarket
from simulator.market.noise import IntArray
from simulator.market.statistics import closes, taker_volumes
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import MarketVenue, contracts_of_pair
from simulator.wire.open_interest import (
    base_value,
    basis_row,
    long_short_row,
    open_interest_statistics_row,
    pair_open_interest_row,
    taker_ratio_row,
    taker_volumes_row,
)
from simulator.wire.payloads import US_PER_MS

Row = dict[str, Any]

_MAX_ROWS = 500
_DEFAULT_ROWS = 30
_SPAN_US = 30 * DAY_US
_BASE_DECIMALS = 8
_ALL_TYPES = "ALL"


class StatisticsEndpoints:
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

    # --- contracts

    def _of_symbol(self, params: QueryParameters) -> list[ContractPeriod]:
        symbol = self._listed(params.required("symbol"))
        return [ContractPeriod(symbol, self._market.history(symbol).start_us, None)]

    def _of_perpetual(self, params: QueryParameters) -> list[ContractPeriod]:
        """Return the perpetual contract of a pair, which stands for the pair.

        As documented, one of the ratios takes a `symbol`; any of them may be sent here.
        """
        name = params.text("symbol") if params.text("pair") is None else params.text("pair")
        listed = [one for one in self._venue.listed() if name in (one.symbol, one.pair)]
        pair = listed[0].pair if listed else params.required("pair")
        contracts_of_pair(self._venue, pair)
        return contract_periods(self._market, pair, "PERPETUAL")

    def _of_type(self, params: QueryParameters, *, has_all: bool) -> list[ContractPeriod]:
        pair, kind = params.required("pair"), params.required("contractType")
        contracts_of_pair(self._venue, pair)
        kinds = [one for one in CONTINUOUS_TYPES if kind in (one, has_all and _ALL_TYPES)]
        if not kinds:
            raise ApiError(-1130, "parameter 'contractType' is invalid.")
        return [one for each in kinds for one in contract_periods(self._market, pair, each)]

    def _parts(
        self, periods: list[ContractPeriod], times: IntArray
    ) -> Iterator[tuple[DerivativeSeries, IntArray]]:
        """Yield each contract with those times at which it counts.

        A time that ends a period belongs to the contract of that period.
        """
        for symbol, from_us, until_us in periods:
            series = self._market.derivatives(symbol)
            is_own = times > from_us
            if until_us is None:
                is_own &= series.history.calendar.listed_mask(times)
            else:
                is_own &= times <= until_us
            if is_own.any():
                yield series, times[is_own]

    # --- rows

    def _times(
        self, params: QueryParameters, endpoint: str, periods: list[ContractPeriod]
    ) -> tuple[IntArray, int]:
        """Return the times of the rows, and the period in µs."""
        step_us = PERIODS_US.get(params.required("period"))
        if step_us is None:
            raise ApiError(-1130, "parameter 'period' is invalid.")
        limit = params.limit(default=_DEFAULT_ROWS, maximum=_MAX_ROWS, is_strict=True)
        start_us, end_us = params.time_us("startTime"), params.time_us("endTime", is_end=True)
        if start_us is not None and end_us is not None and start_us > end_us:
            raise ApiError(-1023, "Start time is greater than end time.")
        now_us = self._venue.now_us()
        oldest_us = now_us - _SPAN_US
        if start_us is not None and start_us < oldest_us:
            raise ApiError(-1130, "parameter 'startTime' is invalid.")
        if not periods:
            return np.empty(0, dtype=np.int64), step_us
        seen_us = now_us - self._venue.series_lag_us(endpoint, periods[0].symbol)
        last_us = seen_us if end_us is None else min(seen_us, end_us)
        times = statistics_times(max(oldest_us, start_us or 0), last_us, step_us)
        known = [own for _, own in self._parts(periods, times)]
        times = np.unique(np.concatenate(known)) if known else times[:0]
        return (times[-limit:] if start_us is None else times[:limit]), step_us

    def _rows(
        self,
        params: QueryParameters,
        endpoint: str,
        periods: list[ContractPeriod],
        make: Callable[[DerivativeSeries, IntArray, int], list[Row]],
    ) -> list[Row]:
        """Return the rows of an endpoint.

        Args:
            make: returns the rows of a series at some times, with the period in µs.
        """
        times, step_us = self._times(params, endpoint, periods)
        parts = self._parts(periods, times)
        rows = [row for series, own in parts for row in make(series, own, step_us)]
        return sorted(rows, key=lambda row: int(row["timestamp"]))

    def _sums(
        self,
        params: QueryParameters,
        endpoint: str,
        measure: Callable[[DerivativeSeries, IntArray, int], list[tuple[int, ...]]],
    ) -> list[tuple[int, tuple[int, ...]]]:
        """Return times and sums over the contracts of the pair that have the type."""
        periods = self._of_type(params, has_all=True)
        times, step_us = self._times(params, endpoint, periods)
        sums: dict[int, tuple[int, ...]] = {}
        for series, own in self._parts(periods, times):
            for time_us, amounts in zip(own.tolist(), measure(series, own, step_us), strict=True):
                before = sums.get(time_us, (0,) * len(amounts))
                sums[time_us] = tuple(map(sum, zip(before, amounts, strict=True)))
        return sorted(sums.items())

    # --- answers

    def open_interest(self, params: QueryParameters) -> list[Row]:
        """Answer `openInterestHist` of USD-M."""

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

        return self._rows(params, "openInterestHist", self._of_symbol(params), make)

    def pair_open_interest(self, params: QueryParameters) -> list[Row]:
        """Answer `openInterestHist` of COIN-M."""

        def measure(
            series: DerivativeSeries, times: IntArray, _step_us: int
        ) -> list[tuple[int, ...]]:
            instrument = series.history.instrument
            return [
                (contracts, base_value(instrument, contracts, mark, _BASE_DECIMALS))
                for contracts, mark in zip(
                    series.served_open_interest(times), series.mark_prices(times), strict=True
                )
            ]

        found = self._sums(params, "openInterestHist", measure)
        pair, kind = params.required("pair"), params.required("contractType")
        return [
            pair_open_interest_row(pair, kind, contracts, value, time_us)
            for time_us, (contracts, value) in found
        ]

    def top_accounts(self, params: QueryParameters) -> list[Row]:
        """Answer `topLongShortAccountRatio`."""
        return self._ratios(params, "top accounts", "topLongShortAccountRatio")

    def top_positions(self, params: QueryParameters) -> list[Row]:
        """Answer `topLongShortPositionRatio`."""
        return self._ratios(params, "top positions", "topLongShortPositionRatio")

    def all_accounts(self, params: QueryParameters) -> list[Row]:
        """Answer `globalLongShortAccountRatio`."""
        return self._ratios(params, "all accounts", "globalLongShortAccountRatio")

    def _ratios(self, params: QueryParameters, name: RatioName, endpoint: str) -> list[Row]:
        def make(series: DerivativeSeries, times: IntArray, _step_us: int) -> list[Row]:
            instrument = series.history.instrument
            return [
                long_short_row(instrument, share, time_us, is_position=name == "top positions")
                for share, time_us in zip(
                    series.long_shares(name, times), times.tolist(), strict=True
                )
            ]

        is_cm = self._venue.name == "cm"
        periods = self._of_perpetual(params) if is_cm else self._of_symbol(params)
        return self._rows(params, endpoint, periods, make)

    def taker_ratio(self, params: QueryParameters) -> list[Row]:
        """Answer `takerlongshortRatio` of USD-M."""

        def make(series: DerivativeSeries, times: IntArray, step_us: int) -> list[Row]:
            instrument = series.history.instrument
            found = taker_volumes(self._market, instrument.symbol, times, step_us)
            return [
                taker_ratio_row(instrument, volumes, time_us)
                for volumes, time_us in zip(found, times.tolist(), strict=True)
            ]

        return self._rows(params, "takerlongshortRatio", self._of_symbol(params), make)

    def taker_volumes(self, params: QueryParameters) -> list[Row]:
        """Answer `takerBuySellVol` of COIN-M."""

        def measure(
            series: DerivativeSeries, times: IntArray, step_us: int
        ) -> list[tuple[int, ...]]:
            instrument = series.history.instrument
            unit = 10 ** (instrument.quote_decimals - _BASE_DECIMALS)
            return [
                (one.buy, one.sell, one.quote_buy // unit, one.quote_sell // unit)
                for one in taker_volumes(self._market, instrument.symbol, times, step_us)
            ]

        found = self._sums(params, "takerBuySellVol", measure)
        pair, kind = params.required("pair"), params.required("contractType")
        return [
            taker_volumes_row(pair, kind, TakerVolumes(*amounts), time_us)
            for time_us, amounts in found
        ]

    def basis(self, params: QueryParameters) -> list[Row]:
        """Answer `basis`: the last price against the index price."""
        kind = params.text("contractType") or ""

        def make(series: DerivativeSeries, times: IntArray, _step_us: int) -> list[Row]:
            instrument = series.history.instrument
            prices = closes(self._market, instrument.symbol, times)
            return [
                basis_row(instrument, kind, price, index, time_us)
                for price, index, time_us in zip(
                    prices, series.index_prices(times), times.tolist(), strict=True
                )
            ]

        return self._rows(params, "basis", self._of_type(params, has_all=False), make)

    def delivery_prices(self, params: QueryParameters) -> list[Row]:
        """Answer `delivery-price`: the latest first; prices are numbers, as documented."""
        pair = params.required("pair")
        contracts_of_pair(self._venue, pair)
        show = decimal_formatter(MARK_DECIMALS, MARK_DECIMALS)
        return [
            {
                "deliveryTime": delivery_us // US_PER_MS,
                "deliveryPrice": msgspec.Raw(show(price).encode()),
            }
            for delivery_us, price in self._venue.delivery_prices(pair)
        ]


Answer = Callable[[StatisticsEndpoints, QueryParameters], list[Row]]

_WINDOW = ("period", "startTime", "endTime", "limit")
_SYMBOL = ("symbol", *_WINDOW)
_PAIR = ("pair", "symbol", *_WINDOW)
_CONTRACT = ("pair", "contractType", *_WINDOW)


def statistics_endpoints(market: MarketName) -> list[tuple[str, Answer, tuple[str, ...]]]:
    """Return name, answer and parameters of each endpoint of a futures market."""
    ratio = _PAIR if market == "cm" else _SYMBOL
    shared: list[tuple[str, Answer, tuple[str, ...]]] = [
        ("topLongShortAccountRatio", StatisticsEndpoints.top_accounts, ratio),
        ("topLongShortPositionRatio", StatisticsEndpoints.top_positions, ratio),
        ("globalLongShortAccountRatio", StatisticsEndpoints.all_accounts, ratio),
        ("basis", StatisticsEndpoints.basis, _CONTRACT),
        ("delivery-price", StatisticsEndpoints.delivery_prices, ("pair",)),
    ]
    if market == "cm":
        return [
            *shared,
            ("openInterestHist", StatisticsEndpoints.pair_open_interest, _CONTRACT),
            ("takerBuySellVol", StatisticsEndpoints.taker_volumes, _CONTRACT),
        ]
    return [
        *shared,
        ("openInterestHist", StatisticsEndpoints.open_interest, _SYMBOL),
        ("takerlongshortRatio", StatisticsEndpoints.taker_ratio, _SYMBOL),
    ]
