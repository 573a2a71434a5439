"""Follow the exchange's list of symbols, the symbols file and watchlists."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import structlog

from include.config import Settings
from include.counts import counted
from include.domain.instruments import Instrument, Market, market_of, unknown_symbol
from include.errors import PermanentError
from include.jobs.exchange import open_shared_rest
from include.store.candles.live import remove_stale_live
from include.store.postgres.pools import connect
from streamer.symbols.first_minutes import find_begins
from streamer.symbols.startup import (
    StoppedError,
    StoredState,
    find_stored,
    retry_until_stopped,
)
from streamer.symbols.symbol_selection import SelectionChanges, SymbolSelection, names_of
from streamer.symbols.symbols_file import WantedSymbols, read_symbols
from streamer.symbols.universe import choose, markets_of
from streamer.symbols.watchlists import follow_watchlists

log = structlog.get_logger(__name__)

LIVE_WRITE_TIMEOUT_S = 300.0
"""Maximum wait for a running write of open candles, which may include removed symbols."""
REFRESH_PAUSE_S = 1.0
"""Pause after a requested refresh: a list costs request weight, and each click changes a watchlist.
"""
MAX_REFUSED_SHOWN = 5
"""Refused new symbols whose reasons one error lists."""

OnChanges = Callable[[Market, SelectionChanges, Mapping[str, int]], None]
"""Called with a market, its changes, and the first minute (µs) of each added symbol."""
OnStored = Callable[[StoredState], None]
"""Called with the state of the table for added symbols."""


class Listings:
    """Reads the lists regularly and reports changes.

    Args:
        selections: one for each streamed market.
        now_us: exchange time of the last list of each market.
        live_written: waits for a running write of open candles.
        stop: set when the streamer stops.
        top: maximum number of symbols in all markets; None without a maximum.
        file: the symbols file, for ``reload``.
    """

    def __init__(
        self,
        settings: Settings,
        selections: Mapping[Market, SymbolSelection],
        now_us: Mapping[Market, int],
        *,
        on_changes: OnChanges,
        on_stored: OnStored,
        live_written: Callable[[], Awaitable[None]],
        stop: asyncio.Event,
        top: int | None = None,
        file: Path | None = None,
    ) -> None:
        self._settings = settings
        self._url = settings.url_for("streamer")
        self._selections = dict(selections)
        self._seen_us = dict(now_us)
        self._unseen_us: dict[str, int] = {}
        """Exchange time at which postponed new symbols were not listed yet."""
        self._on_changes = on_changes
        self._on_stored = on_stored
        self._live_written = live_written
        self._stop = stop
        self._top = top
        self._file = file
        self._tasks: asyncio.TaskGroup | None = None
        self._unlisted: set[str] = set()
        """Watched symbols that do not exist and were logged."""
        self._reload = asyncio.Event()
        self._refresh_requests = {market: asyncio.Event() for market in Market}

    def reload(self) -> None:
        """Read the symbols file again and apply it."""
        self._reload.set()

    def watch(self, symbols: frozenset[str]) -> None:
        """Set the watched symbols, which are streamed in addition to those of the settings."""
        for market in Market:
            of_market = {symbol for symbol in symbols if market_of(symbol) is market}
            if market not in self._selections and of_market:
                self._begin(market, SymbolSelection((), ()))
            if market in self._selections and self._selections[market].watch(of_market):
                self._refresh_requests[market].set()
        self._unlisted &= symbols

    async def run(self) -> None:
        """Follow all lists until cancelled or stopped."""
        async with asyncio.TaskGroup() as self._tasks:
            for market, selection in self._selections.items():
                self._tasks.create_task(self._follow(market, selection))
            if self._settings.follow_watchlists:
                self._tasks.create_task(follow_watchlists(self._url, self.watch))
            if self._file is not None:
                await self._follow_file(self._file)

    def _begin(self, market: Market, selection: SymbolSelection) -> None:
        """Start following another market."""
        self._selections[market] = selection
        if self._tasks is not None:
            self._tasks.create_task(self._follow(market, selection))

    async def _follow_file(self, file: Path) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            try:
                await self._apply(
                    await retry_until_stopped("symbols", lambda: read_symbols(file), self._stop)
                )
            except StoppedError:
                return
            except PermanentError as error:
                # A typing error must not end the stream.
                log.error("symbols_file_refused", error=str(error))  # noqa: TRY400

    async def _apply(self, wanted: WantedSymbols) -> None:
        """Stream the file's symbols instead of the current ones: all of them, or none if one is
        wrong.

        Raises:
            PermanentError: a symbol does not exist; the error has its line.
        """
        listed: list[Instrument] = []
        now_us: dict[Market, int] = {}
        for market in markets_of(wanted.names):
            some, now_us[market], _ = await retry_until_stopped(
                "exchange_info", partial(self._read, market, None), self._stop
            )
            listed += some
        streamed = {
            symbol for selection in self._selections.values() for symbol in selection.symbols
        }
        choose(wanted.names, listed, streamed=streamed, place_of=wanted.place_of)
        for market in Market:
            names = names_of(market, wanted.names)
            selection = self._selections.get(market)
            if selection is not None:
                selection.want(names)
            elif names:
                places = None if self._top is None else max(0, self._top - len(streamed))
                self._seen_us[market] = now_us[market]
                self._begin(market, SymbolSelection(names, (), top=places))
            self._refresh_requests[market].set()
        log.info("symbols_file_read", file=str(wanted.path), names=len(wanted.names))

    async def _follow(self, market: Market, selection: SymbolSelection) -> None:
        request = self._refresh_requests[market]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.symbols_refresh_s):
                    await request.wait()
            is_requested = request.is_set()
            request.clear()
            if selection.is_idle:
                continue
            try:
                await self._refresh(market, selection)
            except StoppedError:
                return
            except PermanentError as error:
                # The stream continues; the next list may be fine.
                log.error("symbols_not_refreshed", market=market.value, error=str(error))  # noqa: TRY400
            if is_requested:
                await asyncio.sleep(REFRESH_PAUSE_S)

    async def _refresh(self, market: Market, selection: SymbolSelection) -> None:
        """Apply the newest list; a refused new symbol does not delay the others.

        Raises:
            PermanentError: the list or some new symbols were refused; retried with the next list.
        """
        listed, now_us, volumes = await retry_until_stopped(
            "exchange_info", lambda: self._read(market, selection), self._stop
        )
        changes = selection.update(listed, now_us, quote_volume_24h=volumes)
        self._log_unlisted(selection, listed)
        seen_us, self._seen_us[market] = self._seen_us.get(market, now_us), now_us
        self._on_changes(market, replace(changes, added=[]), {})
        refused = await self._add(market, selection, changes.added, seen_us, now_us)
        if changes.dropped:
            with contextlib.suppress(TimeoutError):  # otherwise the next start removes them
                async with asyncio.timeout(LIVE_WRITE_TIMEOUT_S):
                    await self._live_written()
            await retry_until_stopped(
                "left_live", lambda: self._remove_live(changes.dropped), self._stop
            )
        if refused:
            shown = "; ".join(refused[:MAX_REFUSED_SHOWN])
            left = counted(len(refused), "new symbol is", "new symbols are")
            raise PermanentError(f"{left} not streamed yet: {shown}")

    async def _add(
        self,
        market: Market,
        selection: SymbolSelection,
        added: Sequence[Instrument],
        seen_us: int,
        now_us: int,
    ) -> list[str]:
        """Stream new symbols; return the reasons why some could not be added.

        Missing minutes of symbols with rows are found as at a start, since a streamer may have been
        killed. For a symbol streamed a moment ago this may request known minutes, which does no
        harm.
        """
        if not added:
            return []
        since_us = {one.symbol: self._unseen_us.pop(one.symbol, seen_us) for one in added}
        begins: dict[str, int] = {}
        refused: dict[str, str] = {}
        stored = StoredState({}, {}, [])
        try:
            stored = await find_stored(self._settings, added, {market: now_us}, self._stop)
            found = await retry_until_stopped(
                "first_minutes",
                lambda: find_begins(
                    self._settings, added, stored.last_us, {market: now_us}, since_us
                ),
                self._stop,
            )
            begins, refused = found.begins_us, found.refused
            stored = stored.leaving(found.left_us)
            reasons = [f"{symbol}: {reason}" for symbol, reason in refused.items()]
        except PermanentError as error:
            reasons = [str(error)]
        begins = {symbol: at_us for symbol, at_us in begins.items() if symbol not in refused}
        postponed = since_us.keys() - begins.keys()
        selection.postpone(postponed)
        self._unseen_us.update((symbol, since_us[symbol]) for symbol in postponed)
        begun = [one for one in added if one.symbol in begins]
        self._on_changes(market, SelectionChanges(added=begun), begins)
        self._on_stored(stored.of(begins))
        return reasons

    def _log_unlisted(self, selection: SymbolSelection, listed: Sequence[Instrument]) -> None:
        """Log once that a watched symbol does not exist."""
        known = [one.symbol for one in listed]
        for symbol in selection.unlisted(listed):
            if symbol not in self._unlisted:
                self._unlisted.add(symbol)
                reason = unknown_symbol(symbol, known)
                log.warning("watched_symbol_unknown", symbol=symbol, error=reason)

    def _remove_live(self, symbols: Sequence[str]) -> None:
        """Remove open candles that will never close."""
        with connect(self._url, application_name="candelabra-streamer") as connection:
            remove_stale_live(connection, symbols)

    def _read(
        self, market: Market, selection: SymbolSelection | None
    ) -> tuple[list[Instrument], int, Mapping[str, Decimal] | None]:
        """Return the list, the exchange time before it, and the volumes if they are needed."""
        with open_shared_rest(self._settings, market, self._url) as rest:
            now_us = rest.server_time_us()
            listed = rest.exchange_info()
            is_ranked = selection is not None and selection.has_candidates(listed)
            return listed, now_us, rest.quote_volumes_24h() if is_ranked else None
