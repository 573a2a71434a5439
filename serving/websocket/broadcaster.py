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
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from include.domain.timeframes import Timeframe
from serving.bars.live_bars import LiveBars
from serving.bars.subscription import Bars, BarSubscription, BarUpdate, Missed
from serving.websocket import fragments
from serving.websocket.listeners import Form, Key, Listener, State
from serving.websocket.messages import missed_of, told

MAX_PAUSE_S = 0.05
"""Between two rounds; else as long as the last one took."""
LOOK_S = 0.01
"""So often the board is looked at in the midst of a round."""
READERS_A_TURN = 100
"""Told in one turn of the event loop, which is two to three milliseconds."""
BARS_IN_HAND = 10
MIN_IN_HAND = 1_000
"""Bars that may wait for a reader, a symbol, and in all."""

CONFLATED_TOLD_S = 1.0
"""So often a reader is told at most how many states it was too slow for."""


class BarBroadcaster:
    """Readers of bars of one timeframe in one form.

    It watches the board while anybody listens.
    """

    def __init__(self, board: LiveBars, timeframe: Timeframe, form: Form) -> None:
        self._board = board
        self._timeframe = timeframe
        self._form = form
        self._watch: BarSubscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._by_symbol: dict[str, dict[Listener, None]] = {}
        self._waiting: dict[Listener, None] = {}
        """Who has something to be told, in the order in which it came."""
        self._newest: dict[str, int] = {}
        self._states: dict[Key, State] = {}
        """What the running round tells."""
        self._found: dict[Key, State] = {}
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
        if self._watch is None:
            self._watch = self._board.subscribe([], [self._timeframe])
            self._task = asyncio.create_task(self._run(self._watch), name="audience")
        for symbol in fresh:
            self._by_symbol.setdefault(symbol, {})[listener] = None
        listener.symbols.update(fresh)
        self._board.add_symbols(self._watch, fresh)
        # what the others know already; what nobody knows yet is told to all when it is read
        with self._board.subscribe(fresh, [self._timeframe]) as present:
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
        if self._watch is not None:
            self._board.remove_symbols(self._watch, left)
            if not self._by_symbol:
                self._watch.unsubscribe()
                self._watch = None
                self._states, self._found = {}, {}

    # --- inside

    def _forget(self, listener: Listener) -> None:
        self._waiting.pop(listener, None)
        self._slow.discard(listener)
        if listener.timer is not None:
            listener.timer.cancel()

    async def _run(self, watch: BarSubscription) -> None:
        """Tell, round after round, until nobody listens or nothing will change."""
        loop = asyncio.get_running_loop()
        while (bars := await self._next(watch)) is not None:
            began_s = looked_s = loop.time()
            self._begin_round(bars)
            while waiting := list(islice(self._waiting, READERS_A_TURN)):
                for listener in waiting:
                    del self._waiting[listener]
                    self._send(listener)
                await asyncio.sleep(0)  # the loop writes what it was given
                if self._waiting and loop.time() - looked_s >= LOOK_S:
                    self._look(watch.drain())
                    looked_s = loop.time()
            took_s = loop.time() - began_s
            await asyncio.sleep(min(took_s, MAX_PAUSE_S))
        if watch is self._watch:  # not left, but at its end
            self._watch = None
            for listener in {one: None for some in self._by_symbol.values() for one in some}:
                listener.on_end()

    async def _next(self, watch: BarSubscription) -> Bars | None:
        """What the next round begins with; None once nothing will change."""
        if self._found and watch is self._watch:
            return watch.drain()
        return await watch.receive()

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

    def _state(self, key: Key, update: BarUpdate) -> State:
        """The state of a bar that this round tells, or the next one, which is this by now."""
        state = self._states.get(key) or self._found.get(key) or State()
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
        if listener.to.takes():
            listener.to.push(self._frames(listener))
            return
        most = max(BARS_IN_HAND * len(listener.symbols), MIN_IN_HAND)
        for symbol, at_us in list(islice(listener.waiting, max(len(listener.waiting) - most, 0))):
            del listener.waiting[symbol, at_us]
            listener.miss(symbol, at_us, self._timeframe.next_open_us(at_us))
        self._slow.add(listener)
        if listener.timer is None:
            loop = asyncio.get_running_loop()
            listener.timer = loop.call_later(listener.patience_s, listener.on_gone)
            listener.to.when_it_takes(partial(self._go_on, listener))

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
            frames += fragments.framed(fragments.TEXT, missed_of(missed).encode())
        if listener.conflated:
            frames += self._conflated(listener)
        return frames

    def _conflated(self, listener: Listener) -> bytes:
        """How many states a reader was too slow for; nothing where it was told just now."""
        now_s = asyncio.get_running_loop().time()
        if now_s - listener.conflated_told_s < CONFLATED_TOLD_S:
            return b""
        count, listener.conflated, listener.conflated_told_s = listener.conflated, 0, now_s
        return fragments.framed(fragments.TEXT, told("conflated", count=count).encode())

    def _go_on(self, listener: Listener) -> None:
        if listener.timer is not None:
            listener.timer.cancel()
            listener.timer = None
        self._slow.discard(listener)
        self._send(listener)


class BarBroadcasters:
    """All of a server, made where somebody listens."""

    def __init__(self, board: LiveBars) -> None:
        self._board = board
        self._audiences: dict[tuple[str, Form], BarBroadcaster] = {}

    @property
    def conflated(self) -> int:
        """States of bars that newer ones replaced before readers took them."""
        return sum(one.conflated for one in self._audiences.values())

    def of(self, timeframe: Timeframe, form: Form) -> BarBroadcaster:
        """Those who listen to a timeframe in a form."""
        key = timeframe.name, form
        if key not in self._audiences:
            self._audiences[key] = BarBroadcaster(self._board, timeframe, form)
        return self._audiences[key]
