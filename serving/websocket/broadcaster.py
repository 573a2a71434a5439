"""Sends changes of the same bars to many readers, each at its own pace.

A change is encoded once, and noted for each reader of its symbol. A reader that has not received
the previous state gets the newest one instead. Rounds over all readers follow one another, with
half of the event loop's time left to other work: a few readers receive changes immediately,
thousands a few times a second. New changes are added during a round, so that readers late in the
round receive the state of that moment.

Call it from the event loop's own thread.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from include.domain.timeframes import Timeframe
from serving.bars.live_bars import LiveBars
from serving.bars.subscription import Bars, BarSubscription, BarUpdate, MissedBars
from serving.http.encoded_frames import Frames
from serving.websocket import messages
from serving.websocket.messages import control_message, missed_of
from streamer.hub.mailbox import TimeRange

MAX_PAUSE_S = 0.05
"""Maximum pause between two rounds; normally as long as the previous round."""
POLL_INTERVAL_S = 0.01
"""Interval at which new changes are added during a round."""
READERS_PER_TURN = 100
"""Readers in one turn of the event loop, which takes two to three ms."""
BARS_PER_SYMBOL = 10
MIN_BARS_WAITING = 1_000
"""Bars that may wait for a reader: for each symbol, and in all."""

CONFLATED_INTERVAL_S = 1.0
"""A reader learns at most this often how many states were conflated."""

Key = tuple[str, int]
"""Symbol, and open time in µs; 0 if only the newest bar is sent."""


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """Encoding of changes.

    Attributes:
        encode: encodes a change as a fragment.
        join: joins fragments to frames.
        is_newest_only: send only a symbol's newest bar, and report nothing as missed.
        has_ids: a reader's id of the symbol precedes each fragment.
    """

    encode: Callable[[BarUpdate], bytes]
    join: Callable[[Sequence[bytes]], bytes]
    is_newest_only: bool = False
    has_ids: bool = False


CANDLES = MessageFormat(messages.candle_of, messages.candles)
PRICES = MessageFormat(messages.price_of, messages.prices, is_newest_only=True)
BINARY_PRICES = MessageFormat(
    messages.values_of, messages.binary_prices, is_newest_only=True, has_ids=True
)


@dataclass(slots=True, eq=False)
class SharedState:
    """The newest state of a bar, shared by all readers for whom it waits.

    Attributes:
        fragment: the encoded state.
        is_revision: it was sent as a revision.
        delivered_to: readers that have received it.
    """

    fragment: bytes = b""
    is_revision: bool = False
    delivered_to: set[Listener] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Listener:
    """One reader of some symbols.

    Attributes:
        to: sends frames to the reader.
        on_gone: called if the reader reads nothing for ``patience_s``.
        on_end: called when nothing more will come.
        ids: the reader's ids of symbols.
        symbols: the subscribed symbols.
        waiting: what to send next.
        missed: open times of evicted bars, by symbol.
    """

    to: Frames
    on_gone: Callable[[], None]
    on_end: Callable[[], None]
    patience_s: float
    ids: dict[str, bytes] = field(default_factory=dict)
    symbols: set[str] = field(default_factory=set)
    waiting: dict[Key, SharedState] = field(default_factory=dict)
    missed: dict[str, TimeRange] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    conflated: int = 0
    """Conflated states that were not reported to the reader yet."""
    conflated_sent_s: float = -math.inf

    def miss(self, symbol: str, start_us: int, end_us: int) -> None:
        """Note evicted bars, by their open times."""
        missed = TimeRange(start_us, end_us)
        self.missed[symbol] = missed.union(self.missed.get(symbol, missed))


class BarBroadcaster:
    """All readers of one timeframe in one format.

    It subscribes to the live bars while there are readers.
    """

    def __init__(self, live_bars: LiveBars, timeframe: Timeframe, form: MessageFormat) -> None:
        self._live_bars = live_bars
        self._timeframe = timeframe
        self._form = form
        self._subscription: BarSubscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._by_symbol: dict[str, dict[Listener, None]] = {}
        self._waiting: dict[Listener, None] = {}
        """Readers with something to send, oldest first."""
        self._newest: dict[str, int] = {}
        self._states: dict[Key, SharedState] = {}
        """Changes that the running round sends."""
        self._found: dict[Key, SharedState] = {}
        """Changes during the round: sent in the next one."""
        self._slow: set[Listener] = set()
        """Readers under backpressure."""
        self.conflated = 0
        """States that newer ones replaced before readers received them."""

    @property
    def has_ids(self) -> bool:
        """Whether ids stand for symbols, which readers must receive first."""
        return self._form.has_ids

    async def add(self, listener: Listener, symbols: Iterable[str]) -> None:
        """Add symbols for a reader; their present bars come first."""
        fresh = [one for one in symbols if one not in listener.symbols]
        if self._subscription is None:
            self._subscription = self._live_bars.subscribe([], [self._timeframe])
            self._task = asyncio.create_task(self._run(self._subscription), name="broadcaster")
        for symbol in fresh:
            self._by_symbol.setdefault(symbol, {})[listener] = None
        listener.symbols.update(fresh)
        self._live_bars.add_symbols(self._subscription, fresh)
        # Other readers have these already; states that are still unknown go to all when they are
        # read.
        with self._live_bars.subscribe(fresh, [self._timeframe]) as present:
            while bars := present.drain():
                for update in self._shown(bars.updates):
                    key = self._key(update)
                    if (
                        update.candle.symbol in listener.symbols
                    ):  # it may have been removed meanwhile
                        listener.waiting[key] = self._state(key, update)
                self._send(listener)
                await asyncio.sleep(0)

    def remove(self, listener: Listener, symbols: Iterable[str]) -> None:
        """Remove symbols of a reader."""
        left = []
        for symbol in listener.symbols & set(symbols):
            listeners = self._by_symbol[symbol]
            del listeners[listener]
            if not listeners:
                del self._by_symbol[symbol]
                self._newest.pop(symbol, None)
                left.append(symbol)
            listener.symbols.discard(symbol)
            listener.missed.pop(symbol, None)
        listener.waiting = {
            key: one for key, one in listener.waiting.items() if key[0] in listener.symbols
        }
        if not listener.symbols:
            self._forget(listener)
        if self._subscription is not None:
            self._live_bars.remove_symbols(self._subscription, left)
            if not self._by_symbol:
                self._subscription.unsubscribe()
                self._subscription = None
                self._states, self._found = {}, {}

    # --- inside

    def _forget(self, listener: Listener) -> None:
        self._waiting.pop(listener, None)
        self._slow.discard(listener)
        if listener.timer is not None:
            listener.timer.cancel()

    async def _run(self, subscription: BarSubscription) -> None:
        """Run rounds until there are no readers or the live bars end."""
        loop = asyncio.get_running_loop()
        while (bars := await self._next(subscription)) is not None:
            began_s = checked_s = loop.time()
            self._begin_round(bars)
            while waiting := list(islice(self._waiting, READERS_PER_TURN)):
                for listener in waiting:
                    del self._waiting[listener]
                    self._send(listener)
                await asyncio.sleep(0)  # lets the loop write to sockets
                if self._waiting and loop.time() - checked_s >= POLL_INTERVAL_S:
                    self._add_changes(subscription.drain())
                    checked_s = loop.time()
            took_s = loop.time() - began_s
            await asyncio.sleep(min(took_s, MAX_PAUSE_S))
        if subscription is self._subscription:  # the live bars have ended
            self._subscription = None
            for listener in {one: None for some in self._by_symbol.values() for one in some}:
                listener.on_end()

    async def _next(self, subscription: BarSubscription) -> Bars | None:
        """The first changes of the next round; None once nothing will change."""
        if self._found and subscription is self._subscription:
            return subscription.drain()
        return await subscription.receive()

    def _begin_round(self, bars: Bars) -> None:
        """Note the changes for their readers."""
        self._add_changes(bars)
        self._states, self._found = self._found, {}
        for key, state in self._states.items():
            for listener in self._by_symbol.get(key[0], ()):
                if listener not in state.delivered_to:
                    listener.waiting[key] = state
                    self._waiting[listener] = None

    def _add_changes(self, bars: Bars) -> None:
        """Add changes; a newer state replaces an older one that waits."""
        for update in self._shown(bars.updates):
            listeners = self._by_symbol.get(update.candle.symbol)
            if not listeners:
                continue
            key = self._key(update)
            if self._slow and not self._form.is_newest_only:
                for listener in listeners.keys() & self._slow:
                    if key in listener.waiting:
                        listener.conflated += 1
                        self.conflated += 1
            self._found[key] = self._state(key, update)
        if not self._form.is_newest_only:
            for missed in bars.missed:
                for listener in self._by_symbol.get(missed.symbol, ()):
                    listener.miss(missed.symbol, missed.start_us, missed.end_us)
                    self._waiting[listener] = None

    def _state(self, key: Key, update: BarUpdate) -> SharedState:
        """The shared state of a bar, in this round or the next, updated."""
        state = self._states.get(key) or self._found.get(key) or SharedState()
        if state.is_revision and not update.is_revision:
            update = replace(update, is_revision=True)
        state.is_revision = update.is_revision
        fragment = self._form.encode(update)
        if fragment != state.fragment:
            state.fragment = fragment
            state.delivered_to.clear()
        return state

    def _shown(self, updates: Sequence[BarUpdate]) -> Iterable[BarUpdate]:
        """Updates to send in this format."""
        if not self._form.is_newest_only:
            return updates
        newest: dict[str, BarUpdate] = {}
        for one in updates:
            symbol, open_time_us = one.candle.symbol, one.candle.open_time_us
            if open_time_us >= self._newest.get(symbol, open_time_us):
                self._newest[symbol] = open_time_us
                newest[symbol] = one
        return newest.values()

    def _key(self, update: BarUpdate) -> Key:
        at_us = 0 if self._form.is_newest_only else update.candle.open_time_us
        return update.candle.symbol, at_us

    def _send(self, listener: Listener) -> None:
        """Send a reader what waits, or wait until it is writable."""
        if not listener.waiting and not listener.missed:
            return
        if listener.to.is_writable():
            listener.to.write_frames(self._frames(listener))
            return
        most = max(BARS_PER_SYMBOL * len(listener.symbols), MIN_BARS_WAITING)
        for symbol, at_us in list(islice(listener.waiting, max(len(listener.waiting) - most, 0))):
            del listener.waiting[symbol, at_us]
            listener.miss(symbol, at_us, self._timeframe.next_open_us(at_us))
        self._slow.add(listener)
        if listener.timer is None:
            loop = asyncio.get_running_loop()
            listener.timer = loop.call_later(listener.patience_s, listener.on_gone)
            listener.to.call_when_writable(partial(self._go_on, listener))

    def _frames(self, listener: Listener) -> bytes:
        """Encode all that waits for a reader."""
        waiting, listener.waiting = listener.waiting, {}
        for state in waiting.values():
            state.delivered_to.add(listener)
        if self._form.has_ids:
            items = [listener.ids[key[0]] + one.fragment for key, one in waiting.items()]
            frames = self._form.join(items)
        else:
            frames = self._form.join([one.fragment for one in waiting.values()]) if waiting else b""
        if listener.missed:
            spans, listener.missed = listener.missed, {}
            missed = [MissedBars(one, self._timeframe.name, *span) for one, span in spans.items()]
            frames += messages.framed(messages.TEXT, missed_of(missed).encode())
        if listener.conflated:
            frames += self._conflated(listener)
        return frames

    def _conflated(self, listener: Listener) -> bytes:
        """The number of conflated states; empty if it was sent just now."""
        now_s = asyncio.get_running_loop().time()
        if now_s - listener.conflated_sent_s < CONFLATED_INTERVAL_S:
            return b""
        count, listener.conflated, listener.conflated_sent_s = listener.conflated, 0, now_s
        return messages.framed(messages.TEXT, control_message("conflated", count=count).encode())

    def _go_on(self, listener: Listener) -> None:
        if listener.timer is not None:
            listener.timer.cancel()
            listener.timer = None
        self._slow.discard(listener)
        self._send(listener)


class BarBroadcasters:
    """All broadcasters of a server, created on demand."""

    def __init__(self, live_bars: LiveBars) -> None:
        self._live_bars = live_bars
        self._broadcasters: dict[tuple[str, MessageFormat], BarBroadcaster] = {}

    @property
    def conflated(self) -> int:
        """States that newer ones replaced before readers received them."""
        return sum(one.conflated for one in self._broadcasters.values())

    def of(self, timeframe: Timeframe, form: MessageFormat) -> BarBroadcaster:
        """The broadcaster of a timeframe in a format."""
        key = timeframe.name, form
        if key not in self._broadcasters:
            self._broadcasters[key] = BarBroadcaster(self._live_bars, timeframe, form)
        return self._broadcasters[key]
