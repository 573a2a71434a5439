"""Aggregate trades and klines of one symbol into candles: the state machine of the live path.

Pure: no socket, no clock, no database. Frames and exchange time go in, ``AggregatorEvents`` come
out. Invariants:

- A trade belongs to the minute of its trade time; each id counts once. Fills of the insurance fund
  and of auto-deleveraging use up their ids and count in no minute, as in the exchange's klines.
- A minute is *whole* when all its trades have been aggregated: its first trade follows one of an
  earlier minute by id, or the connection delivered before the minute began, or the minute was
  seeded from a kline that ends where the trades continue.
- The closed kline verifies the candle. They are compared once the candle has reached the kline's
  last trade id, at most ``kline_timeout_us`` after the minute's close.
- Minutes are emitted in order and none is skipped: minutes without a closed kline are requested
  from REST.
"""

from __future__ import annotations

from collections.abc import Callable

from include.binance.streams.messages import (
    FIRST_US,
    AggTrade,
    Kline,
    KlineBody,
    Trade,
    microseconds,
)
from include.domain.candle_builder import CandleBuilder
from include.domain.candles import (
    Candle,
    CandleCandidate,
    Source,
    Status,
    differing_ids,
    differing_values,
)
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, minute_of
from streamer.candles.events import (
    LATE_TRADE,
    NO_CLOSED_KLINE,
    NO_FRAMES,
    NOT_STREAMED,
    AggregatorEvents,
)
from streamer.candles.minutes import Minute, Minutes, Timing
from streamer.candles.seeding import SeedSearch
from streamer.candles.silence import SILENT_AFTER_MINUTES, FailingMinutes, Silence
from streamer.candles.trade_ids import FOLLOWS, WAITING, IdOrder, SkippingTradeIds, TradeIds

MINUTES_KEPT = 3
"""Emitted minutes held in memory for late trades and late klines."""


class SymbolAggregator:
    """The live candles of one symbol.

    Attributes:
        quote_volume_is_exact: whether the quote volume can be computed exactly from trades.
        is_dirty: ``live_candles`` may have changed since the reader cleared this.
        on_change: called once with a minute that changed, until it is unmarked; None without
            listeners.
        without_trades: consecutive minutes whose klines show trades that did not arrive.
    """

    def __init__(self, instrument: Instrument, timing: Timing, events: AggregatorEvents) -> None:
        self.symbol = instrument.symbol
        self.quote_volume_is_exact = instrument.quote_volume_is_exact
        self._proves_by_ids = instrument.market is Market.SPOT
        self.ids = TradeIds() if timing.has_contiguous_ids else SkippingTradeIds()
        self.minutes = Minutes()
        self.duplicates = self.void_trades = self.not_market_trades = 0
        self.late_trades = self.equal_klines = 0
        self.is_dirty = False
        self.on_change: Callable[[str, Minute], None] | None = None
        self.without_trades = FailingMinutes()
        self._timing = timing
        self._events = events
        self._seed: SeedSearch | None = None
        self._next_minute: int | None = None
        self._silence = Silence()
        self._without_klines = FailingMinutes()
        self._delivers_since_us: int | None = None
        self._complete_since_us: int | None = None
        """Exchange time since which no trade is missing: the connection's start, or the trade after
        the last missing ones."""
        self._is_proven = True

    # --- the connection

    def resume_after(self, last_stored_us: int) -> None:
        """Continue with the minute after the last stored one."""
        self._next_minute = last_stored_us + MINUTE_US

    def connected(self, exchange_us: int) -> None:
        """Expect every trade made after ``exchange_us`` to arrive."""
        self._delivers_since_us = self._complete_since_us = exchange_us
        if self._next_minute is None:
            self._next_minute = minute_of(exchange_us)
        if self.ids.next_id is None or not self._timing.has_contiguous_ids:
            self._is_proven = True  # applies to trades from now on
            self._seek_seed()

    def disconnected(self) -> None:
        """Treat no minute as whole until ids or a kline prove it."""
        self._stop_waiting()
        self.ids.may_wait = False  # until ``on_clock``: skipped ids are missing, not late
        self._is_proven = False
        if self._silence.minutes and self._complete_since_us is not None:
            # Without a frame since the last disconnect, the silence continues.
            self._end_silence(None)
        self._delivers_since_us = self._complete_since_us = None
        if not self._timing.has_contiguous_ids:
            self._break_minutes()

    # --- trades

    def on_trade(self, trade: AggTrade | Trade) -> None:
        """Aggregate a trade, once, into the minute of its trade time."""
        # Inlined: a call costs more.
        trade_us = at if (at := trade.trade_time) >= FIRST_US else at * 1000
        order = self.ids.add(trade, trade_us)
        if order is not FOLLOWS and not self._is_usable(order, trade, trade_us):
            return
        if self._silence.minutes and trade_us >= self._silence.since_us:
            self._end_silence(trade_us)
        self._is_proven = True
        if self._seed is None:
            self._aggregate(trade, trade_us, order)
        else:
            self._collect_for_seed(self._seed, trade, trade_us)

    def _is_usable(self, order: IdOrder, trade: AggTrade | Trade, trade_us: int) -> bool:
        """Handle a trade whose id is not the next one; return whether to aggregate it now."""
        if order is IdOrder.REPEATS:
            self.duplicates += 1
        elif order is IdOrder.VOID:
            self.void_trades += 1
        elif order is IdOrder.NOT_MARKET:
            self.not_market_trades += 1
        elif order is IdOrder.OVERTAKEN:
            self._add_again(trade)
        elif order is IdOrder.WAITS:
            if self.ids.wait_is_over(trade_us):
                self._stop_waiting()
        elif order is IdOrder.PRECEDES:
            if trade.id != self.ids.first_id:
                self._break_minutes()
            elif self._seed is None and not self.minutes.include(trade, trade_us):
                self._aggregate(trade, trade_us, order)  # otherwise the seed includes it
        else:
            self._start_over(order, trade, trade_us)
            return True
        return False

    def _add_again(self, *trades: AggTrade | Trade) -> None:
        """Add the released trades and those that waited for them."""
        for trade in (*trades, *self.ids.release()):
            self.on_trade(trade)

    def _stop_waiting(self) -> None:
        """Report the ids before the held trades as missing."""
        could_wait, self.ids.may_wait = self.ids.may_wait, False
        self._add_again()
        self.ids.may_wait = could_wait

    def _stop_waiting_if_due(self, event_time: int, kline_last_id: int = -1) -> None:
        if self.ids.wait_is_over(microseconds(event_time), kline_last_id=kline_last_id):
            self._stop_waiting()

    def _start_over(self, order: IdOrder, trade: AggTrade | Trade, trade_us: int) -> None:
        """Handle ids that skip or restart: no minute is whole, and the next candle needs a seed."""
        expected, previous_us = self.ids.broken_at
        if expected is None:
            return
        if order is IdOrder.RESTARTS:
            self._events.trade_ids_restarted(self.symbol, expected, trade.id, trade_us)
        elif not self._timing.has_contiguous_ids:
            return
        else:
            self._events.trades_missing(self.symbol, expected, trade.id - 1, previous_us, trade_us)
        self._break_minutes()
        self._complete_since_us = trade_us
        self._seek_seed()

    def _aggregate(self, trade: AggTrade | Trade, trade_us: int, order: IdOrder) -> None:
        open_time_us = trade_us - trade_us % MINUTE_US
        minute = self.minutes.get(open_time_us)
        if minute is None:
            horizon = (self._next_minute or 0) - MINUTES_KEPT * MINUTE_US
            if open_time_us < horizon:
                self.late_trades += 1
                self._request(open_time_us, LATE_TRADE)
                return
            minute = self.minutes[open_time_us] = Minute(open_time_us)
        builder = minute.builder
        if builder is None:
            builder = minute.builder = CandleBuilder(self.symbol, open_time_us)
            minute.is_first = order is IdOrder.FIRST
            minute.is_whole = (order is FOLLOWS and self._timing.has_contiguous_ids) or (
                self._complete_since_us is not None and open_time_us > self._complete_since_us
            )
        builder.add(trade) if order is FOLLOWS else builder.add_anywhere(trade)
        self.is_dirty = True
        if self.on_change is not None:
            self._changed(minute)
        if minute.kline is not None or minute.is_emitted:
            self.late_trades += minute.is_emitted
            if minute.is_whole or minute.kline is None:  # otherwise the kline was emitted
                self._close_if_complete(minute)

    def _break_minutes(self) -> None:
        """Handle missing trades: no minute is whole, so klines are shown instead of candles."""
        for minute in self.minutes.values():
            minute.is_whole = False
            self._changed(minute)

    # --- seeding

    def _seek_seed(self) -> None:
        since_us = self._complete_since_us or 0
        self._seed = SeedSearch(since_us) if self._timing.expects_klines else None

    def _collect_for_seed(self, seed: SeedSearch, trade: AggTrade | Trade, trade_us: int) -> None:
        since_us = self._complete_since_us
        if seed.joined_minute_is_over(trade_us) or (
            since_us is not None and minute_of(trade_us) > since_us
        ):
            # The minute joined midway has ended; its closed kline will be emitted.
            self._seed = None
            self._aggregate_all([*seed.trades, trade])
            return
        self._use_seed(seed.on_trade(trade))

    def _use_seed(self, found: tuple[Kline, list[AggTrade | Trade]] | None) -> None:
        if found is None:
            return
        kline, following = found
        self._seed = None
        minute = self.minutes.get_or_add(microseconds(kline.body.open_time))
        minute.builder = CandleBuilder.from_candle(kline.candle(self.symbol))
        minute.is_whole = True
        self._aggregate_all(following, FOLLOWS)
        self._changed(minute)

    def _aggregate_all(
        self, trades: list[AggTrade | Trade], order: IdOrder = IdOrder.FIRST
    ) -> None:
        for trade in trades:
            self._aggregate(trade, microseconds(trade.trade_time), order)
            order = FOLLOWS

    # --- klines

    def on_kline(self, kline: Kline) -> None:
        """Use a kline: as a seed while it is open, to verify the candle once it is closed."""
        open_time_us = microseconds(kline.body.open_time)
        if self.ids.next_id == WAITING:
            self._stop_waiting_if_due(kline.event_time, kline.body.last_trade_id)
        if self._silence.minutes and open_time_us >= self._silence.since_us:
            self._end_silence(open_time_us)
        is_known = open_time_us in self.minutes or (
            self._next_minute is not None and open_time_us >= self._next_minute
        )
        if kline.body.is_closed:
            if is_known:
                minute = self.minutes.get_or_add(open_time_us)
                if not minute.is_newer(kline):
                    return
                if minute.is_emitted and minute.is_behind(kline):
                    self._emit_kline(kline)  # its trades may be late, or may never arrive
                minute.kline, minute.frame = kline, None
                if self._seed is not None and self._seed.covers(kline):
                    trades, self._seed = list(self._seed.trades), None
                    self._aggregate_all(trades)
                self._close_if_complete(minute)
            else:
                self._emit_kline(kline)  # the minute is no longer in memory, or before the start
        elif is_known:
            self._on_open_kline(kline, self.minutes.get_or_add(open_time_us))

    def _on_open_kline(self, kline: Kline, minute: Minute) -> None:
        if minute.frame is None or minute.frame.event_time <= kline.event_time:
            minute.frame = kline
        self._verify_open(kline, minute)
        if self._seed is not None:
            self._use_seed(self._seed.on_kline(kline))
        if not minute.is_whole:
            self._changed(minute)

    def _verify_open(self, kline: Kline, minute: Minute) -> None:
        """Compare the open candle with a kline, which proves it or shows missing values."""
        if minute.builder is None or minute.is_emitted:
            return
        builder, body = minute.builder, kline.body
        has_same_start = body.first_trade_id == builder.first_trade_id
        if body.trade_count and body.last_trade_id == builder.last_trade_id:
            self._is_proven = True
            if minute.is_whole and (body.trade_count, True) != (
                builder.trade_count,
                has_same_start,
            ):
                self._events.open_candle_corrected(
                    self.symbol, minute.open_time_us, ["trade_count"]
                )
                minute.builder = CandleBuilder.from_candle(kline.candle(self.symbol))
                self._changed(minute)
        elif body.trade_count and minute.is_whole and not has_same_start:
            self._events.open_candle_corrected(self.symbol, minute.open_time_us, ["first_trade_id"])
            minute.is_whole = False
            self._seek_seed()

    # --- exchange time

    def on_clock(self, exchange_us: int) -> bool:
        """Close minutes whose grace has ended, and end waits for klines.

        Returns:
            whether a closed minute now waits for its kline.
        """
        if self._next_minute is None:
            return False
        if self.ids.next_id == WAITING:
            self._stop_waiting_if_due(exchange_us)
        self.ids.may_wait = self._timing.has_contiguous_ids
        if self.ids.next_id == WAITING:
            return False  # the awaited trades may belong to a minute whose grace has ended
        has_closed = False
        grace_us = self._timing.grace_us
        self._skip_unknown(exchange_us)
        while self._next_minute + MINUTE_US + grace_us <= exchange_us:
            minute = self.minutes.get_or_add(self._next_minute)
            if not minute.is_closed:
                minute.is_closed = True
                has_closed = not minute.is_emitted
                self._changed(minute)
            if not minute.is_emitted:
                deadline_us = self._next_minute + MINUTE_US + grace_us
                if self._timing.expects_klines:
                    deadline_us += self._timing.kline_timeout_us
                if exchange_us < deadline_us:
                    break
                self._close_unverified(minute)
            self._check_trade_stream(self._next_minute - MINUTE_US)
            self._next_minute += MINUTE_US
            self._skip_unknown(exchange_us)
        if len(self.minutes) > MINUTES_KEPT:
            self.minutes.drop_before(self._next_minute - MINUTES_KEPT * MINUTE_US)
        return has_closed

    def next_deadline_us(self) -> int | None:
        """Return the exchange time before which ``on_clock`` has nothing to do."""
        if self._next_minute is None:
            return None
        return self._next_minute + MINUTE_US + self._timing.grace_us

    @property
    def unfinished_since_us(self) -> int | None:
        """Return the open time of the first minute neither emitted nor requested from REST."""
        return self._silence.unrequested_since_us if self._silence.minutes else self._next_minute

    def _skip_unknown(self, exchange_us: int) -> None:
        """Request the minutes of a long silence (a disconnect, a stop) as one range."""
        if self._next_minute is None:
            return
        overdue_us = self._timing.grace_us + self._timing.kline_timeout_us + MINUTE_US
        until_us = minute_of(exchange_us - overdue_us)
        if until_us > self._next_minute + MINUTE_US:
            until_us = min([until_us, *(one for one in self.minutes if one >= self._next_minute)])
        if until_us > self._next_minute + MINUTE_US:
            self._events.rest_needed(self.symbol, self._next_minute, until_us, NOT_STREAMED)
            self._next_minute = until_us

    # --- readers

    def live_candles(self) -> list[tuple[Candle, bool]]:
        """Return candles not emitted yet, oldest first, each with whether its minute is closed."""
        return self.minutes.live_candles(self.symbol)

    def _changed(self, minute: Minute) -> None:
        self.is_dirty = True
        if self.on_change is not None and not minute.is_marked:
            minute.is_marked = True
            self.on_change(self.symbol, minute)

    # --- closing a minute

    def _close_if_complete(self, minute: Minute) -> None:
        """Verify and emit the candle once it has reached the closed kline's last trade id."""
        kline, builder = minute.kline, minute.builder
        if kline is None:
            self._emit_aggregated(minute)  # a late trade revises the emitted candle
            return
        if minute.is_behind(kline):
            return  # klines may arrive before their trades; on_clock ends the wait
        theirs = kline.candle(self.symbol)
        if builder is None or not builder.trade_count or not self._covers(minute, builder, kline):
            self._emit_kline(kline, theirs)
        elif self._verify(minute, builder, theirs) and self._has_every_id(builder):
            self._events.kline_disputed(_verified_by(kline, theirs))
        else:
            self._emit(_verified_by(kline, theirs))
        self._mark_emitted(minute)

    def _covers(self, minute: Minute, builder: CandleBuilder, kline: Kline) -> bool:
        """Whether an aggregated candle has the trades of a kline; of the first minute after a start
        only the kline's ids tell."""
        body = kline.body
        lacks_start = (
            minute.is_first
            and body.first_trade_id < builder.first_trade_id
            and body.trade_count > builder.trade_count
        )
        return (minute.is_whole and not lacks_start) or (
            self._has_every_id(builder)
            and builder.first_trade_id == body.first_trade_id
            and builder.last_trade_id == body.last_trade_id
        )

    def _has_every_id(self, one: CandleBuilder | KlineBody) -> bool:
        """Whether a candle has as many trades as ids; on futures that proves nothing, as ids may
        skip."""
        span = one.last_trade_id - one.first_trade_id + 1
        return self._proves_by_ids and span == one.trade_count

    def _verify(self, minute: Minute, builder: CandleBuilder, theirs: Candle) -> bool:
        """Compare the aggregated candle with the closed kline; return whether values differ."""
        ours = (
            builder.candle()
            if self.quote_volume_is_exact
            else builder.candle().with_quotes_of(theirs)
        )
        differing = differing_values(ours, theirs)
        if differing:
            self._emit(CandleCandidate(ours, Status.UNCONFIRMED, Source.STREAM))
        if names := [*differing, *differing_ids(ours, theirs)]:
            self._events.kline_differs(self.symbol, ours.open_time_us, names)
        else:
            self.equal_klines += 1
            minute.builder = CandleBuilder.from_candle(theirs)  # reuses the kline's Decimals
        return bool(differing)

    def _close_unverified(self, minute: Minute) -> None:
        """Emit the candle without a closed kline, and request the minute from REST."""
        if minute.kline is not None:
            self._emit_kline(minute.kline)  # trades up to its last id never arrived
        else:
            self._emit_aggregated(minute)
            self._on_missing_kline(minute)
        self._mark_emitted(minute)

    def _emit_aggregated(self, minute: Minute) -> None:
        """Emit the aggregated candle, unless its quote volume cannot be computed from trades."""
        builder = minute.builder
        if builder is None or not builder.trade_count or not self.quote_volume_is_exact:
            return
        frame = minute.frame
        is_behind = frame is not None and frame.body.last_trade_id > builder.last_trade_id
        is_sure = minute.is_whole and self._is_proven and not is_behind
        status = Status.UNCONFIRMED if is_sure else Status.PARTIAL
        self._emit(CandleCandidate(builder.candle(), status, Source.STREAM))

    def _emit_kline(self, kline: Kline, theirs: Candle | None = None) -> None:
        """Emit a kline that no candle can be compared with, unless it contradicts itself."""
        candidate = _verified_by(kline, theirs or kline.candle(self.symbol))
        if self._proves_by_ids and kline.body.trade_count and not self._has_every_id(kline.body):
            self._events.kline_disputed(candidate)
        else:
            self._emit(candidate)

    def _emit(self, candidate: CandleCandidate) -> None:
        self._events.candle_closed(candidate)

    def _mark_emitted(self, minute: Minute) -> None:
        minute.is_emitted = True
        self._changed(minute)

    # --- streams that do not deliver

    def _request(self, open_time_us: int, cause: str) -> None:
        self._events.rest_needed(self.symbol, open_time_us, open_time_us + MINUTE_US, cause)

    def _on_missing_kline(self, minute: Minute) -> None:
        """Request a minute without closed kline; subscribe again if the stream seems dead."""
        open_time_us = minute.open_time_us
        was_connected = self._was_connected(open_time_us)
        is_idle = self._complete_since_us is None  # reconnected, without a frame of any symbol
        is_empty = (was_connected or is_idle) and minute.builder is None and minute.frame is None
        if not is_empty:
            self._request(open_time_us, NO_CLOSED_KLINE)
        else:
            requested = self._silence.count(open_time_us)
            if self._silence.minutes == SILENT_AFTER_MINUTES:
                self._events.symbol_silent(self.symbol, self._silence.since_us)
            if requested is not None:
                self._events.rest_needed(self.symbol, *requested, NO_FRAMES)
        if not self._timing.expects_klines or not was_connected:
            return
        if self.minutes.have_klines_since(open_time_us):
            self._without_klines = FailingMinutes()  # only one frame was lost; the stream is alive
        elif self._without_klines.count():
            self._events.resubscribe_needed(self.symbol, "no closed kline in time")

    def _check_trade_stream(self, open_time_us: int) -> None:
        """Detect a dead trade stream: klines of a whole minute count trades that did not arrive."""
        minute = self.minutes.get(open_time_us)
        if minute is None or minute.kline is None or not minute.kline.body.trade_count:
            return
        if self.ids.last_trade_us >= open_time_us or not self._was_connected(open_time_us):
            self.without_trades = FailingMinutes()
        elif self.without_trades.count():
            self._events.resubscribe_needed(self.symbol, "klines count trades that did not arrive")

    def _was_connected(self, open_time_us: int) -> bool:
        """Whether the connection delivered since before this minute."""
        return self._delivers_since_us is not None and open_time_us > self._delivers_since_us

    def _end_silence(self, until_us: int | None) -> None:
        """End a silence at the time of a frame, or (None) by a disconnect."""
        since_us, minutes = self._silence.since_us, self._silence.minutes
        if (unrequested := self._silence.end()) is not None:
            self._events.rest_needed(self.symbol, *unrequested, NO_FRAMES)
        if until_us is not None and minutes >= SILENT_AFTER_MINUTES:
            self._events.silence_ended(self.symbol, since_us, until_us)


def _verified_by(kline: Kline, theirs: Candle) -> CandleCandidate:
    evidence_us = microseconds(kline.event_time)
    return CandleCandidate(theirs, Status.VERIFIED, Source.KLINE, evidence_us)
