"""Many readers of the same bars: told from one watch, each at its own pace.

A change is encoded once and noted with whoever listens to its symbol; a reader that has not taken
the last state yet gets the newest in its place. Rounds over the readers follow one another as fast
as they leave the event loop half of its time: few readers are told at once, thousands a few times
a second. In the midst of a round the board is looked at again: who comes late in it is told what
is so by then.

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
from serving.bars.subscription import Bars, BarSubscription, BarUpdate, Missed
from serving.http.encoded_frames import Frames
from serving.websocket import messages
from serving.websocket.messages import missed_of, told
from streamer.hub.mailbox import TimeRange

MAX_PAUSE_S = 0.05
"""Between two rounds; else as long as the last one took."""
LOOK_S = 0.01
"""So often the board is looked at in the midst of a round."""
READERS_A_TURN = 100
"""Told in one turn of the event loop, which is two to three milliseconds."""
BARS_PER_SYMBOL = 10
MIN_BARS_WAITING = 1_000
"""Bars that may wait for a reader, a symbol, and in all."""

CONFLATED_INTERVAL_S = 1.0
"""So often a reader is told at most how many states it was too slow for."""

Key = tuple[str, int]
"""Symbol, and open time in µs; 0 where only the newest is told."""


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """How changes are told.

    Attributes:
        encode: makes a fragment of a change.
        join: makes frames of messages.
        is_newest_only: of a symbol's bars only the newest is told, and nothing that was missed.
        has_ids: what a reader knows a symbol by stands before each of its messages.
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
    """A bar as it stands, shared by all for whom it waits: it is the newest for each of them.

    Attributes:
        fragment: it, encoded.
        is_revision: it was told as one.
        told: who knows it as it stands.
    """

    fragment: bytes = b""
    is_revision: bool = False
    told: set[Listener] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Listener:
    """One reader of some symbols.

    Attributes:
        to: takes what it is told.
        on_gone: called where it has taken nothing for ``patience_s``.
        on_end: called where nothing more will be told.
        ids: what it knows symbols by.
        symbols: those it listens to.
        waiting: what it is told next.
        missed: first and last open time, by symbol, of what it is not told.
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
    """States that newer ones replaced before it took them, and of which it was not told yet."""
    conflated_sent_s: float = -math.inf

    def miss(self, symbol: str, start_us: int, end_us: int) -> None:
        """States of bars that open in this range are not told."""
        missed = TimeRange(start_us, end_us)
        self.missed[symbol] = missed.union(self.missed.get(symbol, missed))


class BarBroadcaster:
    """Readers of bars of one timeframe in one form.

    It watches the board while anybody listens.
    """

    def __init__(self, live_bars: LiveBars, timeframe: Timeframe, form: MessageFormat) -> None:
        self._live_bars = live_bars
        self._timeframe = timeframe
        self._form = form
        self._subscription: BarSubscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._by_symbol: dict[str, dict[Listener, None]] = {}
        self._waiting: dict[Listener, None] = {}
        """Who has something to be told, in the order in which it came."""
        self._newest: dict[str, int] = {}
        self._states: dict[Key, SharedState] = {}
        """What the running round tells."""
        self._found: dict[Key, SharedState] = {}
        """What was found in its midst, newer states of these among it: the next round's."""
        self._slow: set[Listener] = set()
        """Who has not taken what it was given."""
        self.conflated = 0
        """States of bars that newer ones replaced before readers took them."""

    @property
    def has_ids(self) -> bool:
        """Whether symbols are told by numbers, which a reader has to know first."""
        return self._form.has_ids

    async def add(self, listener: Listener, symbols: Iterable[str]) -> None:
        """Tell a reader of further symbols; their present bars come first."""
        fresh = [one for one in symbols if one not in listener.symbols]
        if self._subscription is None:
            self._subscription = self._live_bars.subscribe([], [self._timeframe])
            self._task = asyncio.create_task(self._run(self._subscription), name="audience")
        for symbol in fresh:
            self._by_symbol.setdefault(symbol, {})[listener] = None
        listener.symbols.update(fresh)
        self._live_bars.add_symbols(self._subscription, fresh)
        # what the others know already; what nobody knows yet is told to all when it is read
        with self._live_bars.subscribe(fresh, [self._timeframe]) as present:
            while bars := present.drain():
                for update in self._shown(bars.updates):
                    key = self._key(update)
                    if update.candle.symbol in listener.symbols:  # it may have left meanwhile
                        listener.waiting[key] = self._state(key, update)
                self._send(listener)
                await asyncio.sleep(0)

    def remove(self, listener: Listener, symbols: Iterable[str]) -> None:
        """Tell a reader of these symbols no longer."""
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
        """Tell, round after round, until nobody listens or nothing will change."""
        loop = asyncio.get_running_loop()
        while (bars := await self._next(subscription)) is not None:
            began_s = looked_s = loop.time()
            self._begin_round(bars)
            while waiting := list(islice(self._waiting, READERS_A_TURN)):
                for listener in waiting:
                    del self._waiting[listener]
                    self._send(listener)
                await asyncio.sleep(0)  # the loop writes what it was given
                if self._waiting and loop.time() - looked_s >= LOOK_S:
                    self._look(subscription.drain())
                    looked_s = loop.time()
            took_s = loop.time() - began_s
            await asyncio.sleep(min(took_s, MAX_PAUSE_S))
        if subscription is self._subscription:  # not left, but at its end
            self._subscription = None
            for listener in {one: None for some in self._by_symbol.values() for one in some}:
                listener.on_end()

    async def _next(self, subscription: BarSubscription) -> Bars | None:
        """What the next round begins with; None once nothing will change."""
        if self._found and subscription is self._subscription:
            return subscription.drain()
        return await subscription.receive()

    def _begin_round(self, bars: Bars) -> None:
        """Have all who listen to what has changed told of it."""
        self._look(bars)
        self._states, self._found = self._found, {}
        for key, state in self._states.items():
            for listener in self._by_symbol.get(key[0], ()):
                if listener not in state.told:
                    listener.waiting[key] = state
                    self._waiting[listener] = None

    def _look(self, bars: Bars) -> None:
        """Take up what has changed; for whom an older state waits, the newer one does now."""
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
        """The state of a bar that this round tells, or the next one, which is this by now."""
        state = self._states.get(key) or self._found.get(key) or SharedState()
        if state.is_revision and not update.is_revision:
            update = replace(update, is_revision=True)
        state.is_revision = update.is_revision
        fragment = self._form.encode(update)
        if fragment != state.fragment:
            state.fragment = fragment
            state.told.clear()
        return state

    def _shown(self, updates: Sequence[BarUpdate]) -> Iterable[BarUpdate]:
        """Those that are told."""
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
        """Tell a reader what waits for it, or have it told when it takes more."""
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
        """All that waits for a reader, which waits no longer."""
        waiting, listener.waiting = listener.waiting, {}
        for state in waiting.values():
            state.told.add(listener)
        if self._form.has_ids:
            items = [listener.ids[key[0]] + one.fragment for key, one in waiting.items()]
            frames = self._form.join(items)
        else:
            frames = self._form.join([one.fragment for one in waiting.values()]) if waiting else b""
        if listener.missed:
            spans, listener.missed = listener.missed, {}
            missed = [Missed(one, self._timeframe.name, *span) for one, span in spans.items()]
            frames += messages.framed(messages.TEXT, missed_of(missed).encode())
        if listener.conflated:
            frames += self._conflated(listener)
        return frames

    def _conflated(self, listener: Listener) -> bytes:
        """How many states a reader was too slow for; nothing where it was told just now."""
        now_s = asyncio.get_running_loop().time()
        if now_s - listener.conflated_sent_s < CONFLATED_INTERVAL_S:
            return b""
        count, listener.conflated, listener.conflated_sent_s = listener.conflated, 0, now_s
        return messages.framed(messages.TEXT, told("conflated", count=count).encode())

    def _go_on(self, listener: Listener) -> None:
        if listener.timer is not None:
            listener.timer.cancel()
            listener.timer = None
        self._slow.discard(listener)
        self._send(listener)


class BarBroadcasters:
    """All of a server, made where somebody listens."""

    def __init__(self, live_bars: LiveBars) -> None:
        self._live_bars = live_bars
        self._broadcasters: dict[tuple[str, MessageFormat], BarBroadcaster] = {}

    @property
    def conflated(self) -> int:
        """States of bars that newer ones replaced before readers took them."""
        return sum(one.conflated for one in self._broadcasters.values())

    def of(self, timeframe: Timeframe, form: MessageFormat) -> BarBroadcaster:
        """Those who listen to a timeframe in a form."""
        key = timeframe.name, form
        if key not in self._broadcasters:
            self._broadcasters[key] = BarBroadcaster(self._live_bars, timeframe, form)
        return self._broadcasters[key]
