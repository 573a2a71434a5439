"""Generates the trades of any minutes from seed, symbol and minute alone.

A minute has A taker orders (one aggTrade each) and E further fills spread over them. A and E come
from one hash of the minute, so ids are prefix sums and no minute depends on earlier ones. Order i
of A is in the i-th A-th part of the minute, so times are sorted by construction; some orders share
the time of the previous one, like a sweep through the book.

On the futures the further fills of a few orders are not market trades: a skipped id, a void fill
(price 0, quantity 0), or a fill of the insurance fund or auto-deleveraging. They use up ids, and
neither klines nor aggTrades count them, as recorded.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from simulator.clock import MINUTE_US
from simulator.market.instruments import Instrument
from simulator.market.noise import IntArray, derive_key, hash_counters, take_bits
from simulator.market.trades.columns import FillKind, TradeColumns

_INDEX_BITS = 20  # bits for order and fill numbers within a minute
_ONE = 1 << 16  # fixed point of rates
SUBTICK = 8  # the price path is in 1/256 tick

# Price path: value noise in octaves. Period in minutes, amplitude in 1/65536 of the price.
_PERIODS = (57_600, 11_520, 2_880, 720, 180, 45, 11, 3, 1)
_AMPLITUDES = (16_000, 7_000, 3_400, 1_500, 700, 320, 150, 70, 35)
_NOISE_BITS = 15
_BASIS_PERCENT_A_YEAR = 5  # of a dated contract
_YEAR_MINUTES = 525_600


class TradeGenerator:
    """Generates the trades of one symbol. Ids are prefix sums, which the caller passes in.

    Args:
        generation: number of the instrument under this name; each has different trades.
    """

    def __init__(self, instrument: Instrument, *, seed: int, generation: int = 0) -> None:
        self.instrument = instrument
        labels: tuple[str, ...] = (instrument.market, instrument.symbol)
        if generation:
            labels = (*labels, f"generation {generation}")
        self._count_key = derive_key(seed, *labels, "counts")
        self._path_key = derive_key(
            seed, instrument.market, instrument.path_symbol, *labels[2:], "path"
        )
        self._order_key = derive_key(seed, *labels, "orders")
        self._fill_key = derive_key(seed, *labels, "fills")

    def counts(self, minutes: IntArray) -> tuple[IntArray, IntArray]:
        """Return orders and further fills of each minute (minutes since the epoch)."""
        hashes = hash_counters(self._count_key, minutes)
        mean = self.instrument.orders_per_day * _ONE // 1440
        burst = take_bits(hashes, low=0, count=16)
        # 0.3 + 2.1·u² has mean 1; the day swings from 0.6 to 1.4 around 15:00 UTC.
        rate = 19_661 + ((burst * burst >> 16) * 137_626 >> 16)
        distance = np.abs((minutes - 180) % 1440 - 720)
        rate = rate * (91_750 - distance * 52_429 // 720) >> 16
        orders = (mean * rate // _ONE + take_bits(hashes, low=16, count=16)) >> 16
        further = (orders * (_ONE // 2) + take_bits(hashes, low=32, count=16)) >> 16
        further[orders == 0] = 0
        return orders, further

    def path(self, minutes: IntArray) -> IntArray:
        """Return the mid price at the start of each minute, in 1/256 ticks.

        A dated contract is above its index, and meets it at its delivery.
        """
        index, delivery_us = self.index(minutes), self.instrument.delivery_us
        if delivery_us is None:
            return index
        left = np.maximum(delivery_us // MINUTE_US - minutes, 0)
        above: IntArray = index * left * _BASIS_PERCENT_A_YEAR // (100 * _YEAR_MINUTES)
        return index + above

    def index(self, minutes: IntArray) -> IntArray:
        """Return the index price at the start of each minute, in 1/256 ticks."""
        periods = np.array(_PERIODS, dtype=np.int64)[:, None]
        octaves = np.arange(len(_PERIODS), dtype=np.int64)[:, None] << 40
        index, phase = np.divmod(minutes[None, :], periods)
        left = take_bits(hash_counters(self._path_key, index + octaves), low=0, count=16)
        right = take_bits(hash_counters(self._path_key, index + octaves + 1), low=0, count=16)
        noise = (left * (periods - phase) + right * phase) // periods - (1 << _NOISE_BITS)
        swing = (noise * np.array(_AMPLITUDES, dtype=np.int64)[:, None]).sum(axis=0)
        one = 1 << (_NOISE_BITS + 16)
        result: IntArray = (self.instrument.typical_price * (one + swing)) >> (
            _NOISE_BITS + 16 - SUBTICK
        )
        return result

    def mids(self, times_us: IntArray) -> IntArray:
        """Return the price path at each time, in 1/256 ticks; memory grows with their span."""
        return _at(self.path, times_us)

    def indexes(self, times_us: IntArray) -> IntArray:
        """Return the index price at each time, in 1/256 ticks; memory grows with their span."""
        return _at(self.index, times_us)

    def make(
        self,
        first_minute: int,
        orders: IntArray,
        further: IntArray,
        *,
        first_agg_id: int,
        first_id: int,
    ) -> TradeColumns:
        """Generate the trades of consecutive minutes from `first_minute`, given their counts."""
        instrument = self.instrument
        spot = instrument.market == "spot"
        minutes = first_minute + np.arange(len(orders), dtype=np.int64)
        count = int(orders.sum())
        row = np.repeat(np.arange(len(orders), dtype=np.int64), orders)
        begins = np.cumsum(orders) - orders
        number = np.arange(count, dtype=np.int64) - begins[row]
        minute_index = minutes << _INDEX_BITS
        hashes = hash_counters(self._order_key, minute_index[row] + number)

        offset = _stratified(hashes, number, orders[row])
        if instrument.trades_at_bounds:
            offset[number == 0] = 0
            offset[(number == orders[row] - 1) & (number > 0)] = MINUTE_US - 1
        if not spot:
            offset -= offset % 1_000
        buyer_is_maker = take_bits(hashes, low=28, count=1)
        price = self._prices(minutes, row, offset, hashes, buyer_is_maker)
        slots = 1 + self._spread(minute_index, orders, further, begins, count)
        slot_start = np.cumsum(slots) - slots
        tail_kind = np.zeros(count, dtype=np.int64) if spot else _tail_kinds(hashes, slots)
        fills = np.where(tail_kind == FillKind.MARKET, slots, 1)

        slot_quantity = self._quantities(minute_index, orders, further, slots, row)
        if not spot:
            is_empty = (tail_kind == FillKind.SKIPPED) | (tail_kind == FillKind.VOID)
            empty = np.repeat(is_empty, slots)
            empty[slot_start] = False
            slot_quantity[empty] = 0
        slot_quote = instrument.quote_amounts(np.repeat(price, slots), slot_quantity)

        def of_market(values: IntArray) -> IntArray:
            if spot:
                return _sum_runs(values, slot_start)
            return np.where(fills == slots, _sum_runs(values, slot_start), values[slot_start])

        return TradeColumns(
            instrument=instrument,
            time_us=minutes[row] * MINUTE_US + offset,
            agg_id=first_agg_id + np.arange(count, dtype=np.int64),
            first_id=first_id + slot_start,
            slots=slots,
            fills=fills,
            tail_kind=tail_kind,
            price=price,
            buyer_is_maker=buyer_is_maker.astype(np.bool_),
            quantity=of_market(slot_quantity),
            quote=of_market(slot_quote),
            slot_start=slot_start,
            slot_quantity=slot_quantity,
            slot_quote=slot_quote,
        )

    def _prices(
        self,
        minutes: IntArray,
        row: IntArray,
        offset: IntArray,
        hashes: npt.NDArray[np.uint64],
        buyer_is_maker: IntArray,
    ) -> IntArray:
        """Add to the path an excursion within the minute, half a spread and some noise."""
        nodes = self.path(np.append(minutes, minutes[-1] + 1))
        offset_ms = offset // 1_000
        mid = nodes[row] + (nodes[1:] - nodes[:-1])[row] * offset_ms // 60_000
        grain = max(1 << SUBTICK, self.instrument.typical_price >> 6)  # about 60 ppm, ≥ 1 tick
        bump = take_bits(hash_counters(self._path_key, minutes | 1 << 60), low=0, count=16)
        bump = (bump - (1 << 15)) * (8 * grain) >> 15
        mid += bump[row] * (offset_ms * (60_000 - offset_ms)) // 900_000_000
        mid += (take_bits(hashes, low=30, count=12) - 2_048) * grain >> 12
        mid += np.where(buyer_is_maker == 1, -(1 << SUBTICK), 1 << SUBTICK) // 2
        ticks = np.maximum((mid + (1 << SUBTICK - 1)) >> SUBTICK, 1)
        result: IntArray = ticks * self.instrument.tick
        return result

    def _spread(
        self,
        minute_index: IntArray,
        orders: IntArray,
        further: IntArray,
        begins: IntArray,
        count: int,
    ) -> IntArray:
        """Return how many of the minute's further fills each order has."""
        row = np.repeat(np.arange(len(orders), dtype=np.int64), further)
        number = np.arange(len(row), dtype=np.int64) - (np.cumsum(further) - further)[row]
        drawn = take_bits(
            hash_counters(self._fill_key ^ 0x5555, minute_index[row] + number), low=0, count=16
        )
        within = orders[row]
        owner = begins[row] + (number * within + (drawn * within >> 16)) // further[row]
        return np.bincount(owner, minlength=count).astype(np.int64)

    def _quantities(
        self,
        minute_index: IntArray,
        orders: IntArray,
        further: IntArray,
        slots: IntArray,
        row: IntArray,
    ) -> IntArray:
        """Return the quantity of each fill: a product of three uniforms, so most are small."""
        per_minute = orders + further
        slot_begins = np.cumsum(per_minute) - per_minute
        slot_row = np.repeat(row, slots)
        index = np.arange(len(slot_row), dtype=np.int64) + (minute_index - slot_begins)[slot_row]
        hashes = hash_counters(self._fill_key, index)
        drawn = take_bits(hashes, low=0, count=21)
        drawn *= take_bits(hashes, low=21, count=21)
        drawn >>= 21
        drawn *= take_bits(hashes, low=42, count=21)
        drawn >>= 12  # a fraction of 2^30
        steps = (drawn * self.instrument.largest_fill >> 30) + 1
        result: IntArray = steps * self.instrument.step
        return result


def _at(path: Callable[[IntArray], IntArray], times_us: IntArray) -> IntArray:
    """Return a path that is linear within each minute at some times."""
    minutes, offset_us = np.divmod(times_us, MINUTE_US)
    first = int(minutes.min())
    nodes = path(np.arange(first, int(minutes.max()) + 2, dtype=np.int64))
    begin, end = nodes[minutes - first], nodes[minutes - first + 1]
    result: IntArray = begin + (end - begin) * offset_us // MINUTE_US
    return result


def _stratified(hashes: npt.NDArray[np.uint64], number: IntArray, orders: IntArray) -> IntArray:
    """Return sorted offsets in the minute (µs), one per equal part; some orders share one."""
    part = take_bits(hashes, low=0, count=26) * MINUTE_US >> 26
    offset = (number * MINUTE_US + part) // orders
    shares = (take_bits(hashes, low=26, count=2) == 0) & (number > 0)
    leader = np.maximum.accumulate(np.where(shares, 0, np.arange(len(number))))
    result: IntArray = offset[leader]
    return result


def _tail_kinds(hashes: npt.NDArray[np.uint64], slots: IntArray) -> IntArray:
    """Return the kind of each order's further fills on the futures; one in ten skips ids."""
    drawn = take_bits(hashes, low=42, count=12)
    kinds = np.zeros(len(slots), dtype=np.int64)
    kinds[drawn < 400] = FillKind.SKIPPED
    kinds[drawn < 40] = FillKind.VOID
    kinds[drawn < 6] = FillKind.INSURANCE_FUND
    kinds[drawn < 3] = FillKind.ADL
    kinds[slots == 1] = FillKind.MARKET
    return kinds


def _sum_runs(values: IntArray, starts: IntArray) -> IntArray:
    if len(starts) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.add.reduceat(values, starts)
