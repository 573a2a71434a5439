"""All derivative series of one contract: pure functions of seed and time, changed by faults.

Faults change the future alone: another funding interval, settlements that are not recorded, an
added liquidation, periods in which open interest is served as a negative number.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.derivatives.funding import (
    DEFAULT_CAP,
    DEFAULT_INTERVAL_HOURS,
    HOUR_US,
    FundingSchedule,
    IntervalChange,
    Settlement,
)
from simulator.market.derivatives.liquidations import (
    Liquidation,
    bankruptcy_price,
    liquidations,
)
from simulator.market.derivatives.open_interest import RatioName, long_shares, open_interest
from simulator.market.derivatives.price_klines import PriceKline, PriceName, price_klines
from simulator.market.derivatives.prices import (
    MARK_DECIMALS,
    delivery_price,
    index_prices,
    mark_prices,
)
from simulator.market.history import History
from simulator.market.intervals import Interval
from simulator.market.noise import IntArray

_AVERAGED_US = (30 * SECOND_US, 20 * SECOND_US, 10 * SECOND_US, 0)
_MAX_INTERVAL_US = 24 * HOUR_US


class MarkPrice(NamedTuple):
    """Prices and funding rate in units of 10^-8.

    Attributes:
        average: mean of the mark prices of the last half minute.
        settle: the estimated settle price.
        funding_rate: expected rate of the next settlement; None without funding.
        next_funding_us: the first funding time at or after `time_us`; None without funding.
    """

    time_us: int
    mark: int
    average: int
    index_price: int
    settle: int
    funding_rate: int | None
    next_funding_us: int | None


class FundingInfo(NamedTuple):
    """Funding terms of a contract, in 10^-8; `updated_us` is when they came into force."""

    interval_hours: int
    cap: int
    updated_us: int

    @property
    def is_default(self) -> bool:
        """Whether the exchange does not list the contract, as nothing was adjusted."""
        return (self.interval_hours, self.cap) == (DEFAULT_INTERVAL_HOURS, DEFAULT_CAP)


class DerivativeSeries:
    """The derivative series of one contract.

    Attributes:
        funding: the schedule of a perpetual contract; None for a dated one.
        injected: liquidations of faults.
        negative: periods (end exclusive) whose open interest is served as a negative number.
    """

    def __init__(self, history: History, *, seed: int) -> None:
        self.history = history
        self._seed = seed
        self.funding: FundingSchedule | None = None
        if history.instrument.has_funding:
            self.funding = FundingSchedule(history.instrument, seed)
        self.injected: tuple[Liquidation, ...] = ()
        self.negative: tuple[tuple[int, int], ...] = ()

    # --- prices

    def mark_price(self, time_us: int) -> MarkPrice:
        """Return prices and funding as of the whole second of a time.

        A time that is exactly a funding time belongs to the settlement at that time.
        """
        listed_us = self.history.listed_since_us(time_us)
        moments = np.array([max(time_us - ago, listed_us) for ago in _AVERAGED_US], dtype=np.int64)
        marks: list[int] = mark_prices(self.history, moments, seed=self._seed).tolist()
        index = int(index_prices(self.history, moments[-1:], seed=self._seed)[0])
        average = sum(marks) // len(marks)
        if self.funding is None:
            return MarkPrice(time_us, marks[-1], average, index, index, None, None)
        rate = self.funding.predicted_rate(time_us)
        funding_us = self.funding.next_funding_us(time_us)
        return MarkPrice(time_us, marks[-1], average, index, index, rate, funding_us)

    def mark_prices(self, times_us: IntArray) -> list[int]:
        """Return the mark price in 10^-8 at each of some ascending times."""
        if len(times_us) == 0:
            return []
        marks: list[int] = mark_prices(self.history, times_us, seed=self._seed).tolist()
        return marks

    def index_prices(self, times_us: IntArray) -> list[int]:
        """Return the index price in 10^-8 at each of some ascending times."""
        if len(times_us) == 0:
            return []
        prices: list[int] = index_prices(self.history, times_us, seed=self._seed).tolist()
        return prices

    def delivery_price(self, delivery_us: int) -> int:
        """Return the settlement price of a dated contract in 10^-8."""
        return delivery_price(self.history, delivery_us, seed=self._seed)

    def klines(
        self, name: PriceName, interval: Interval, first_us: int, last_us: int, *, view_us: int
    ) -> list[PriceKline]:
        """Return klines of a price; see `price_klines`."""
        return price_klines(
            self.history, name, interval, first_us, last_us, view_us=view_us, seed=self._seed
        )

    # --- funding

    def settlements(self, from_us: int, until_us: int) -> list[Settlement]:
        """Return the recorded settlements of funding times `from_us … until_us - 1`, ascending."""
        if self.funding is None:
            return []
        from_us = max(from_us, self.history.start_us)
        return [
            one
            for one in self.funding.settlements(from_us, until_us)
            if self.history.calendar.state(one.funding_us) in ("trading", "halted")
        ]

    def latest_settlements(self, until_us: int, count: int) -> list[Settlement]:
        """Return the last `count` recorded settlements before a time, ascending."""
        span_us = count * 8 * HOUR_US + _MAX_INTERVAL_US
        while True:
            from_us = until_us - span_us
            found = self.settlements(from_us, until_us)
            if len(found) >= count or from_us <= self.history.start_us:
                return found[-count:]
            span_us *= 2

    def funding_info(self, time_us: int) -> FundingInfo | None:
        """Return the terms in force at a time; None without funding."""
        if self.funding is None:
            return None
        changed_us = self.funding.changed_us(time_us)
        start_us = self.history.listed_since_us(time_us)
        hours = self.funding.interval_hours(time_us)
        return FundingInfo(hours, self.funding.cap, max(start_us, changed_us or start_us))

    # --- open interest

    def open_interest(self, times_us: IntArray) -> list[int]:
        """Return true open interest in quantity units at each time."""
        found: list[int] = open_interest(
            self.history.instrument, times_us, seed=self._seed
        ).tolist()
        return found

    def served_open_interest(self, times_us: IntArray) -> list[int]:
        """Return open interest as the exchange serves it: negative while a fault says so."""
        return [
            -amount if self._is_negative(time_us) else amount
            for time_us, amount in zip(times_us.tolist(), self.open_interest(times_us), strict=True)
        ]

    def _is_negative(self, time_us: int) -> bool:
        return any(start_us <= time_us < stop_us for start_us, stop_us in self.negative)

    def long_shares(self, name: RatioName, times_us: IntArray) -> list[int]:
        """Return the share of long accounts or positions in 1/10000 at each time."""
        shares: list[int] = long_shares(
            self.history.instrument, name, times_us, seed=self._seed
        ).tolist()
        return shares

    # --- liquidations

    def liquidations(self, minute: int) -> list[Liquidation]:
        """Return the last liquidation of each second of a minute."""
        return liquidations(self.history, minute, seed=self._seed, injected=self.injected)

    def next_liquidation_minute(self, minute: int) -> int | None:
        """Return the first minute from `minute` on that may have a liquidation; None: none."""
        added = [one.time_us // MINUTE_US for one in self.injected]
        candidates = [one for one in added if one >= minute]
        traded = self.history.next_traded_minute(minute)
        if traded is not None:
            candidates.append(traded)
        return min(candidates, default=None)

    def make_liquidation(self, time_us: int, *, is_sell: bool, quantity: int) -> Liquidation:
        """Return a liquidation at the index price of a time."""
        instrument = self.history.instrument
        (index,) = self.index_prices(np.array([time_us], dtype=np.int64))
        unit = int(10 ** (MARK_DECIMALS - instrument.price_decimals)) * instrument.tick
        price = max(1, index // unit) * instrument.tick
        limit = bankruptcy_price(self.history, price, is_sell=is_sell, parts=1)
        return Liquidation(time_us, is_sell, limit, price, quantity, quantity)

    # --- faults

    def set_intervals(self, changes: tuple[IntervalChange, ...]) -> None:
        """Set the funding intervals of faults; nothing before the next one may differ."""
        if self.funding is not None:
            self.funding = replace(self.funding, changes=changes)

    def set_missing(self, periods: tuple[tuple[int, int], ...]) -> None:
        """Set the periods whose settlements are not recorded."""
        if self.funding is not None:
            self.funding = replace(self.funding, missing=periods)
