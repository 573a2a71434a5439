"""Funding of perpetual contracts: when it is settled, and at which rate.

Settlements are at multiples of the interval since midnight, UTC. Busy contracts settle every eight
hours; others every eight, four or one hours, and a quarter of them change between these at the
start of a period of thirty days. A fault can set another interval from any time on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from simulator.clock import DAY_US, MINUTE_US
from simulator.market.instruments import Instrument
from simulator.market.noise import derive_key, hash_counter

HOUR_US = 60 * MINUTE_US
DEFAULT_INTERVAL_HOURS = 8
DEFAULT_CAP = 2_000_000  # of the rate, in 10^-8
INTERVALS_HOURS = (8, 4, 1)
_PERIOD_US = 30 * DAY_US
_BUSY_ORDERS = 100_000  # a day; such contracts always have the default interval and cap
_MAX_DELAY_MS = 11
_MAX_DRIFT = 5_000  # of the predicted rate, eight hours before the settlement
_MS = 1_000


class Settlement(NamedTuple):
    """One settlement of funding.

    Attributes:
        funding_us: the full hour that it belongs to.
        time_us: the recorded time, 0 to 11 ms later.
        interval_hours: interval that ended with it.
        rate: in 10^-8.
    """

    funding_us: int
    time_us: int
    interval_hours: int
    rate: int


class IntervalChange(NamedTuple):
    """The interval in force from a time on."""

    from_us: int
    hours: int


@dataclass(frozen=True, slots=True)
class FundingSchedule:
    """When a contract settles funding, at which rates.

    Attributes:
        changes: intervals set by faults, ascending.
        missing: periods (end exclusive) whose settlements the exchange does not record.
    """

    instrument: Instrument
    seed: int
    changes: tuple[IntervalChange, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    _drawn: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_drawn", hash_counter(self._key("funding interval"), 0))

    def _key(self, purpose: str) -> int:
        return derive_key(self.seed, self.instrument.market, self.instrument.symbol, purpose)

    @property
    def _is_busy(self) -> bool:
        return self.instrument.orders_per_day >= _BUSY_ORDERS

    @property
    def _varies(self) -> bool:
        """Whether the seed changes the interval from time to time."""
        return not self._is_busy and self._drawn & 3 == 0

    @property
    def cap(self) -> int:
        """Greatest rate, in 10^-8; the floor is its negative."""
        if self._is_busy or (self._drawn >> 8) & 3:
            return DEFAULT_CAP
        return DEFAULT_CAP + DEFAULT_CAP // 2

    # --- times

    def _change_before(self, time_us: int) -> IntervalChange | None:
        earlier = [change for change in self.changes if change.from_us <= time_us]
        return earlier[-1] if earlier else None

    def interval_hours(self, time_us: int) -> int:
        """Return the interval in force at a time."""
        change = self._change_before(time_us)
        if change is not None:
            return change.hours
        if self._is_busy:
            return DEFAULT_INTERVAL_HOURS
        drawn = self._drawn
        if self._varies:
            drawn = hash_counter(self._key("funding period"), time_us // _PERIOD_US)
        elif drawn & 4:
            return DEFAULT_INTERVAL_HOURS
        return INTERVALS_HOURS[(drawn >> 16) % len(INTERVALS_HOURS)]

    def changed_us(self, time_us: int) -> int | None:
        """Return when the interval in force at a time began; None: with the listing."""
        change = self._change_before(time_us)
        if change is not None:
            return change.from_us
        return time_us // _PERIOD_US * _PERIOD_US if self._varies else None

    def _next_change(self, time_us: int) -> int | None:
        later = [change.from_us for change in self.changes if change.from_us > time_us]
        if self._varies and self._change_before(time_us) is None:
            later.append((time_us // _PERIOD_US + 1) * _PERIOD_US)
        return min(later, default=None)

    def next_funding_us(self, time_us: int) -> int:
        """Return the first funding time at or after a time."""
        while True:
            step_us = self.interval_hours(time_us) * HOUR_US
            funding_us = -(-time_us // step_us) * step_us
            change_us = self._next_change(time_us)
            if change_us is None or funding_us < change_us:
                return funding_us
            time_us = change_us

    # --- rates

    def settlement(self, funding_us: int) -> Settlement:
        """Return the settlement at a funding time."""
        drawn = hash_counter(self._key("funding"), funding_us)
        delay_ms = (drawn >> 40) % (_MAX_DELAY_MS + 1) if drawn & 6 else 0
        return Settlement(
            funding_us,
            funding_us + delay_ms * _MS,
            self.interval_hours(funding_us - 1),
            self._rate(drawn),
        )

    def _rate(self, drawn: int) -> int:
        """Return mostly the 0.01 % of interest alone, else a rate within ±0.03 %, or the cap."""
        if not self._is_busy and (drawn >> 52) % 64 == 0:
            return self.cap if drawn & 1 else -self.cap
        return 10_000 if drawn & 1 else (drawn >> 8) % 60_001 - 30_000

    def predicted_rate(self, time_us: int) -> int:
        """Return the rate that the next settlement is expected to have.

        The prediction changes every minute and nears the settled rate, which it equals in the last
        minute before the settlement.
        """
        funding_us = self.next_funding_us(time_us)
        left = (funding_us - time_us) // MINUTE_US
        drawn = hash_counter(self._key("predicted funding"), time_us // MINUTE_US) & 0xFFFF
        drift = (drawn - (1 << 15)) * _MAX_DRIFT * left // (480 << 15)
        return max(-self.cap, min(self.cap, self.settlement(funding_us).rate + drift))

    def settlements(self, from_us: int, until_us: int) -> Iterator[Settlement]:
        """Yield the recorded settlements of funding times `from_us … until_us - 1`."""
        funding_us = self.next_funding_us(from_us)
        while funding_us < until_us:
            if not any(start_us <= funding_us < stop_us for start_us, stop_us in self.missing):
                yield self.settlement(funding_us)
            funding_us = self.next_funding_us(funding_us + 1)
