"""The live streams of the simulated market: each a lazy sequence of frames by due time."""

import asyncio
import heapq
import itertools
from collections.abc import Iterator

import structlog

from simulator.clock import MINUTE_US, Clock
from simulator.market.history import History
from simulator.market.instruments import MarketName
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, Interval, parse_interval
from simulator.market.klines import Kline
from simulator.market.market import Market
from simulator.market.running import RunningMinute, extend_kline
from simulator.market.schedule import (
    KlineClose,
    KlineUpdate,
    agg_trades_due,
    kline_events,
    trades_due,
)
from simulator.market.tape import Tape
from simulator.streams.hub import Hub, Render
from simulator.wire.frames import agg_trade_payload, kline_payload, trade_payloads

_LOOKBACK_US = 1_000_000  # frames may be due this long after their trade
_BATCH_FRAMES = 512  # written before others get their turn
_LONGEST_SLEEP_S = 0.25

DueFrame = tuple[int, Render]


def agg_trade_feed(history: History, from_us: int) -> Iterator[DueFrame]:
    """`aggTrade` frames due from `from_us` on, without end."""
    market = history.instrument.market
    for tape in _tapes(history, from_us):
        for row, due_us in enumerate(agg_trades_due(market, tape).tolist()):
            if due_us >= from_us:
                yield due_us, _render_agg_trade(tape, row, due_us)


def trade_feed(history: History, from_us: int) -> Iterator[DueFrame]:
    """`trade` frames due from `from_us` on, without end; the fills of an order come together."""
    for tape in _tapes(history, from_us):
        for row, due_us in enumerate(trades_due(tape).tolist()):
            if due_us >= from_us:
                yield due_us, _render_trades(tape, row, due_us)


def kline_feed(
    market: Market, history: History, interval: Interval, name: str, from_us: int, *, seed: int
) -> Iterator[DueFrame]:
    """`kline_<name>` frames due from `from_us` on, without end."""
    for minute in itertools.count(max(history.start_minute, from_us // MINUTE_US)):
        earlier = _Earlier(market, history, interval, minute)
        for event in kline_events(history, minute, interval=interval.name, seed=seed):
            if event.due_us < from_us:
                continue
            if isinstance(event, KlineClose):
                closed = earlier.closed_at(event.end_us)
                if closed is not None:
                    yield event.due_us, _render_kline(history, closed, name, True, event.due_us)
            else:
                current = earlier.open_after(event)
                yield event.due_us, _render_kline(history, current, name, False, event.due_us)


class _Earlier:
    """What the bars of one minute build on: trades of the same bar before the minute."""

    def __init__(self, market: Market, history: History, interval: Interval, minute: int) -> None:
        self._market = market
        self._history = history
        self._interval = interval
        self._minute_us = minute * MINUTE_US
        self._running: dict[int, RunningMinute] = {}
        self._base: Kline | None = None
        self._has_base = False

    def closed_at(self, end_us: int) -> Kline | None:
        """The bar that ended at `end_us`; None if none of this interval did."""
        if self._interval.open_of(end_us) != end_us or end_us <= self._history.start_us:
            return None
        rows = self._market.klines(
            self._history.instrument.symbol, self._interval, view_us=end_us - 1, limit=1
        )
        return rows[0]

    def open_after(self, event: KlineUpdate) -> Kline:
        """The open bar after an update's trade."""
        tape = self._history.minute(self._minute_us // MINUTE_US)
        time_us = int(tape.time_us[event.row])
        if self._interval.name == "1s":
            open_us = self._interval.open_of(time_us)
            begin = int(tape.time_us.searchsorted(open_us))
            second = tape.between(begin, len(tape))
            running = RunningMinute(
                second, open_us=open_us, close_us=self._interval.next_open(open_us) - 1
            )
            return running.after(event.row - begin, unsent_fills=event.unsent_fills)
        open_us = self._interval.open_of(self._minute_us)
        if not self._has_base:
            self._has_base = True
            if max(open_us, self._history.start_us) < self._minute_us:
                self._base = self._market.klines(
                    self._history.instrument.symbol,
                    self._interval,
                    view_us=self._minute_us - 1,
                    limit=1,
                )[0]
        running = self._running.setdefault(
            open_us,
            RunningMinute(tape, open_us=open_us, close_us=self._interval.next_open(open_us) - 1),
        )
        later = running.after(event.row, unsent_fills=event.unsent_fills)
        return extend_kline(self._base, later)


def _tapes(history: History, from_us: int) -> Iterator[Tape]:
    minute = max(history.start_minute, (from_us - _LOOKBACK_US) // MINUTE_US)
    while True:
        minute = history.next_traded_minute(minute)
        yield history.minute(minute)
        minute += 1


def _render_agg_trade(tape: Tape, row: int, due_us: int) -> Render:
    return lambda unit_us: [agg_trade_payload(tape, row, event_us=due_us, unit_us=unit_us)]


def _render_trades(tape: Tape, row: int, due_us: int) -> Render:
    return lambda unit_us: trade_payloads(tape, row, event_us=due_us, unit_us=unit_us)


def _render_kline(
    history: History, kline: Kline, interval: str, is_closed: bool, due_us: int
) -> Render:
    return lambda unit_us: [
        kline_payload(
            history.instrument,
            kline,
            interval=interval,
            is_closed=is_closed,
            event_us=due_us,
            unit_us=unit_us,
        )
    ]


def open_feed(market: Market, name: str, from_us: int, *, seed: int) -> Iterator[DueFrame] | None:
    """The feed of a stream by its name, e.g. `btcusdt@kline_1m`; None if there is no such one."""
    lower, _, kind = name.partition("@")
    symbol = lower.upper()
    if lower != lower.lower() or symbol not in market:
        return None
    history = market.history(symbol)
    if kind == "aggTrade":
        return agg_trade_feed(history, from_us)
    if kind == "trade":
        return trade_feed(history, from_us)
    if not kind.startswith("kline_"):
        return None
    interval_name, _, zone = kind.removeprefix("kline_").partition("@")
    offered = SPOT_INTERVALS if history.instrument.market == "spot" else UM_INTERVALS
    if interval_name not in offered or zone not in ("", "+08:00"):
        return None
    interval = parse_interval(interval_name, time_zone=zone or "0")
    return kline_feed(market, history, interval, interval_name, from_us, seed=seed)


class Pump:
    """Sends the frames of all subscribed streams of one market when they are due."""

    def __init__(self, name: MarketName, market: Market, clock: Clock, *, seed: int) -> None:
        self.hub = Hub(on_first=self._open, on_last=self._close)
        self._market = market
        self._clock = clock
        self._seed = seed
        self._heap: list[tuple[int, int, str, Render]] = []
        self._feeds: dict[str, tuple[int, Iterator[DueFrame]]] = {}
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._log = structlog.get_logger("simulator").bind(market=name)
        self.frames_sent = 0

    def _open(self, stream: str) -> None:
        feed = open_feed(self._market, stream, self._clock.now_us(), seed=self._seed)
        if feed is None:
            self._log.debug("unknown_stream_acknowledged", stream=stream)
            return
        number = next(self._numbers)
        self._feeds[stream] = (number, feed)
        self._advance(stream, number, feed)
        self._changed.set()

    def _close(self, stream: str) -> None:
        self._feeds.pop(stream, None)

    def _advance(self, stream: str, number: int, feed: Iterator[DueFrame]) -> None:
        due_us, render = next(feed)
        heapq.heappush(self._heap, (due_us, number, stream, render))

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            busy = self._send_due()
            self.hub.flush()
            await self._pause(busy)

    async def _pause(self, busy: bool) -> None:
        if busy:
            await asyncio.sleep(0)
            return
        left_s = _LONGEST_SLEEP_S
        if self._heap:
            left_s = min(left_s, self._clock.seconds_until(self._heap[0][0]))
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), timeout=max(left_s, 0.0005))
        except TimeoutError:
            return

    def _send_due(self) -> bool:
        """Sends what is due, at most one batch; True if more may be due."""
        now_us = self._clock.now_us()
        for _ in range(_BATCH_FRAMES):
            if not self._heap or self._heap[0][0] > now_us:
                return False
            _, number, stream, render = heapq.heappop(self._heap)
            current = self._feeds.get(stream)
            if current is None or current[0] != number:
                continue  # closed, or closed and opened again
            self.frames_sent += self.hub.deliver(stream, render)
            self._advance(stream, number, current[1])
        return True
