"""Pass changes of live candles to readers in this process.

A change only marks the candle, whatever the number of trades and readers. Marks reach the
subscriptions once in each turn of the event loop, and the candle is built when a reader receives
it. Guarantees:

- States are conflated by symbol and minute: no state of a later minute replaces a closed candle.
- Until a minute closes, no state replaces a newer one. After that, only candidates that win the
  merge (``include/domain/merge.py``) are published: the last one is the table's row, as far as
  this process knows.
- Mailboxes are bounded. Evicted minutes are reported, so that readers can read them from the table.

Call it from the event loop's own thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from include.domain.candles import CandleCandidate
from include.domain.merge import order_key
from include.domain.timeframes import MINUTE_US
from streamer.candles.aggregation import MINUTES_KEPT, SymbolAggregator
from streamer.candles.minutes import Minute
from streamer.hub.subscription import (
    FORGOTTEN,
    CandleUpdate,
    ClosedCandle,
    DeliveryCounts,
    Subscription,
    closed_update,
)

CLOSED_MINUTES = MINUTES_KEPT + 1
"""Closed minutes remembered for each symbol: all that the aggregator may still publish."""
MINUTES_PER_SYMBOL = 10
"""Candles that may wait for a reader, per symbol."""


@dataclass(slots=True)
class _Listed:
    """A symbol's state in the hub."""

    aggregator: SymbolAggregator
    closed: dict[int, CandleCandidate] = field(default_factory=dict)
    """The winning candidates of the last minutes, by open time."""
    listeners: list[Subscription] = field(default_factory=list)

    def may_be_open(self, open_time_us: int) -> bool:
        """Whether no candle of a minute was published as closed; older ones are forgotten."""
        horizon_us = max(self.closed, default=open_time_us) - CLOSED_MINUTES * MINUTE_US
        return open_time_us >= horizon_us and open_time_us not in self.closed


class Hub:
    """Receives changes of candles from aggregators and passes them to subscriptions."""

    def __init__(self) -> None:
        self.on_closed: Callable[[CandleUpdate], None] | None = None
        """Called with each closed candle that beats the previous one of its minute."""
        self._listed: dict[str, _Listed] = {}
        self._subscriptions: list[Subscription] = []
        self._marked: list[tuple[str, Minute]] = []
        self._is_closed = False
        self._without_quotes: set[str] = set()
        """Symbols whose quote volumes cannot be aggregated; also removed ones, whose last states
        may still wait in mailboxes."""
        self._counts_before = DeliveryCounts()
        """Counts of readers that have unsubscribed."""

    @property
    def counts(self) -> DeliveryCounts:
        """Counts of received and missed states since the start."""
        before = self._counts_before
        return DeliveryCounts(
            before.delivered + sum(one.delivered for one in self._subscriptions),
            before.conflated + sum(one.conflated for one in self._subscriptions),
            before.missed + sum(one.evicted for one in self._subscriptions),
        )

    @property
    def subscribers(self) -> int:
        """Current number of subscriptions."""
        return len(self._subscriptions)

    @property
    def symbols(self) -> list[str]:
        """Symbols that are streamed."""
        return list(self._listed)

    def newest(self, symbol: str) -> CandleUpdate | None:
        """Return the current state of a symbol's newest minute; None if none is in memory."""
        listed = self._listed.get(symbol)
        if listed is None:
            return None
        for open_time_us, minute in sorted(listed.aggregator.minutes.items(), reverse=True):
            if (candle := minute.shown(symbol)) is not None:
                if (candidate := listed.closed.get(open_time_us)) is not None:
                    return closed_update(candidate)
                return CandleUpdate(
                    candle, is_closed=minute.is_closed, has_quotes=self._has_quotes(symbol)
                )
        return closed_update(listed.closed[max(listed.closed)]) if listed.closed else None

    # --- for the streamer

    def add(self, aggregator: SymbolAggregator) -> None:
        """Start publishing a symbol."""
        listed = self._listed[aggregator.symbol] = _Listed(aggregator)
        if aggregator.quote_volume_is_exact:
            self._without_quotes.discard(aggregator.symbol)
        else:
            self._without_quotes.add(aggregator.symbol)
        for one in self._subscriptions:
            if one.symbols is None or aggregator.symbol in one.symbols:
                listed.listeners.append(one)
            one.report_streamed()
        self._listen(listed)

    def remove(self, symbol: str) -> None:
        """Stop publishing a symbol; changes waiting in mailboxes are still delivered."""
        listed = self._listed.pop(symbol)
        listed.aggregator.on_change = None
        for one in self._subscriptions:
            one.report_streamed()

    def publish_closed(self, candidate: CandleCandidate) -> None:
        """Publish a candidate from the stream or from REST."""
        candle = candidate.candle
        listed = self._listed.get(candle.symbol)
        if listed is None:
            return
        closed, open_time_us = listed.closed, candle.open_time_us
        horizon_us = max(closed, default=open_time_us) - CLOSED_MINUTES * MINUTE_US
        before = None if open_time_us >= horizon_us else FORGOTTEN
        if (known := closed.get(open_time_us)) is not None:
            if order_key(candidate) <= order_key(known):
                return
            before = known.candle.values
        if open_time_us >= horizon_us:
            closed[open_time_us] = candidate
            for old_us in [
                one for one in closed if one < open_time_us - CLOSED_MINUTES * MINUTE_US
            ]:
                del closed[old_us]
        for listener in listed.listeners:
            listener.enqueue_closed((candle.symbol, open_time_us), ClosedCandle(candidate, before))
        if self.on_closed is not None:
            self.on_closed(closed_update(candidate))

    def close(self) -> None:
        """End all subscriptions; readers still receive waiting changes."""
        self._hand_over()
        self._is_closed = True
        for one in self._subscriptions:
            one.close()

    # --- for readers

    def subscribe(
        self,
        symbols: Iterable[str] | None = None,
        *,
        max_waiting: int | None = None,
        reports_streamed: bool = False,
    ) -> Subscription:
        """Subscribe to some symbols, or to all.

        The current states in memory come first: a reader that reads the table after subscribing has
        every candle from one or the other.

        Args:
            symbols: None for all. Symbols not streamed yet are published once they are.
            max_waiting: candles that may wait for the reader; by default ten for each symbol.
            reports_streamed: also report which symbols are streamed, first and on each change.
        """
        wanted = None if symbols is None else frozenset(symbols)
        subscription = Subscription(
            wanted,
            capacity=lambda: max_waiting or self._max_waiting(wanted),
            has_quotes=self._has_quotes,
            on_unsubscribe=self._unsubscribe,
            streamed=(lambda: self._streamed(wanted)) if reports_streamed else None,
        )
        if self._is_closed:
            subscription.close()
        self._subscriptions.append(subscription)
        for symbol in self._listed if wanted is None else wanted & self._listed.keys():
            listed = self._listed[symbol]
            listed.listeners.append(subscription)
            self._listen(listed)
            states = {
                open_time_us: minute
                for open_time_us, minute in listed.aggregator.minutes.items()
                if listed.may_be_open(open_time_us)
            } | {
                open_time_us: ClosedCandle(candidate)
                for open_time_us, candidate in listed.closed.items()
            }
            for open_time_us, state in sorted(states.items()):
                subscription.enqueue((symbol, open_time_us), state)
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        before = self._counts_before
        before.delivered += subscription.delivered
        before.conflated += subscription.conflated
        before.missed += subscription.evicted
        for listed in self._listed.values():
            if subscription in listed.listeners:
                listed.listeners.remove(subscription)
                self._listen(listed)

    def _streamed(self, wanted: frozenset[str] | None) -> frozenset[str]:
        return frozenset(self._listed) if wanted is None else wanted & self._listed.keys()

    def _max_waiting(self, symbols: frozenset[str] | None) -> int:
        return MINUTES_PER_SYMBOL * max(len(self._listed if symbols is None else symbols), 1)

    def _has_quotes(self, symbol: str) -> bool:
        return symbol not in self._without_quotes

    # --- marks

    def _listen(self, listed: _Listed) -> None:
        """Make an aggregator mark its changes only while it has readers."""
        listed.aggregator.on_change = self._mark if listed.listeners else None

    def _mark(self, symbol: str, minute: Minute) -> None:
        if not self._marked:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._marked.append((symbol, minute))

    def _hand_over(self) -> None:
        """Pass all changes of this turn of the event loop to the subscriptions."""
        marked, self._marked = self._marked, []
        for symbol, minute in marked:
            minute.is_marked = False
            listed = self._listed.get(symbol)
            if listed is not None and listed.may_be_open(minute.open_time_us):
                for listener in listed.listeners:
                    listener.enqueue((symbol, minute.open_time_us), minute)
