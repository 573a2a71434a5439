"""Select the streamed symbols as the exchange's list changes. Pure: lists and times are passed in.

A symbol that stops trading stays subscribed: a halt looks like a delisting, and the first trade
after a halt must not be missed. The symbol counts as gone after an hour in which most others
trade, and a delivered contract immediately. It is then unsubscribed to make room, and added again
if it returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from streamer.symbols.startup import StreamOptions
from streamer.symbols.universe import is_wanted, markets_of, matching

GONE_AFTER_US = 60 * MINUTE_US


@dataclass(frozen=True, slots=True)
class SelectionChanges:
    """Changes since the last list.

    Attributes:
        added: to be streamed.
        removed: no longer streamed, because they are gone.
        dropped: no longer streamed, because they are no longer wanted.
        halted: symbols that stopped trading, with the exchange's status.
        resumed: streamed symbols that trade again.
    """

    added: list[Instrument] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    halted: dict[str, str] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)


class SymbolSelection:
    """The streamed symbols of one market.

    Args:
        wanted: names and patterns; see ``universe.choose``.
        streamed: the initial symbols.
        top: maximum number of wanted symbols; None without a maximum. Free places are filled by
            volume; a trading symbol is never replaced by a larger one.
        gone_after_us: time without trading after which a symbol is gone, while most others trade.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        streamed: Iterable[Instrument],
        *,
        top: int | None = None,
        gone_after_us: int = GONE_AFTER_US,
    ) -> None:
        self._wanted = wanted
        self._watched: frozenset[str] = frozenset()
        self._streamed = {one.symbol for one in streamed}
        self._chosen = set(self._streamed)
        """Streamed symbols that do not depend on watchlists."""
        self._top = top
        self._gone_after_us = gone_after_us
        self._halted_since_us: dict[str, int] = {}
        self._max_trading = 1

    def want(self, wanted: Sequence[str]) -> None:
        """Set the wanted names and patterns, which apply from the next list on."""
        self._wanted = wanted

    def watch(self, symbols: Iterable[str]) -> bool:
        """Set the watched symbols, which do not count for ``top``; return whether they changed.

        They apply from the next list on. A symbol that is no longer watched is dropped unless it is
        wanted as well.
        """
        before, self._watched = self._watched, frozenset(symbols)
        return before != self._watched

    def unlisted(self, listed: Sequence[Instrument]) -> list[str]:
        """Return the watched symbols that do not exist, in order."""
        return sorted(self._watched - {one.symbol for one in listed})

    @property
    def is_idle(self) -> bool:
        """Whether no symbol is streamed, wanted or watched."""
        return not (self._wanted or self._watched or self._streamed)

    @property
    def symbols(self) -> frozenset[str]:
        """The streamed symbols."""
        return frozenset(self._streamed)

    def has_candidates(self, listed: Sequence[Instrument]) -> bool:
        """Whether symbols may compete for a free place of ``top``, so that volumes are needed."""
        if self._top is None or len(self._chosen) >= self._top:
            return False
        return any(
            one.is_trading and one.symbol not in self._chosen
            for one in matching(self._wanted, listed)
        )

    def update(
        self,
        listed: Sequence[Instrument],
        now_us: int,
        *,
        quote_volume_24h: Mapping[str, Decimal] | None = None,
    ) -> SelectionChanges:
        """Apply a new list of the market's symbols.

        Args:
            now_us: exchange time.
            quote_volume_24h: by symbol; ranks candidates for free places of ``top``.
        """
        trading = {one.symbol: one for one in listed if one.is_trading}
        statuses = {one.symbol: one.status for one in listed}
        changes = SelectionChanges()
        self._drop_unwanted(changes)
        for symbol in sorted(self._streamed):
            if symbol in trading:
                if self._halted_since_us.pop(symbol, None) is not None:
                    changes.resumed.append(symbol)
            elif symbol not in self._halted_since_us:
                self._halted_since_us[symbol] = now_us
                changes.halted[symbol] = statuses.get(symbol, "not listed")
        for symbol in sorted(
            one.symbol
            for one in listed
            if one.symbol in self._streamed and one.is_delivered(now_us)
        ):
            self._remove(changes, symbol)
        self._max_trading = max(self._max_trading, len(trading))
        if 2 * len(trading) >= self._max_trading:  # otherwise the market is halted
            self._remove_gone(changes, now_us)
        self._add_new(changes, trading, quote_volume_24h)
        return changes

    def postpone(self, symbols: Iterable[str]) -> None:
        """Try these symbols again with the next list: streaming them could not be started."""
        self._streamed.difference_update(symbols)
        self._chosen.difference_update(symbols)

    def _drop_unwanted(self, changes: SelectionChanges) -> None:
        self._chosen = {one for one in self._chosen if is_wanted(one, self._wanted)}
        for symbol in sorted(self._streamed - self._watched):
            has_place = self._top is None and is_wanted(symbol, self._wanted)
            if symbol not in self._chosen and not has_place:
                changes.dropped.append(symbol)
                self._halted_since_us.pop(symbol, None)
                self._streamed.discard(symbol)

    def _remove_gone(self, changes: SelectionChanges, now_us: int) -> None:
        for symbol, since_us in sorted(self._halted_since_us.items()):
            if now_us - since_us >= self._gone_after_us:
                self._remove(changes, symbol)

    def _remove(self, changes: SelectionChanges, symbol: str) -> None:
        changes.removed.append(symbol)
        self._halted_since_us.pop(symbol, None)
        self._streamed.discard(symbol)
        self._chosen.discard(symbol)

    def _add_new(
        self,
        changes: SelectionChanges,
        trading: Mapping[str, Instrument],
        volumes: Mapping[str, Decimal] | None,
    ) -> None:
        watched = [trading[symbol] for symbol in sorted(self._watched) if symbol in trading]
        new = [*self._newly_chosen(trading, volumes), *watched]
        for one in new:
            if one.symbol not in self._streamed:
                changes.added.append(one)
                self._streamed.add(one.symbol)

    def _newly_chosen(
        self, trading: Mapping[str, Instrument], volumes: Mapping[str, Decimal] | None
    ) -> list[Instrument]:
        """Return the symbols that get a place; watched ones may be streamed already."""
        if self._top is not None and volumes is None:
            return []  # the next list fills a place that has just become free
        wanted = matching(self._wanted, list(trading.values()))
        new = [one for one in wanted if one.symbol not in self._chosen]
        if self._top is not None and volumes is not None:
            new.sort(key=lambda one: (-volumes.get(one.symbol, Decimal(0)), one.symbol))
            new = new[: max(0, self._top - len(self._chosen))]
        self._chosen.update(one.symbol for one in new)
        return new


def names_of(market: Market, wanted: Sequence[str]) -> list[str]:
    """Return the names and patterns of a market."""
    return [name for name in wanted if markets_of([name]) == (market,)]


def selections_of(
    options: StreamOptions, streamed: Sequence[Instrument]
) -> dict[Market, SymbolSelection]:
    """Return a selection for each streamed market; each keeps its initial share of ``top``."""
    selections = {}
    for market in markets_of(options.symbols):
        wanted = names_of(market, options.symbols)
        of_market = [one for one in streamed if one.market is market]
        top = None if options.top is None else len(of_market)
        selections[market] = SymbolSelection(
            wanted, of_market, top=top, gone_after_us=GONE_AFTER_US
        )
    return selections
