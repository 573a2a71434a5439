"""The trades of a symbol across sessions: none in pauses, different ones in each generation."""

import functools
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from simulator.clock import MINUTE_US
from simulator.market.hours.calendar import TradingCalendar
from simulator.market.instruments import Instrument
from simulator.market.noise import IntArray, derive_key, hash_counter
from simulator.market.trades.columns import TradeColumns, join_trades, renumber, select
from simulator.market.trades.generator import TradeGenerator

# minute -> aggregate id and trade id of its first order
FirstIds = Callable[[int], tuple[int, int]]


def instrument_of(instrument: Instrument, generation: int, *, seed: int) -> Instrument:
    """Return the instrument of a generation: same units, 20 % to 65 % of the first one's price.

    The price must stay below the first one's, so that sums of a minute still fit in 64 bits.
    """
    if generation == 0:
        return instrument
    labels = (instrument.market, instrument.symbol, "generation", str(generation))
    percent = 20 + hash_counter(derive_key(seed, *labels), 0) % 46
    return replace(instrument, typical_price=max(1, instrument.typical_price * percent // 100))


class SessionTrades:
    """Generates the trades of any minutes under a calendar. The caller supplies ids."""

    def __init__(self, instrument: Instrument, calendar: TradingCalendar, *, seed: int) -> None:
        self._instrument = instrument
        self._calendar = calendar
        self._seed = seed
        self._partial_minutes = calendar.partial_minutes()
        self._listing_minutes = {
            session.start_us // MINUTE_US: session.generation for session in calendar.listings()
        }
        self._maker = functools.cache(self._make_maker)
        self._cut = functools.cache(self._make_partial_minute)

    def _make_maker(self, generation: int) -> TradeGenerator:
        instrument = instrument_of(self._instrument, generation, seed=self._seed)
        return TradeGenerator(instrument, seed=self._seed, generation=generation)

    def _generation(self, minute: int) -> int:
        return self._calendar.generation((minute + 1) * MINUTE_US - 1)

    def _is_plain_from(self, minute: int) -> bool:
        """Whether no session starts or ends from a minute on: the usual case, and the fast one."""
        begin_us = self._calendar.sessions[0].start_us
        return self._calendar.is_plain and minute * MINUTE_US > begin_us

    def mids(self, times_us: IntArray) -> IntArray:
        """Return the price path at each time, in 1/256 ticks."""
        return self._path(TradeGenerator.mids, times_us)

    def indexes(self, times_us: IntArray) -> IntArray:
        """Return the index price at each time, in 1/256 ticks."""
        return self._path(TradeGenerator.indexes, times_us)

    def _path(
        self, path: Callable[[TradeGenerator, IntArray], IntArray], times_us: IntArray
    ) -> IntArray:
        listings = list(self._calendar.listings())
        if len(listings) == 1:
            return path(self._maker(0), times_us)
        result = np.zeros(len(times_us), dtype=np.int64)
        number = np.searchsorted([one.start_us for one in listings[1:]], times_us, side="right")
        for index, listing in enumerate(listings):
            mask = number == index
            if mask.any():
                result[mask] = path(self._maker(listing.generation), times_us[mask])
        return result

    def counts(self, first_minute: int, stop_minute: int) -> tuple[IntArray, IntArray]:
        """Return orders and further fills of each minute; a listing's first minute has an order."""
        minutes = np.arange(first_minute, stop_minute, dtype=np.int64)
        if self._is_plain_from(first_minute):
            return self._maker(0).counts(minutes)
        orders, further = np.zeros_like(minutes), np.zeros_like(minutes)
        for session in self._calendar.sessions:
            low = max(first_minute, session.start_us // MINUTE_US)
            high = stop_minute
            if session.stop_us is not None:
                high = min(high, -(-session.stop_us // MINUTE_US))
            if low < high:
                part = slice(low - first_minute, high - first_minute)
                orders[part], further[part] = self._whole_counts(minutes[part])
        for minute in self._partial_minutes:
            if first_minute <= minute < stop_minute:
                cut = self._cut(minute)
                orders[minute - first_minute] = len(cut)
                further[minute - first_minute] = len(cut.slot_quantity) - len(cut)
        return orders, further

    def _whole_counts(self, minutes: IntArray) -> tuple[IntArray, IntArray]:
        """Return counts of minutes of one generation, ignoring pauses."""
        first = int(minutes[0])
        orders, further = self._maker(self._generation(first)).counts(minutes)
        if first in self._listing_minutes:
            orders[0] = max(1, int(orders[0]))
        return orders, further

    def make(
        self, first_minute: int, orders: IntArray, further: IntArray, first_ids: FirstIds
    ) -> TradeColumns:
        """Generate the trades of consecutive minutes, given their counts."""
        if self._is_plain_from(first_minute):
            agg_id, trade_id = first_ids(first_minute)
            return self._maker(0).make(
                first_minute, orders, further, first_agg_id=agg_id, first_id=trade_id
            )
        stop_minute = first_minute + len(orders)
        edges = {first_minute, stop_minute}
        for minute in self._partial_minutes:
            edges |= {minute, minute + 1}
        edges |= set(self._listing_minutes)
        inside = sorted(edge for edge in edges if first_minute <= edge <= stop_minute)
        parts = []
        for low, high in pairwise(inside):
            agg_id, trade_id = first_ids(low)
            if low in self._partial_minutes:
                parts.append(renumber(self._cut(low), agg_id, trade_id))
                continue
            part = slice(low - first_minute, high - first_minute)
            maker = self._maker(self._generation(low))
            trades = maker.make(
                low, orders[part], further[part], first_agg_id=agg_id, first_id=trade_id
            )
            parts.append(trades)
        return join_trades(parts)

    def _make_partial_minute(self, minute: int) -> TradeColumns:
        """Return the trades of a minute that are within a session, numbered from 0."""
        orders, further = self._whole_counts(np.array([minute], dtype=np.int64))
        maker = self._maker(self._generation(minute))
        trades = maker.make(minute, orders, further, first_agg_id=0, first_id=0)
        return renumber(select(trades, self._calendar.trading_mask(trades.time_us)), 0, 0)
