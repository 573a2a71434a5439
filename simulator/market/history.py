"""All trades of one symbol, by minute, by id and by time.

Nothing is simulated step by step: a minute's number of orders is a hash, and ids are prefix sums of
those numbers by day. The future is known like the past, until the calendar changes it.

Ids in arguments and results are positions, which continue when a ticker is reused. Trades and
klines carry the exchange's ids, which restart then; without a reuse both are equal.
"""

import threading
from collections.abc import Iterator

import numpy as np

from simulator.cache import BoundedCache
from simulator.clock import MINUTE_US, SECOND_US
from simulator.market.hours.calendar import TradingCalendar
from simulator.market.instruments import Instrument
from simulator.market.klines import KlineColumns, aggregate_trades, join_klines
from simulator.market.noise import IntArray, derive_key, hash_counter
from simulator.market.trades.columns import TradeColumns
from simulator.market.trades.generator import SUBTICK
from simulator.market.trades.sessions import SessionTrades

_DAY_MINUTES = 1_440
_MAX_DAYS = 400_000
_INDEX_DAYS = (8, 256)  # the index of ids grows by this many days at a time
_DIRECT_MINUTES = 120  # shorter ranges are aggregated without filling the cache of days


class History:
    """All trades of one symbol, past and future.

    Args:
        start_us: listing time, floored to the minute; that minute always has a trade.
    """

    def __init__(
        self,
        instrument: Instrument,
        *,
        seed: int,
        start_us: int,
        day_klines: BoundedCache[tuple[str, int], KlineColumns],
        minutes: BoundedCache[tuple[str, int], TradeColumns],
    ) -> None:
        self.instrument = instrument
        self.start_minute = start_us // MINUTE_US
        self.calendar = TradingCalendar.open_from(start_us, delivery_us=instrument.delivery_us)
        self._seed = seed
        self._trades_by_minute = SessionTrades(instrument, self.calendar, seed=seed)
        self._changed_minutes: list[int] = []
        self._shifts: dict[int, tuple[int, int]] = {0: (0, 0)}
        self._first_day = self.start_minute // _DAY_MINUTES
        drawn = hash_counter(derive_key(seed, instrument.market, instrument.symbol, "ids"), 0)
        self.first_agg_id = drawn % 3_000_000_000
        self.first_trade_id = self.first_agg_id + (drawn >> 32) % 2_000_000_000
        self._before = np.array([[self.first_agg_id], [self.first_trade_id]], dtype=np.int64)
        self._lock = threading.Lock()
        self._day_klines = day_klines
        self._minutes = minutes

    @property
    def start_us(self) -> int:
        """Listing time, on the minute."""
        return self.start_minute * MINUTE_US

    # --- sessions

    def change(self, calendar: TradingCalendar, *, from_us: int) -> None:
        """Replace the calendar by one that differs only from `from_us` on, not yet served."""
        with self._lock:
            self.calendar = calendar
            self._trades_by_minute = SessionTrades(self.instrument, calendar, seed=self._seed)
            self._changed_minutes.append(from_us // MINUTE_US)
            self._shifts = {0: (0, 0)}
            known_days = from_us // MINUTE_US // _DAY_MINUTES - self._first_day
            self._before = self._before[:, : max(0, known_days) + 1]

    def listed_since_us(self, time_us: int) -> int:
        """Return when the instrument that has the symbol at a time was listed."""
        generation = self.calendar.generation(time_us)
        return next(
            one.start_us for one in self.calendar.listings() if one.generation == generation
        )

    @property
    def revision(self) -> int:
        """Number of calendar changes; part of the keys of caches."""
        return len(self._changed_minutes)

    def is_trading(self, time_us: int) -> bool:
        """Whether there is trading at a time: listed, not halted, not delisted."""
        return self.calendar.is_trading(time_us)

    def has_klines(self, from_us: int, until_us: int) -> bool:
        """Whether `from_us … until_us - 1` has klines.

        On the futures they continue in a halt and after a delisting, until a delivery.
        """
        if self.instrument.market == "spot":
            return self.calendar.overlaps(from_us, until_us)
        delivery_us = self.delivery_us
        return until_us > self.start_us and (delivery_us is None or from_us < delivery_us)

    @property
    def is_without_pauses(self) -> bool:
        """Whether every minute from the listing to a delivery has a kline."""
        return self.calendar.is_plain or self.instrument.market != "spot"

    @property
    def delivery_us(self) -> int | None:
        """When the contract is delivered; None: perpetual."""
        if not self.instrument.is_dated:
            return None
        last = self.calendar.sessions[
            -1
        ]  # an earlier delivery than planned ends it, a halt may too
        return last.stop_us if last.ends_listing else self.instrument.delivery_us

    def last_kline_us(self, time_us: int) -> int:
        """Return the last time up to `time_us` that has a kline, unless it is before the listing.

        On spot, the time itself: pauses are left out elsewhere.
        """
        delivery_us = self.delivery_us
        return time_us if delivery_us is None else min(time_us, delivery_us - 1)

    def kline_minutes(self, from_minute: int) -> Iterator[int]:
        """Yield the minutes in which kline streams send something; may end, or never."""
        minute = max(self.start_minute, from_minute)
        while True:
            # a kline is closed in the minute after it
            if not self.has_klines((minute - 1) * MINUTE_US, (minute + 1) * MINUTE_US):
                opens_us = self.calendar.next_open(minute * MINUTE_US)
                if opens_us is None:
                    return
                minute = max(minute, opens_us // MINUTE_US)
            yield minute
            minute += 1

    def _cache_key(self, minute: int, span: int = 1) -> tuple[str, int]:
        """Return a cache key. Calendar changes do not invalidate earlier minutes."""
        index = minute // span
        if not self._changed_minutes:
            return self.instrument.symbol, index
        changes = sum(changed // span <= index for changed in self._changed_minutes)
        symbol = self.instrument.symbol
        return (f"{symbol}#{changes}" if changes else symbol), index

    # --- ids

    def counts(self, first_minute: int, stop_minute: int) -> tuple[IntArray, IntArray]:
        """Return orders and further fills of each minute; zero outside sessions."""
        return self._trades_by_minute.counts(first_minute, stop_minute)

    def _shift(self, generation: int) -> tuple[int, int]:
        """Return what to add to positions to get the aggregate and trade ids of a generation."""
        shift = self._shifts.get(generation)
        if shift is None:
            agg_id, trade_id = self._first_of(generation)
            labels = (self.instrument.market, self.instrument.symbol, "ids", str(generation))
            first = 1 + hash_counter(derive_key(self._seed, *labels), 0) % 1_000
            shift = self._shifts[generation] = (first - agg_id, first - trade_id)
        return shift

    def _printed_ids_before(self, minute: int) -> tuple[int, int]:
        """Return the exchange's ids of the first order from `minute` on."""
        if self.calendar.is_plain:
            return self.ids_before(minute)
        shift = self._shift(self.calendar.generation((minute + 1) * MINUTE_US - 1))
        agg_id, trade_id = self.ids_before(minute)
        return agg_id + shift[0], trade_id + shift[1]

    def position_of_agg(self, agg_id: int, time_us: int) -> int:
        """Return the position of an aggregate id of the instrument that is listed at a time."""
        return self._position(agg_id, time_us, 0)

    def position_of_trade(self, trade_id: int, time_us: int) -> int:
        """Return the position of a trade id of the instrument that is listed at a time."""
        return self._position(trade_id, time_us, 1)

    def _position(self, printed: int, time_us: int, row: int) -> int:
        generation = self.calendar.generation(time_us)
        return max(self._first_of(generation)[row], printed - self._shift(generation)[row])

    def _first_of(self, generation: int) -> tuple[int, int]:
        begin = next(one for one in self.calendar.listings() if one.generation == generation)
        return self.ids_before(begin.start_us // MINUTE_US)

    def _ids_before_day(self, day: int) -> tuple[int, int]:
        """Return the first aggregate id and the first trade id of a day (days since the epoch).

        Raises:
            ValueError: the day is centuries away; the index would need unbounded memory.
        """
        offset = max(0, day - self._first_day)
        if offset > _MAX_DAYS:
            raise ValueError(
                f"{self.instrument.symbol}: day {day} since the epoch is too far in the future"
            )
        with self._lock:
            while offset >= self._before.shape[1]:
                size = self._before.shape[1]
                known = self._first_day + size - 1
                days = min(max(_INDEX_DAYS[0], offset - size + 1), _INDEX_DAYS[1])
                orders, further = self.counts(known * _DAY_MINUTES, (known + days) * _DAY_MINUTES)
                totals = np.stack((orders, orders + further))
                by_day = totals.reshape(2, days, _DAY_MINUTES).sum(axis=2)
                grown = self._before[:, -1:] + np.cumsum(by_day, axis=1)
                self._before = np.concatenate((self._before, grown), axis=1)
            return int(self._before[0, offset]), int(self._before[1, offset])

    def ids_before(self, minute: int) -> tuple[int, int]:
        """Return the aggregate id and the trade id of the first trade from `minute` on."""
        day = minute // _DAY_MINUTES
        agg_id, trade_id = self._ids_before_day(day)
        if minute > day * _DAY_MINUTES:
            orders, further = self.counts(day * _DAY_MINUTES, minute)
            agg_id += int(orders.sum())
            trade_id += int(orders.sum() + further.sum())
        return agg_id, trade_id

    def trades(self, first_minute: int, stop_minute: int) -> TradeColumns:
        """Return the trades of minutes `first_minute … stop_minute - 1` (at least one minute)."""
        orders, further = self.counts(first_minute, stop_minute)
        return self._trades_by_minute.make(first_minute, orders, further, self._printed_ids_before)

    def minute(self, minute: int) -> TradeColumns:
        """Return the trades of one minute, cached."""
        return self._minutes.get(self._cache_key(minute), lambda: self.trades(minute, minute + 1))

    def has_order(self, begin_us: int, end_us: int) -> bool:
        """Whether there is an order with `begin_us <= time <= end_us`."""
        for minute in range(begin_us // MINUTE_US, end_us // MINUTE_US + 1):
            times_us = self.minute(minute).time_us
            row = int(np.searchsorted(times_us, begin_us))
            if row < len(times_us) and times_us[row] <= end_us:
                return True
        return False

    def next_traded_minute(self, minute: int) -> int | None:
        """Return the first minute from `minute` on that has a trade; None if trading has ended.

        Raises:
            ValueError: years of trading pass without a trade.
        """
        span = 8
        for _ in range(20):
            opens_us = self.calendar.next_open(minute * MINUTE_US)
            if opens_us is None:
                return None
            minute = max(minute, opens_us // MINUTE_US)
            traded = np.flatnonzero(self.counts(minute, minute + span)[0])
            if len(traded):
                return minute + int(traded[0])
            minute += span
            span *= 2
        raise ValueError(f"{self.instrument.symbol} has no trade before minute {minute}")

    def close_before(self, minute: int) -> int:
        """Return the price of the last trade before `minute`, or the listing's first price."""
        agg_id, _ = self.ids_before(minute)
        if agg_id == self.first_agg_id:
            return int(self.minute(self.start_minute).price[0])
        return int(self.minute(self.minute_of_agg(agg_id - 1)).price[-1])

    def index_prices(self, times_us: IntArray, *, decimals: int) -> IntArray:
        """Return the index price of the pair at each time, in units of 10^-`decimals`."""
        result: IntArray = (
            self._trades_by_minute.indexes(times_us) * self._scale(decimals) >> SUBTICK
        )
        return result

    def fair_prices(self, times_us: IntArray, *, decimals: int) -> IntArray:
        """Return the price path that trades follow at each time, in units of 10^-`decimals`.

        It is the index price, but for a dated contract.
        """
        path = self._trades_by_minute.mids(times_us)
        result: IntArray = path * self._scale(decimals) >> SUBTICK
        return result

    def _scale(self, decimals: int) -> int:
        return int(10 ** (decimals - self.instrument.price_decimals)) * self.instrument.tick

    def minute_of_agg(self, agg_id: int) -> int:
        """Return the minute of an aggregate id; earlier ids count as the first."""
        agg_id = max(agg_id, self.first_agg_id)
        return self._minute_of_id(agg_id, 0)

    def minute_of_trade(self, trade_id: int) -> int:
        """Return the minute of a trade id; earlier ids count as the first."""
        return self._minute_of_id(max(trade_id, self.first_trade_id), 1)

    def _minute_of_id(self, wanted: int, row: int) -> int:
        end_us = self.calendar.sessions[-1].stop_us
        if end_us is not None:
            last = (end_us - 1) // MINUTE_US
            if wanted >= self.ids_before(last + 1)[row]:
                return last
        day = self._first_day
        step = 1
        while self._ids_before_day(day + step)[row] <= wanted:
            day += step
            step *= 2
            if day - self._first_day > _MAX_DAYS // 2:
                raise ValueError(f"{self.instrument.symbol}: id {wanted} is beyond all years")
        with self._lock:
            known = self._before[row]
        day = self._first_day + int(np.searchsorted(known, wanted, side="right")) - 1
        orders, further = self.counts(day * _DAY_MINUTES, (day + 1) * _DAY_MINUTES)
        ids = int(known[day - self._first_day]) + np.cumsum(orders + further * row)
        return day * _DAY_MINUTES + int(np.searchsorted(ids, wanted, side="right"))

    def agg_id_from(self, time_us: int) -> int:
        """Return the first aggregate id whose trade time is at least `time_us`."""
        minute = time_us // MINUTE_US
        if minute < self.start_minute:
            return self.first_agg_id
        agg_id, _ = self.ids_before(minute)
        return agg_id + int(np.searchsorted(self.minute(minute).time_us, time_us))

    def orders_by_id(self, from_id: int, stop_id: int) -> TradeColumns:
        """Return the orders with aggregate ids `from_id … stop_id - 1` (at least one)."""
        from_id = max(from_id, self.first_agg_id)
        first = self.minute_of_agg(from_id)
        trades = self.trades(first, self.minute_of_agg(max(from_id, stop_id - 1)) + 1)
        offset, _ = self.ids_before(first)
        return trades.between(from_id - offset, max(from_id, stop_id) - offset)

    def kline_columns(
        self, first_minute: int, stop_minute: int, *, view_us: int | None = None
    ) -> KlineColumns:
        """Return 1m klines of minutes `first_minute … stop_minute - 1`, none before the listing.

        On spot, minutes without any trading session have none.

        Args:
            view_us: later trades are excluded from the last minute; must not be before that minute.
        """
        klines = self._all_klines(first_minute, stop_minute, view_us=view_us)
        return self._without_pauses(klines, MINUTE_US)

    def _without_pauses(self, klines: KlineColumns, step_us: int) -> KlineColumns:
        if self.is_without_pauses:
            return klines
        mask = self.calendar.overlap_mask(klines.open_time_us, step_us)
        return (
            klines if mask.all() else KlineColumns(*(column[mask] for column in klines.columns()))
        )

    def _all_klines(
        self, first_minute: int, stop_minute: int, *, view_us: int | None
    ) -> KlineColumns:
        last = stop_minute - 1
        if view_us is not None and view_us < stop_minute * MINUTE_US - 1:
            open_bar = self._aggregate(self.minute(last).until(view_us), last, 1)
            if first_minute == last:
                return open_bar
            return join_klines((self._all_klines(first_minute, last, view_us=None), open_bar))
        if stop_minute - first_minute <= _DIRECT_MINUTES and not self._is_cached(first_minute):
            count = stop_minute - first_minute
            direct = count > 1
            trades = self.trades(first_minute, stop_minute) if direct else self.minute(first_minute)
            return self._aggregate(trades, first_minute, count)
        parts = []
        for day in range(first_minute // _DAY_MINUTES, last // _DAY_MINUTES + 1):
            klines = self._klines_of_day(day)
            begin = int(klines.open_time_us[0]) // MINUTE_US
            parts.append(klines.between(max(0, first_minute - begin), stop_minute - begin))
        return join_klines(parts)

    def _is_cached(self, minute: int) -> bool:
        return self._cache_key(minute, _DAY_MINUTES) in self._day_klines

    def _klines_of_day(self, day: int) -> KlineColumns:
        def aggregate_day() -> KlineColumns:
            begin = max(day * _DAY_MINUTES, self.start_minute)
            stop = (day + 1) * _DAY_MINUTES
            return self._aggregate(self.trades(begin, stop), begin, stop - begin)

        return self._day_klines.get(
            self._cache_key(day * _DAY_MINUTES, _DAY_MINUTES), aggregate_day
        )

    def _aggregate(
        self, trades: TradeColumns, first_minute: int, count: int, step_us: int = MINUTE_US
    ) -> KlineColumns:
        open_us = first_minute * MINUTE_US
        begins_flat = len(trades) == 0 or int(trades.time_us[0]) >= open_us + step_us
        previous = self.close_before(first_minute) if begins_flat else 0
        return aggregate_trades(
            trades, first_open_us=open_us, count=count, step_us=step_us, previous_close=previous
        )

    def second_klines(self, first_us: int, stop_us: int, *, view_us: int | None) -> KlineColumns:
        """Return 1s klines that open from `first_us` to before `stop_us` (both on the second)."""
        first, stop = first_us // MINUTE_US, -(-stop_us // MINUTE_US)
        trades = self.trades(first, stop)
        if view_us is not None:
            trades = trades.until(view_us)
        klines = self._aggregate(trades, first, (stop - first) * 60, SECOND_US)
        skipped = (first_us - first * MINUTE_US) // SECOND_US
        chosen = klines.between(skipped, skipped + (stop_us - first_us) // SECOND_US)
        return self._without_pauses(chosen, SECOND_US)
