"""Mark price, index price and premium index of a contract, as integers of 10^-8.

The index is the price path that trades of the perpetual contract follow, with a change of at most
0.004 % each second; all contracts of a pair have the same. The mark price adds a slow premium of at
most 0.05 % to the path of the contract's own trades. Both change on whole seconds and are constant
between, so a client that receives every frame of `markPrice@1s` has all values. The premium index
changes every five seconds, as recorded klines count 12 values a minute.

Functions take ascending times that span at most some weeks, because memory grows with the span.
"""

import numpy as np

from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.history import History
from simulator.market.noise import IntArray, derive_key, hash_counters, take_bits

MARK_DECIMALS = 8
PREMIUM_STEP_US = 5 * SECOND_US
_PREMIUM_PERIOD_US = 10 * MINUTE_US
_MAX_PREMIUM = 50_000  # parts per 10^8
_MAX_PREMIUM_NOISE = 20_000  # of the premium index, parts per 10^8
_INDEX_CHANGE = 25_000  # the index changes by at most one part of this within a second
_HALF = 1 << 15
_SETTLED_US = 60 * MINUTE_US


def index_prices(history: History, times_us: IntArray, *, seed: int) -> IntArray:
    """Return the index price of the pair at each time."""
    path = history.index_prices(times_us // SECOND_US * SECOND_US, decimals=MARK_DECIMALS)
    return _moved(history, path, times_us, seed)


def mark_prices(history: History, times_us: IntArray, *, seed: int) -> IntArray:
    """Return the mark price at each time."""
    path = history.fair_prices(times_us // SECOND_US * SECOND_US, decimals=MARK_DECIMALS)
    fair = _moved(history, path, times_us, seed)
    result: IntArray = fair + fair * _premiums(history, times_us, seed=seed) // 10**8
    return result


def _moved(history: History, path: IntArray, times_us: IntArray, seed: int) -> IntArray:
    """Return a path with the change of each second, which contracts of a pair share."""
    key = derive_key(seed, history.instrument.market, history.instrument.path_symbol, "index")
    drawn = take_bits(hash_counters(key, times_us // SECOND_US), low=0, count=16) - _HALF
    result: IntArray = path + path * drawn // _HALF // _INDEX_CHANGE
    return result


def delivery_price(history: History, delivery_us: int, *, seed: int) -> int:
    """Return the settlement price of a dated contract: the mean index of the last hour.

    That it is the mean of an hour is an assumption.
    """
    times = np.arange(delivery_us - _SETTLED_US, delivery_us, SECOND_US, dtype=np.int64)
    values: list[int] = index_prices(history, times, seed=seed).tolist()
    return sum(values) // len(values)


def premium_indexes(history: History, times_us: IntArray, *, seed: int) -> IntArray:
    """Return the premium index at each time: the contract's premium over its index."""
    steps = times_us // PREMIUM_STEP_US
    key = derive_key(seed, history.instrument.market, history.instrument.symbol, "premium index")
    drawn = take_bits(hash_counters(key, steps), low=0, count=16) - _HALF
    slow = _premiums(history, steps * PREMIUM_STEP_US, seed=seed)
    result: IntArray = slow + drawn * _MAX_PREMIUM_NOISE // _HALF
    return result


def _premiums(history: History, times_us: IntArray, *, seed: int) -> IntArray:
    """Return the premium of the mark price in parts per 10^8, interpolated over ten minutes."""
    key = derive_key(seed, history.instrument.market, history.instrument.symbol, "premium")
    number, phase = np.divmod(times_us // SECOND_US * SECOND_US, _PREMIUM_PERIOD_US)
    left = take_bits(hash_counters(key, number), low=0, count=16)
    right = take_bits(hash_counters(key, number + 1), low=0, count=16)
    drawn = (left * (_PREMIUM_PERIOD_US - phase) + right * phase) // _PREMIUM_PERIOD_US
    result: IntArray = drawn * 2 * _MAX_PREMIUM // (1 << 16) - _MAX_PREMIUM
    return result
