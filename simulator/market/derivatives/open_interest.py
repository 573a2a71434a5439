"""Open interest and the ratios of long to short accounts, positions and taker volumes.

Open interest is value noise around a multiple of the contract's daily volume; the shares of long
accounts and positions are value noise between 30 % and 70 %. All have a value at each multiple of
five minutes. Taker volumes are sums over the trades of the period that ends at the row's time.
"""

from typing import Literal, NamedTuple

import numpy as np

from simulator.clock import DAY_US, MINUTE_US
from simulator.market.instruments import Instrument
from simulator.market.noise import IntArray, derive_key, hash_counters, take_bits

STATISTICS_STEP_US = 5 * MINUTE_US
RatioName = Literal["top accounts", "top positions", "all accounts"]
SHARE_ONE = 10_000  # shares are in 1/10000
_MAX_STEPS = 1 << 46  # keeps products below 63 bits
# Value noise in octaves: period in steps of five minutes, amplitude in 1/65536.
_OCTAVES = ((2_016, 12_000), (288, 6_000), (36, 2_500), (6, 1_000), (1, 300))


class TakerVolumes(NamedTuple):
    """Volumes bought and sold by takers, in quantity units and in quote units."""

    buy: int
    sell: int
    quote_buy: int
    quote_sell: int


def open_interest(instrument: Instrument, times_us: IntArray, *, seed: int) -> IntArray:
    """Return open interest in quantity units at each time, constant within five minutes."""
    # A mean fill is an eighth of the largest; contracts hold a third of a day's volume.
    daily = max(1, instrument.orders_per_day) * instrument.largest_fill // 8
    base = min(max(100, daily // 3), _MAX_STEPS)
    steps = base + (base * _noise(instrument, "open interest", times_us, seed=seed) >> 16)
    result: IntArray = np.maximum(1, steps) * instrument.step
    return result


def long_shares(
    instrument: Instrument, name: RatioName, times_us: IntArray, *, seed: int
) -> IntArray:
    """Return the share of long accounts or positions in 1/10000, constant within five minutes."""
    noise = _noise(instrument, name, times_us, seed=seed)
    result: IntArray = SHARE_ONE // 2 + noise * (SHARE_ONE // 5) // 21_800
    return result


def _noise(instrument: Instrument, purpose: str, times_us: IntArray, *, seed: int) -> IntArray:
    """Return noise within ±21,800."""
    key = derive_key(seed, instrument.market, instrument.symbol, purpose)
    steps = times_us // STATISTICS_STEP_US
    total = np.zeros(len(steps), dtype=np.int64)
    for number, (period, amplitude) in enumerate(_OCTAVES):
        index, phase = np.divmod(steps, period)
        octave = number << 40
        left = take_bits(hash_counters(key, index + octave), low=0, count=16)
        right = take_bits(hash_counters(key, index + octave + 1), low=0, count=16)
        drawn = (left * (period - phase) + right * phase) // period - (1 << 15)
        total += drawn * amplitude >> 15
    return total


def statistics_times(from_us: int, until_us: int, step_us: int = STATISTICS_STEP_US) -> IntArray:
    """Return the multiples of a step in `from_us … until_us` (inclusive)."""
    return np.arange(-(-from_us // step_us) * step_us, until_us + 1, step_us, dtype=np.int64)


PERIODS_US: dict[str, int] = {
    "5m": 5 * MINUTE_US,
    "15m": 15 * MINUTE_US,
    "30m": 30 * MINUTE_US,
    "1h": 60 * MINUTE_US,
    "2h": 120 * MINUTE_US,
    "4h": 240 * MINUTE_US,
    "6h": 360 * MINUTE_US,
    "12h": 720 * MINUTE_US,
    "1d": DAY_US,
}
"""Periods of the statistics by name."""
