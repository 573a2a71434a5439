"""From trades and klines of one symbol to candles: the state machine of the live path.

Pure: no socket, no clock, no database. Frames and the exchange's time go in, results come
out through a ``AggregatorEvents``. What it holds to:

- The minute of a trade is decided by its trade time; each id counts once.
- A minute is *whole* when every trade of it is known to have been folded: its first trade
  follows one of an earlier minute by id, or the connection delivered from before its start,
  or it was seeded from a kline that ends where the fold goes on.
- The closed kline is the checksum. It is held against the fold once that has reached its last
  id, at most ``kline_timeout_us`` after the minute's close.
- Minutes are settled in order and none is skipped: what the exchange did not confirm on the
  stream is asked of REST.
"""

from __future__ import annotations

from collections.abc import Callable

from include.binance.streams.messages import FIRST_US, AggTrade, Kline, Trade, microseconds
from include.domain.candles import (
    Candle,
    CandleCandidate,
    Source,
    Status,
    differing_ids,
    differing_values,
)
from include.domain.fold import CandleBuilder
from include.domain.instruments import Instrument
from include.domain.timeframes import MINUTE_US, minute_of
from streamer.candles.continuity import FOLLOWS, WAITING, IdOrder, SkippingTradeIds, TradeIds
from streamer.candles.events import NO_CLOSED_KLINE, NOTHING_CAME, AggregatorEvents
from streamer.candles.id_order import TradeOrder
from streamer.candles.minutes import Minute, Timing
from streamer.candles.seeding import SeedSearch
from streamer.candles.silence import SILENT_AFTER_MINUTES, Failures, Silence

MINUTES_KEPT = 3
"""Settled minutes kept for late trades and late klines."""


class SymbolAggregator(TradeOrder):
    """The live candles of one symbol."""

    def __init__(self, instrument: Instrument, timing: Timing, sink: AggregatorEvents) -> None:
        super().__init__(TradeIds() if timing.has_contiguous_ids else SkippingTradeIds())
        self.symbol = instrument.symbol
        self.quotes_fold = instrument.quote_volume_is_exact
        self.late_trades = self.equal_checksums = 0
        self.is_dirty = False
        """Whether ``live_candles`` may have changed since somebody cleared this."""
        self.on_change: Callable[[str, Minute], None] | None = None
        """Told once of a minute that changed, until it is unmarked; None where nobody listens."""
        self._timing = timing
        self._sink = sink
        self._next_minute: int | None = None
        self._silence = Silence()
        self._without_klines = Failures()
        self.without_trades = Failures()
        """Minutes in a row of which klines tell trades that did not come."""
        self._delivers_since_us: int | None = None
        self._connected_us: int | None = None
        """The same time, or that of the trade behind the last hole: since then none is missing."""
        self._is_proven = True

    # --- the connection

    def resume_after(self, last_stored_us: int) -> None:
        """Begin with the minute after the last one the table holds."""
        self._next_minute = last_stored_us + MINUTE_US

    def connected(self, exchange_us: int) -> None:
        """A connection delivers every trade made after ``exchange_us``."""
        self._delivers_since_us = self._connected_us = exchange_us
        if self._next_minute is None:
            self._next_minute = minute_of(exchange_us)
        if self.ids.next_id is None or not self._timing.has_contiguous_ids:
            self._is_proven = True  # of what comes from now on
            self._seek_seed()

    def disconnected(self) -> None:
        """Nothing is delivered any more: no minute is claimed whole until something proves it."""
        self._cut()
        self._is_proven = False
        if self._silence.minutes and self._connected_us is not None:
            self._end_silence(None)  # else nothing came since the last cut: it goes on
        self._delivers_since_us = self._connected_us = None
        if not self._timing.has_contiguous_ids:
            self._break_minutes()

    # --- frames

    def on_trade(self, trade: AggTrade | Trade) -> None:
        """Fold a trade, once, into the minute of its trade time."""
        trade_us = at if (at := trade.trade_time) >= FIRST_US else at * 1000  # a call costs more
        step = self.ids.take(trade, trade_us)
        if step is not FOLLOWS and not self._goes_on(step, trade, trade_us):
            return
        if self._silence.minutes and trade_us >= self._silence.since_us:
            self._end_silence(trade_us)
        self._is_proven = True
        if self._seed is None:
            self._fold(trade, trade_us, step)
        else:
            self._while_seeking(self._seed, trade, trade_us)

    def _break_off(self, step: IdOrder, trade: AggTrade | Trade, trade_us: int) -> None:
        """Ids do not go on: nothing in hand is whole, and folding begins anew from a kline."""
        expected, previous_us = self.ids.broken_at
        if expected is None:
            return
        if step is IdOrder.RESTARTS:
            self._sink.ids_restarted(self.symbol, expected, trade.id, trade_us)
        elif not self._timing.has_contiguous_ids:
            return
        else:
            self._sink.hole(self.symbol, expected, trade.id - 1, previous_us, trade_us)
        self._break_minutes()
        self._connected_us = trade_us
        self._seek_seed()

    def on_kline(self, kline: Kline) -> None:
        """Take the exchange's candle: a seed while it is open, the checksum once closed."""
        open_time_us = microseconds(kline.body.open_time)
        if self.ids.next_id == WAITING:
            self._look_at_wait(kline.event_time, kline.body.last_trade_id)
        if self._silence.minutes and open_time_us >= self._silence.since_us:
            self._end_silence(open_time_us)
        is_known = open_time_us in self.minutes or (
            self._next_minute is not None and open_time_us >= self._next_minute
        )
        if kline.body.is_closed:
            if is_known:
                minute = self.minutes.at(open_time_us)
                if not minute.is_news(kline):
                    return
                if minute.is_settled:
                    self._offer_kline(kline)  # whatever of its trades is late, or never comes
                minute.kline, minute.frame = kline, None
                self._check(minute)
            else:
                self._offer_kline(kline)  # settled long ago, or before our time
        elif is_known:
            self._on_open_kline(kline, self.minutes.at(open_time_us))

    # --- the exchange's clock

    def on_clock(self, exchange_us: int) -> bool:
        """Close minutes whose grace is over, and end the wait for klines; whether one now waits."""
        if self._next_minute is None:
            return False
        if self.ids.next_id == WAITING:
            self._look_at_wait(exchange_us)
        self.ids.may_wait = self._timing.has_contiguous_ids
        has_closed = False
        grace_us = self._timing.grace_us
        self._skip_unknown(exchange_us)
        while self._next_minute + MINUTE_US + grace_us <= exchange_us:
            minute = self.minutes.at(self._next_minute)
            if not minute.is_closed:
                minute.is_closed = True
                has_closed = not minute.is_settled
                self._changed(minute)
            if not minute.is_settled:
                deadline_us = self._next_minute + MINUTE_US + grace_us
                if self._timing.expects_klines:
                    deadline_us += self._timing.kline_timeout_us
                if exchange_us < deadline_us:
                    break
                self._settle_unconfirmed(minute)
            self._watch_trades(self._next_minute - MINUTE_US)
            self._next_minute += MINUTE_US
            self._skip_unknown(exchange_us)
        if len(self.minutes) > MINUTES_KEPT:
            self.minutes.forget(self._next_minute - MINUTES_KEPT * MINUTE_US)
        return has_closed

    @property
    def unsettled_since_us(self) -> int | None:
        """The first minute that is neither settled nor asked about."""
        return self._silence.unasked_since_us if self._silence.minutes else self._next_minute

    def _skip_unknown(self, exchange_us: int) -> None:
        """Ask for a long stretch of which nothing is known (a cut, a stop) as one range."""
        if self._next_minute is None:
            return
        overdue_us = self._timing.grace_us + self._timing.kline_timeout_us + MINUTE_US
        until_us = minute_of(exchange_us - overdue_us)
        if until_us > self._next_minute + MINUTE_US:
            until_us = min([until_us, *(one for one in self.minutes if one >= self._next_minute)])
        if until_us > self._next_minute + MINUTE_US:
            self._sink.ask_rest(self.symbol, self._next_minute, until_us, "not streamed")
            self._next_minute = until_us

    def _ask_rest(self, open_time_us: int, cause: str) -> None:
        self._sink.ask_rest(self.symbol, open_time_us, open_time_us + MINUTE_US, cause)

    def next_deadline_us(self) -> int | None:
        """The exchange's time before which ``on_clock`` has nothing to do."""
        if self._next_minute is None:
            return None
        return self._next_minute + MINUTE_US + self._timing.grace_us

    # --- what is shown live

    def live_candles(self) -> list[tuple[Candle, bool]]:
        """Candles not settled yet, oldest first, each with whether its minute is over."""
        return self.minutes.unsettled(self.symbol)

    def _changed(self, minute: Minute) -> None:
        self.is_dirty = True
        if self.on_change is not None and not minute.is_marked:
            minute.is_marked = True
            self.on_change(self.symbol, minute)

    # --- folding

    def _fold(self, trade: AggTrade | Trade, trade_us: int, step: IdOrder) -> None:
        open_time_us = trade_us - trade_us % MINUTE_US
        minute = self.minutes.get(open_time_us)
        if minute is None:
            horizon = (self._next_minute or 0) - MINUTES_KEPT * MINUTE_US
            if open_time_us < horizon:
                self.late_trades += 1
                self._ask_rest(open_time_us, "a trade came too late")
                return
            minute = self.minutes[open_time_us] = Minute(open_time_us)
        builder = minute.builder
        if builder is None:
            builder = minute.builder = CandleBuilder(self.symbol, open_time_us)
            minute.is_whole = (step is FOLLOWS and self._timing.has_contiguous_ids) or (
                self._connected_us is not None and open_time_us > self._connected_us
            )
        builder.add(trade) if step is FOLLOWS else builder.add_anywhere(trade)
        self.is_dirty = True
        if self.on_change is not None:
            self._changed(minute)
        if minute.kline is not None or minute.is_settled:
            self.late_trades += minute.is_settled
            if minute.is_whole or minute.kline is None:  # else the kline has spoken
                self._check(minute)

    def _break_minutes(self) -> None:
        """Trades are missing: no minute known so far is whole, and frames are shown instead."""
        for minute in self.minutes.values():
            minute.is_whole = False
            self._changed(minute)

    # --- seeding

    def _seek_seed(self) -> None:
        self._seed = SeedSearch(self._connected_us or 0) if self._timing.expects_klines else None

    def _while_seeking(self, seed: SeedSearch, trade: AggTrade | Trade, trade_us: int) -> None:
        connected_us = self._connected_us
        if seed.joined_minute_is_over(trade_us) or (
            connected_us is not None and minute_of(trade_us) > connected_us
        ):
            # The minute joined midway is over; its closed kline will speak for it.
            self._seed = None
            self._fold_kept([*seed.trades, trade])
            return
        self._take_seed(seed.on_trade(trade))

    def _take_seed(self, found: tuple[Kline, list[AggTrade | Trade]] | None) -> None:
        if found is None:
            return
        kline, rest = found
        self._seed = None
        minute = self.minutes.at(microseconds(kline.body.open_time))
        minute.builder = CandleBuilder.from_candle(kline.candle(self.symbol))
        minute.is_whole = True
        self._fold_kept(rest, FOLLOWS)
        self._changed(minute)

    def _fold_kept(self, trades: list[AggTrade | Trade], step: IdOrder = IdOrder.FIRST) -> None:
        for trade in trades:
            self._fold(trade, microseconds(trade.trade_time), step)
            step = FOLLOWS

    # --- settling

    def _on_open_kline(self, kline: Kline, minute: Minute) -> None:
        if minute.frame is None or minute.frame.event_time <= kline.event_time:
            minute.frame = kline
        self._hold_against(kline, minute)
        if self._seed is not None:
            self._take_seed(self._seed.on_kline(kline))
        if not minute.is_whole:
            self._changed(minute)

    def _hold_against(self, kline: Kline, minute: Minute) -> None:
        """Hold the open fold against a kline frame: it proves it, or shows what it lacks."""
        if minute.builder is None or minute.is_settled:
            return
        builder, body = minute.builder, kline.body
        begins_as_folded = body.first_trade_id == builder.first_trade_id
        if body.trade_count and body.last_trade_id == builder.last_trade_id:
            self._is_proven = True
            if minute.is_whole and (body.trade_count, True) != (
                builder.trade_count,
                begins_as_folded,
            ):
                self._sink.corrected(self.symbol, minute.open_time_us, ["trade_count"])
                minute.builder = CandleBuilder.from_candle(kline.candle(self.symbol))
                self._changed(minute)
        elif body.trade_count and minute.is_whole and not begins_as_folded:
            self._sink.corrected(self.symbol, minute.open_time_us, ["first_trade_id"])
            minute.is_whole = False
            self._seek_seed()

    def _check(self, minute: Minute) -> None:
        """Hold the fold against the closed kline once it has reached its last id."""
        kline, builder = minute.kline, minute.builder
        if kline is None:
            self._settle_fold(minute)  # a late trade revises what was entered
            return
        if minute.is_whole and minute.folded_to < kline.body.last_trade_id:
            return  # klines run ahead of their trades; on_clock ends the wait
        theirs = kline.candle(self.symbol)
        if minute.is_whole and builder is not None and builder.trade_count:
            self._compare(minute, builder, theirs)
        self._offer_kline(kline, theirs)
        self._mark_settled(minute)

    def _compare(self, minute: Minute, builder: CandleBuilder, theirs: Candle) -> None:
        fold = builder.candle() if self.quotes_fold else builder.candle().with_quotes_of(theirs)
        differing = differing_values(fold, theirs)
        if differing:
            self._sink.settle(CandleCandidate(fold, Status.UNCONFIRMED, Source.STREAM))
        if names := [*differing, *differing_ids(fold, theirs)]:
            self._sink.differs(self.symbol, fold.open_time_us, names)
        else:
            self.equal_checksums += 1
            minute.builder = CandleBuilder.from_candle(theirs)  # in numbers that are kept anyway

    def _offer_kline(self, kline: Kline, theirs: Candle | None = None) -> None:
        candle, evidence_us = theirs or kline.candle(self.symbol), microseconds(kline.event_time)
        self._sink.settle(CandleCandidate(candle, Status.VERIFIED, Source.KLINE, evidence_us))

    def _settle_unconfirmed(self, minute: Minute) -> None:
        """The wait is over: enter what there is, and ask the exchange by REST."""
        if minute.kline is not None:
            self._offer_kline(minute.kline)  # the fold never reached its last id: it counts
        else:
            self._settle_fold(minute)
            self._miss_kline(minute)
        self._mark_settled(minute)

    def _miss_kline(self, minute: Minute) -> None:
        """No closed kline came: ask REST, and subscribe anew where the stream seems dead."""
        open_time_us = minute.open_time_us
        was_connected = self._was_connected(open_time_us)
        is_apart = self._connected_us is None  # connected anew, and nothing came of any symbol
        is_empty = (was_connected or is_apart) and minute.builder is None and minute.frame is None
        if not is_empty:
            self._ask_rest(open_time_us, NO_CLOSED_KLINE)
        else:
            asked = self._silence.note(open_time_us)
            if self._silence.minutes == SILENT_AFTER_MINUTES:
                self._sink.silent(self.symbol, self._silence.since_us)
            if asked is not None:
                self._sink.ask_rest(self.symbol, *asked, NOTHING_CAME)
        if not self._timing.expects_klines or not was_connected:
            return
        if self.minutes.have_klines_since(open_time_us):
            self._without_klines = Failures()  # one frame was lost, the stream lives
        elif self._without_klines.note():
            self._sink.doubt(self.symbol, "no closed kline in time")

    def _watch_trades(self, open_time_us: int) -> None:
        """A stream of trades can die alone: the klines of a whole minute tell of it."""
        minute = self.minutes.get(open_time_us)
        if minute is None or minute.kline is None or not minute.kline.body.trade_count:
            return
        if self.ids.last_trade_us >= open_time_us or not self._was_connected(open_time_us):
            self.without_trades = Failures()
        elif self.without_trades.note():
            self._sink.doubt(self.symbol, "klines tell of trades that did not come")

    def _was_connected(self, open_time_us: int) -> bool:
        """Whether the connection has delivered since before a minute."""
        return self._delivers_since_us is not None and open_time_us > self._delivers_since_us

    def _end_silence(self, until_us: int | None) -> None:
        """Something came again, or (None) the connection ended."""
        since_us, minutes = self._silence.since_us, self._silence.minutes
        if (left := self._silence.end()) is not None:
            self._sink.ask_rest(self.symbol, *left, NOTHING_CAME)
        if until_us is not None and minutes >= SILENT_AFTER_MINUTES:
            self._sink.speaks_again(self.symbol, since_us, until_us)

    def _settle_fold(self, minute: Minute) -> None:
        """Enter what was folded; where quotes cannot be folded, it waits for the exchange."""
        builder = minute.builder
        if builder is None or not builder.trade_count or not self.quotes_fold:
            return
        frame = minute.frame
        is_behind = frame is not None and frame.body.last_trade_id > builder.last_trade_id
        is_sure = minute.is_whole and self._is_proven and not is_behind
        status = Status.UNCONFIRMED if is_sure else Status.PARTIAL
        self._sink.settle(CandleCandidate(builder.candle(), status, Source.STREAM))

    def _mark_settled(self, minute: Minute) -> None:
        minute.is_settled = True
        self._changed(minute)
