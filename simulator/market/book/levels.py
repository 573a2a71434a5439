"""The levels of an order book, computed from its best prices and a tick count called turn.

Levels behind the best prices come from three lattices: a fine, fast-changing one near the best
prices, and coarser, slower ones further away. Each cell of a lattice has one rung, which holds a
quantity (or none) for a number of turns. The rungs that change at a turn form an arithmetic
progression, so a diff between two turns does not need to visit the others.
"""

from typing import NamedTuple

import numpy as np

from simulator.market.instruments import Instrument
from simulator.market.noise import (
    HashArray,
    IntArray,
    derive_key,
    hash_counters,
    take_bits,
)

# Cell size as a fraction of the typical price, cells per side (0: all), turns between changes of a
# rung.
_LATTICES = ((300_000, 200, 32), (60_000, 600, 256), (3_000, 0, 4_096))
_STRIDE = 0x9E3D  # odd: spreads the changes of neighbouring rungs over the turns


class BestLevels(NamedTuple):
    """Best bid and ask: prices in ticks, quantities in quantity units."""

    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int


class _Lattice(NamedTuple):
    """One rung per cell of `spacing` ticks, up to `reach` ticks from the best prices."""

    spacing: int
    reach: int
    period: int  # turns between changes of a rung; a power of two
    key: int

    def ticks(self, cells: IntArray) -> IntArray:
        """Return the price ticks of the rungs in cells."""
        drawn = take_bits(hash_counters(self.key, cells), low=0, count=31)
        result: IntArray = cells * self.spacing + drawn % self.spacing
        return result

    def drawn(self, cells: IntArray, turn: int) -> HashArray:
        """Return 64 random bits for the content of each rung at a turn."""
        epoch = (turn + cells * _STRIDE % self.period) // self.period
        return hash_counters(self.key ^ 0x5555, (cells << 36) + epoch)

    def window(self, touch: BestLevels, highest: int) -> tuple[int, int]:
        """Return the lowest and the highest tick that has rungs."""
        return max(1, touch.bid - self.reach), min(touch.ask + self.reach, highest)

    def cells(self, lowest: int, highest: int) -> IntArray:
        """Return the cells of a range of ticks."""
        return np.arange(lowest // self.spacing, highest // self.spacing + 1, dtype=np.int64)

    def changed_cells(self, lowest: int, highest: int, first_turn: int, turn: int) -> IntArray:
        """Return the cells of a range whose rungs change after `first_turn` and up to `turn`."""
        begin, stop = lowest // self.spacing, highest // self.spacing + 1
        if turn - first_turn >= self.period:
            return np.arange(begin, stop, dtype=np.int64)
        inverse = pow(_STRIDE, -1, self.period)
        parts = [
            np.arange(begin + (-one * inverse - begin) % self.period, stop, self.period)
            for one in range(first_turn + 1, turn + 1)
        ]
        return np.concatenate((np.zeros(0, dtype=np.int64), *parts))


class Levels:
    """All levels of one symbol's book."""

    def __init__(self, instrument: Instrument, *, seed: int) -> None:
        self._instrument = instrument
        typical = instrument.typical_price
        self.highest = 2 * typical
        labels = (instrument.market, instrument.symbol, "book")
        self._lattices = tuple(
            _Lattice(
                max(1, typical // parts),
                cells * max(1, typical // parts) or self.highest,
                period,
                derive_key(seed, *labels, str(parts)),
            )
            for parts, cells, period in _LATTICES
        )

    @property
    def finest(self) -> int:
        """Ticks between rungs near the best prices."""
        return self._lattices[0].spacing

    def rows(self, touch: BestLevels, turn: int, *, reach: int) -> tuple[IntArray, IntArray]:
        """Return bids and asks as (price, quantity) rows, best first, within `reach` ticks."""
        ticks, amounts = [], []
        for lattice in self._lattices:
            lowest, highest = lattice.window(touch, self.highest)
            cells = lattice.cells(max(lowest, touch.bid - reach), min(highest, touch.ask + reach))
            rungs = lattice.ticks(cells)
            held = self._held(lattice.drawn(cells, turn))
            kept = (rungs >= max(lowest, touch.bid - reach)) & (held > 0)
            kept &= rungs <= min(highest, touch.ask + reach)
            kept &= (rungs < touch.bid) | (rungs > touch.ask)
            ticks.append(rungs[kept])
            amounts.append(held[kept])
        all_ticks, all_amounts = np.concatenate(ticks), np.concatenate(amounts)
        order = np.argsort(all_ticks, kind="stable")
        all_ticks, all_amounts = all_ticks[order], all_amounts[order]
        starts = np.flatnonzero(np.diff(all_ticks, prepend=-1))
        if len(starts):
            all_amounts = np.add.reduceat(all_amounts, starts)
            all_ticks = all_ticks[starts]
        levels = self._units(all_ticks, all_amounts)
        split = int(np.searchsorted(all_ticks, touch.bid))
        tick = self._instrument.tick
        best_bid = np.array([[touch.bid * tick, touch.bid_quantity]])
        best_ask = np.array([[touch.ask * tick, touch.ask_quantity]])
        return (
            np.concatenate((best_bid, levels[:split][::-1])),
            np.concatenate((best_ask, levels[split:])),
        )

    def changes(
        self, before: BestLevels, before_turn: int, after: BestLevels, after_turn: int
    ) -> tuple[IntArray, IntArray]:
        """Return bids and asks that differ between two books, best first; quantity 0: removed."""
        ticks = self._candidates(before, before_turn, after, after_turn)
        bids, asks = [], []
        for touch, turn in ((before, before_turn), (after, after_turn)):
            amounts = self._amounts(ticks, touch, turn)
            bids.append(np.where(ticks <= touch.bid, amounts, 0))
            asks.append(np.where(ticks >= touch.ask, amounts, 0))
        bid_rows, ask_rows = bids[0] != bids[1], asks[0] != asks[1]
        step = self._instrument.step
        return (
            self._units(ticks[bid_rows], bids[1][bid_rows] // step)[::-1],
            self._units(ticks[ask_rows], asks[1][ask_rows] // step),
        )

    def _candidates(
        self, before: BestLevels, before_turn: int, after: BestLevels, after_turn: int
    ) -> IntArray:
        """Return the ticks of all rungs that may differ, ascending and unique."""
        low, high = min(before.bid, after.bid), max(before.ask, after.ask)
        best = [before.bid, before.ask, after.bid, after.ask]
        ticks = [np.array(best, dtype=np.int64)]
        for lattice in self._lattices:
            one = lattice.window(before, self.highest)
            other = lattice.window(after, self.highest)
            lowest, highest = min(one[0], other[0]), max(one[1], other[1])
            cells = [
                lattice.changed_cells(lowest, highest, before_turn, after_turn),
                lattice.cells(low, high),
            ]
            # a moved window adds and removes rungs
            for edges in ((one[0], other[0]), (one[1], other[1])):
                if edges[0] != edges[1]:
                    cells.append(lattice.cells(min(edges), max(edges)))
            ticks.append(lattice.ticks(np.concatenate(cells)))
        return np.unique(np.concatenate(ticks))

    def _amounts(self, ticks: IntArray, touch: BestLevels, turn: int) -> IntArray:
        """Return the quantity of a book at each given tick, in quantity units."""
        total = np.zeros(len(ticks), dtype=np.int64)
        for lattice in self._lattices:
            lowest, highest = lattice.window(touch, self.highest)
            cells = ticks // lattice.spacing
            is_rung = lattice.ticks(cells) == ticks
            is_rung &= (ticks >= lowest) & (ticks <= highest)
            total += np.where(is_rung, self._held(lattice.drawn(cells, turn)), 0)
        total[(ticks >= touch.bid) & (ticks <= touch.ask)] = 0
        total *= self._instrument.step
        total[ticks == touch.bid] = touch.bid_quantity
        total[ticks == touch.ask] = touch.ask_quantity
        return total

    def _held(self, drawn: HashArray) -> IntArray:
        """Return quantities in steps: zero for an eighth of the rungs, mostly small otherwise."""
        product = take_bits(drawn, low=0, count=15) * take_bits(drawn, low=15, count=15) >> 15
        held = 1 + (product * self._instrument.largest_fill >> 13)
        held[take_bits(drawn, low=30, count=3) == 0] = 0
        result: IntArray = held
        return result

    def _units(self, ticks: IntArray, steps: IntArray) -> IntArray:
        instrument = self._instrument
        return np.stack((ticks * instrument.tick, steps * instrument.step), axis=1)
