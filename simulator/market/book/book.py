"""The order book of one symbol at any time, computed from seed, symbol, time and its trades.

The book changes in steps of 100 ms on spot and 50 ms on the futures. The best bid and ask of a step
follow from the last order, which traded at one of them. The levels behind them change on another
schedule (see `levels`). Update ids count steps and orders, so any state and any diff costs the
same.

Quiet symbols change only every tenth or fiftieth step. A step without a change and without an order
has no update id. Halts and delistings freeze the book; the next diff then spans all ids in between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulator.cache import BoundedCache
from simulator.clock import MINUTE_US
from simulator.market.book.levels import BestLevels, Levels
from simulator.market.history import History
from simulator.market.instruments import MarketName
from simulator.market.noise import IntArray, derive_key, hash_counter

STEP_US: dict[MarketName, int] = {"spot": 100_000, "um": 50_000, "cm": 50_000}
_IDS_A_TURN: dict[MarketName, int] = {"spot": 24, "um": 2_600, "cm": 2_600}
_STRIDES = (
    (5_000, 1),
    (100, 10),
    (0, 50),
)  # minimum orders per day, steps between changes of the levels
_CACHED_STATES = 4
_CACHED_MINUTES = 4


class BookTicker(NamedTuple):
    """Best bid and ask after one update; prices and quantities in instrument units."""

    time_us: int
    update_id: int
    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int


@dataclass(frozen=True, slots=True)
class BookSnapshot:
    """All levels after a step.

    Attributes:
        time_us: time of the step.
        bids, asks: rows of (price, quantity) in instrument units, best first.
    """

    time_us: int
    update_id: int
    bids: IntArray
    asks: IntArray


@dataclass(frozen=True, slots=True)
class BookDiff:
    """Changes from the snapshot with `previous_update_id` to the one with `last_update_id`.

    Attributes:
        first_update_id: `previous_update_id + 1` on spot; may be higher on the futures, where all
            symbols share one sequence of ids.
        bids, asks: rows of (price, quantity), best first; quantity 0 removes the level.
    """

    time_us: int
    previous_update_id: int
    first_update_id: int
    last_update_id: int
    bids: IntArray
    asks: IntArray


class _MinuteSteps(NamedTuple):
    """Orders of a minute, and how many each step has seen. Row 0 is the last earlier order."""

    next_agg_id: int  # id of the minute's first order
    time_us: list[int]  # of the orders, without row 0
    price: list[int]
    buyer_is_maker: list[bool]
    seen: list[int]  # orders of the minute up to each step


class OrderBook:
    """The order book of one symbol, past and future."""

    def __init__(self, history: History, *, seed: int) -> None:
        instrument = history.instrument
        labels = (instrument.market, instrument.symbol, "book")
        self.instrument = instrument
        self.step_us = STEP_US[instrument.market]
        self._history = history
        self._steps_a_minute = MINUTE_US // self.step_us
        self._stride = next(n for least, n in _STRIDES if instrument.orders_per_day >= least)
        self._ids_a_turn = _IDS_A_TURN[instrument.market]
        self._touch_key = derive_key(seed, *labels, "touch")
        self._gap_key = derive_key(seed, *labels, "gap")
        self._levels = Levels(instrument, seed=seed)
        # Keys start with the calendar's revision.
        self._states: BoundedCache[tuple[int, int], BookSnapshot] = BoundedCache(_CACHED_STATES)
        self._minutes: BoundedCache[tuple[int, int], _MinuteSteps] = BoundedCache(_CACHED_MINUTES)

    # --- steps and ids

    @property
    def start_us(self) -> int:
        """When the symbol, and so its book, starts."""
        return self._history.start_us

    def step_at(self, time_us: int) -> int:
        """Return the last step at or before a time (steps since the epoch).

        Raises:
            ValueError: the time is before the listing.
        """
        if time_us < self._history.start_us:
            raise ValueError(f"{self.instrument.symbol} is not listed at {time_us} µs")
        return time_us // self.step_us

    def update_id(self, step: int) -> int:
        """Return the id of the last update up to a step. Never falls; may stay the same."""
        step = self._moving(step)
        return step // self._stride * self._ids_a_turn + self._next_agg_id(step)

    def next_moving_step(self, step: int) -> int | None:
        """Return the first step from `step` on outside pauses; None if trading ended."""
        if self._moving(step) == step:
            return step
        opens_us = self._history.calendar.next_open(step * self.step_us)
        return None if opens_us is None else max(step, -(-opens_us // self.step_us))

    def _moving(self, step: int) -> int:
        """Return the step, or in a pause the first step after the end of the last session."""
        calendar = self._history.calendar
        if calendar.is_plain:
            return step
        last_us = calendar.last_open(step * self.step_us)
        return step if last_us is None else min(step, -(-(last_us + 1) // self.step_us))

    def step_of(self, update_id: int) -> int:
        """Return the first step that includes an update id, or the listing's first step."""
        low = self._history.start_us // self.step_us
        span = 1
        while self.update_id(low + span) < update_id:
            low, span = low + span, 2 * span
        high = low + span
        while low < high:
            middle = (low + high) // 2
            if self.update_id(middle) < update_id:
                low = middle + 1
            else:
                high = middle
        return low

    def _next_agg_id(self, step: int) -> int:
        minute = self._minute(step // self._steps_a_minute)
        return minute.next_agg_id + minute.seen[step % self._steps_a_minute]

    def _turns(self, step: int) -> bool:
        return step % self._stride == 0

    def _minute(self, minute: int) -> _MinuteSteps:
        key = (self._history.revision, minute)
        return self._minutes.get(key, lambda: self._make_minute(minute))

    def _make_minute(self, minute: int) -> _MinuteSteps:
        history = self._history
        trades = history.minute(minute)
        agg_id, _ = history.ids_before(minute)
        listed = history.listed_since_us((minute + 1) * MINUTE_US - 1) // MINUTE_US
        if agg_id > history.ids_before(listed)[0]:
            before = history.minute(history.minute_of_agg(agg_id - 1))
            price, maker = int(before.price[-1]), bool(before.buyer_is_maker[-1])
        else:
            first = history.minute(listed)
            price, maker = int(first.price[0]), bool(first.buyer_is_maker[0])
        steps = np.arange(self._steps_a_minute, dtype=np.int64) * self.step_us
        seen = np.searchsorted(trades.time_us, steps + minute * MINUTE_US, side="right")
        return _MinuteSteps(
            next_agg_id=agg_id,
            time_us=trades.time_us.tolist(),
            price=[price, *trades.price.tolist()],
            buyer_is_maker=[maker, *trades.buyer_is_maker.tolist()],
            seen=seen.tolist(),
        )

    # --- best prices

    def _touch(self, minute: _MinuteSteps, row: int, turn: int) -> BestLevels:
        drawn = hash_counter(self._touch_key, (minute.next_agg_id + row << 24) + turn)
        price = minute.price[row] // self.instrument.tick
        spread = 2 if hash_counter(self._touch_key, minute.next_agg_id + row) % 8 == 0 else 1
        if minute.buyer_is_maker[row] or price <= spread:
            bid, ask = price, price + spread
        else:
            bid, ask = price - spread, price
        step, largest = self.instrument.step, self.instrument.largest_fill
        return BestLevels(
            bid,
            (1 + _skewed(drawn & 0x7FFF, drawn >> 15 & 0x7FFF, largest)) * step,
            ask,
            (1 + _skewed(drawn >> 30 & 0x7FFF, drawn >> 45 & 0x7FFF, largest)) * step,
        )

    def _touch_of(self, step: int) -> BestLevels:
        minute = self._minute(step // self._steps_a_minute)
        row = minute.seen[step % self._steps_a_minute]
        return self._touch(minute, row, step // self._stride)

    def best_at(self, time_us: int) -> BookTicker:
        """Return best bid and ask at a time, including orders since the last step."""
        step = self.step_at(time_us)
        best = self._best_of(step)
        for later in self._within(step + 1):
            if later.time_us > time_us:
                break
            best = later
        return best

    def best_updates(self, step: int) -> Iterator[BookTicker]:
        """Yield the book tickers of a step: one per order, and one if the levels change."""
        if self._moving(step) != step:
            return
        yield from self._within(step)
        if self._turns(step):
            yield self._best_of(step)

    def _best_of(self, step: int) -> BookTicker:
        step = self._moving(step)
        return self._best(step * self.step_us, self.update_id(step), self._touch_of(step))

    def _within(self, step: int) -> Iterator[BookTicker]:
        """Yield the book ticker after each order since the previous step."""
        minute = self._minute(step // self._steps_a_minute)
        number = step % self._steps_a_minute
        first_id = self._first_update_id(step)
        parts = [(minute, minute.seen[number - 1] if number else 0, minute.seen[number])]
        if number == 0:  # orders after the previous minute's last step belong here
            previous = self._minute(step // self._steps_a_minute - 1)
            parts.insert(0, (previous, previous.seen[-1], len(previous.time_us)))
        turn = (step - 1) // self._stride
        for part, begin, stop in parts:
            for row in range(begin, stop):
                touch = self._touch(part, row + 1, turn)
                yield self._best(part.time_us[row], first_id, touch)
                first_id += 1

    def _best(self, time_us: int, update_id: int, touch: BestLevels) -> BookTicker:
        bid, bid_quantity, ask, ask_quantity = touch
        tick = self.instrument.tick
        return BookTicker(time_us, update_id, bid * tick, bid_quantity, ask * tick, ask_quantity)

    # --- levels

    def book_at(self, time_us: int) -> BookSnapshot:
        """Return all levels at a time, as of the last step."""
        return self.state(self.step_at(time_us))

    def state(self, step: int) -> BookSnapshot:
        """Return all levels after a step."""
        key = (self._history.revision, step)
        return self._states.get(key, lambda: self._make_state(step, self._levels.highest))

    def top(self, step: int, levels: int) -> BookSnapshot:
        """Return the best `levels` of each side after a step, or fewer if the book has fewer."""
        reach = 4 * levels * self._levels.finest
        state = self._make_state(step, reach)
        if min(len(state.bids), len(state.asks)) < levels and reach < self._levels.highest:
            state = self.state(step)
        return BookSnapshot(
            state.time_us, state.update_id, state.bids[:levels], state.asks[:levels]
        )

    def _make_state(self, step: int, reach: int) -> BookSnapshot:
        step = self._moving(step)
        bids, asks = self._levels.rows(self._touch_of(step), step // self._stride, reach=reach)
        return BookSnapshot(step * self.step_us, self.update_id(step), bids, asks)

    def _first_update_id(self, step: int) -> int:
        previous = self.update_id(step - 1)
        if self.instrument.market == "spot" or not self._turns(step):
            return previous + 1
        return previous + 1 + hash_counter(self._gap_key, step) % (self._ids_a_turn // 2)

    def changes(self, step: int, *, since: int | None = None) -> BookDiff | None:
        """Return the diff of the steps after `since` up to `step`; None if nothing changed.

        Applied to the snapshot of step `since` (default: the previous step), it gives this step's.
        """
        begin = step - 1 if since is None else since
        previous_id, first_id, last_id = self.update_ids(step, since=begin)
        if previous_id == last_id:
            return None
        begin, end = self._moving(begin), self._moving(step)
        bids, asks = self._levels.changes(
            self._touch_of(begin), begin // self._stride, self._touch_of(end), end // self._stride
        )
        return BookDiff(step * self.step_us, previous_id, first_id, last_id, bids, asks)

    def update_ids(self, step: int, *, since: int) -> tuple[int, int, int]:
        """Return the last id up to `since`, the first id after it, and the last id up to `step`.

        The first and the last are equal if nothing has changed.
        """
        previous_id, last_id = self.update_id(since), self.update_id(step)
        if previous_id == last_id:
            return previous_id, previous_id, last_id
        first = next(
            later for later in range(since + 1, step + 1) if self.update_id(later) > previous_id
        )
        return previous_id, self._first_update_id(first), last_id


def _skewed(first: int, second: int, largest: int) -> int:
    """Map two 15-bit numbers to a mostly small one, at most four times the largest fill."""
    return (first * second >> 15) * largest >> 13
