"""Keeps up with the exchange's list of symbols while the streamer runs."""

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
from include.domain.instruments import Instrument, Market, market_of, unknown_symbol
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError
from include.jobs.exchange import open_shared_rest
from include.store.candles.live import remove_left_live
from include.store.ledgers.gaps import unknown_since
from include.store.postgres.pools import connect
from streamer.symbols.first_minutes import ask_first_minutes, begin_of
from streamer.symbols.startup import StoppedError, StoredState, begins_behind, find_stored, persist
from streamer.symbols.symbol_selection import SelectionChanges, SymbolSelection, names_of
from streamer.symbols.symbols_file import WantedSymbols, read_symbols
from streamer.symbols.universe import choose, markets_of
from streamer.symbols.watchlists import follow_watchlists

log = structlog.get_logger(__name__)

LIVE_SETTLES_S = 300.0
"""A write of open candles that has begun may still show who was removed; longer, it hangs."""
HURRY_PAUSE_S = 1.0
"""Between looks that somebody asked for: a list costs weight, and watchlists change by clicks."""
MAX_TOLD = 5
"""New symbols of which one message tells why they were refused."""

OnChanges = Callable[[Market, SelectionChanges, Mapping[str, int]], None]
"""Given a market, its changes, and for each added symbol the minute to begin with (µs)."""
OnStored = Callable[[StoredState], None]
"""Given what the table has of added symbols, and lacks."""


class Listings:
    """Reads the lists again and again and tells what changed.

    Args:
        rosters: of each market that is streamed.
        now_us: the exchange's time at the last look at each of them.
        live_written: waits until a write of open candles that has begun is over.
        stop: set when the streamer is to end.
        top: most symbols of all markets; None for no bound.
        file: of symbols, for ``reload``.
    """

    def __init__(
        self,
        settings: Settings,
        rosters: Mapping[Market, SymbolSelection],
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
        self._rosters = dict(rosters)
        self._seen_us = dict(now_us)
        self._unseen_us: dict[str, int] = {}
        """When symbols were not seen yet that are new and could not be begun so far."""
        self._on_changes = on_changes
        self._on_stored = on_stored
        self._live_written = live_written
        self._stop = stop
        self._top = top
        self._file = file
        self._tasks: asyncio.TaskGroup | None = None
        self._unlisted: set[str] = set()
        """What is watched, does not exist, and was told."""
        self._is_told = asyncio.Event()
        self._hurries = {market: asyncio.Event() for market in Market}

    def reload(self) -> None:
        """Read the file of symbols again, and stream what it asks for from then on."""
        self._is_told.set()

    def watch(self, symbols: frozenset[str]) -> None:
        """Somebody watches these: stream them beside what the settings say, and no others."""
        for market in Market:
            of_market = {symbol for symbol in symbols if market_of(symbol) is market}
            if market not in self._rosters and of_market:
                self._begin(market, SymbolSelection((), ()))
            if market in self._rosters and self._rosters[market].watch(of_market):
                self._hurries[market].set()
        self._unlisted &= symbols

    async def run(self) -> None:
        """Follow until cancelled or stopped."""
        async with asyncio.TaskGroup() as self._tasks:
            for market, roster in self._rosters.items():
                self._tasks.create_task(self._follow(market, roster))
            if self._settings.follow_watchlists:
                self._tasks.create_task(follow_watchlists(self._url, self.watch))
            if self._file is not None:
                await self._reload_when_told(self._file)

    def _begin(self, market: Market, roster: SymbolSelection) -> None:
        """Follow a further market."""
        self._rosters[market] = roster
        if self._tasks is not None:
            self._tasks.create_task(self._follow(market, roster))

    async def _reload_when_told(self, file: Path) -> None:
        while True:
            await self._is_told.wait()
            self._is_told.clear()
            try:
                await self._take(await persist("symbols", lambda: read_symbols(file), self._stop))
            except StoppedError:
                return
            except PermanentError as error:
                # A slip of the pen must not end what is streamed.
                log.error("symbols_file_refused", error=str(error))  # noqa: TRY400

    async def _take(self, wanted: WantedSymbols) -> None:
        """Stream these instead; all of them or, where one is wrong, none.

        Raises:
            PermanentError: one does not exist; named with its line.
        """
        listed: list[Instrument] = []
        now_us: dict[Market, int] = {}
        for market in markets_of(wanted.names):
            some, now_us[market], _ = await persist(
                "exchange_info", partial(self._read, market, None), self._stop
            )
            listed += some
        streamed = {symbol for roster in self._rosters.values() for symbol in roster.symbols}
        choose(wanted.names, listed, streamed=streamed, place_of=wanted.place_of)
        for market in Market:
            names = names_of(market, wanted.names)
            roster = self._rosters.get(market)
            if roster is not None:
                roster.want(names)
            elif names:
                left = None if self._top is None else max(0, self._top - len(streamed))
                self._seen_us[market] = now_us[market]
                self._begin(market, SymbolSelection(names, (), top=left))
            self._hurries[market].set()
        log.info("symbols_file_read", file=str(wanted.path), names=len(wanted.names))

    async def _follow(self, market: Market, roster: SymbolSelection) -> None:
        hurry = self._hurries[market]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.symbols_refresh_s):
                    await hurry.wait()
            is_asked = hurry.is_set()
            hurry.clear()
            if roster.is_idle:
                continue
            try:
                await self._refresh(market, roster)
            except StoppedError:
                return
            except PermanentError as error:
                # What is streamed goes on; the exchange may take it back.
                log.error("symbols_not_refreshed", market=market.value, error=str(error))  # noqa: TRY400
            if is_asked:
                await asyncio.sleep(HURRY_PAUSE_S)

    async def _refresh(self, market: Market, roster: SymbolSelection) -> None:
        """Take the newest list; what is refused of new symbols holds up nothing else.

        Raises:
            PermanentError: the list, or some of the new symbols, which come with the next one.
        """
        listed, now_us, volumes = await persist(
            "exchange_info", lambda: self._read(market, roster), self._stop
        )
        changes = roster.update(listed, now_us, quote_volume_24h=volumes)
        self._tell_unlisted(roster, listed)
        seen_us, self._seen_us[market] = self._seen_us.get(market, now_us), now_us
        self._on_changes(market, replace(changes, added=[]), {})
        refused = await self._add(market, roster, changes.added, seen_us, now_us)
        if changes.dropped:
            with contextlib.suppress(TimeoutError):  # else the next start removes them
                async with asyncio.timeout(LIVE_SETTLES_S):
                    await self._live_written()
            await persist("left_live", lambda: self._remove_live(changes.dropped), self._stop)
        if refused:
            raise PermanentError(
                f"{len(refused)} new symbols are not streamed yet: {'; '.join(refused[:MAX_TOLD])}"
            )

    async def _add(
        self,
        market: Market,
        roster: SymbolSelection,
        added: Sequence[Instrument],
        seen_us: int,
        now_us: int,
    ) -> list[str]:
        """Stream those that can be begun; returns why others cannot.

        Of those that have rows it is found as at a start what these lack: nobody may have streamed
        them since a streamer was killed. One that was streamed here a moment ago may be asked for
        what is known, or under way, which does no harm.
        """
        if not added:
            return []
        since_us = {one.symbol: self._unseen_us.pop(one.symbol, seen_us) for one in added}
        begins: dict[str, int] = {}
        stored = StoredState({}, {}, [])
        try:
            stored = await find_stored(self._settings, added, {market: now_us}, self._stop)
            begins, refused = await persist(
                "first_minutes",
                lambda: self._begins(market, added, since_us, stored.last_us),
                self._stop,
            )
        except PermanentError as error:
            refused = [str(error)]
        left = since_us.keys() - begins.keys()
        roster.leave_out(left)
        self._unseen_us.update((symbol, since_us[symbol]) for symbol in left)
        begun = [one for one in added if one.symbol in begins]
        self._on_changes(market, SelectionChanges(added=begun), begins)
        self._on_stored(stored.of(begins))
        return refused

    def _tell_unlisted(self, roster: SymbolSelection, listed: Sequence[Instrument]) -> None:
        """Say once that a symbol is watched which the exchange has not."""
        known = [one.symbol for one in listed]
        for symbol in roster.unlisted(listed):
            if symbol not in self._unlisted:
                self._unlisted.add(symbol)
                reason = unknown_symbol(symbol, known)
                log.warning("watched_symbol_unknown", symbol=symbol, error=reason)

    def _remove_live(self, symbols: Sequence[str]) -> None:
        """Their open candles will never close."""
        with connect(self._url, application_name="candelabra-streamer") as connection:
            remove_left_live(connection, symbols)

    def _read(
        self, market: Market, roster: SymbolSelection | None
    ) -> tuple[list[Instrument], int, Mapping[str, Decimal] | None]:
        """The list, the exchange's time before it, and volumes where they decide."""
        with open_shared_rest(self._settings, market, self._url) as rest:
            now_us = rest.server_time_us()
            listed = rest.exchange_info()
            is_ranked = roster is not None and roster.has_candidates(listed)
            return listed, now_us, rest.quote_volumes_24h() if is_ranked else None

    def _begins(
        self,
        market: Market,
        added: Sequence[Instrument],
        seen_us: Mapping[str, int],
        last_us: Mapping[str, int],
    ) -> tuple[dict[str, int], list[str]]:
        """The minute to begin each symbol with: after its stored ones, or its first.

        Args:
            seen_us: when it was not streamed yet, by symbol.
            last_us: open time of the newest row of each that has any.

        Returns:
            the minutes (µs), and why others were refused.
        """
        lookback_us = self._settings.fill_lookback_minutes * MINUTE_US
        new = [one for one in added if one.symbol not in last_us]
        with connect(self._url, application_name="candelabra-streamer") as connection:
            told_us = unknown_since(
                connection, [one.symbol for one in new], min(seen_us.values()) - lookback_us
            )
        with open_shared_rest(self._settings, market, self._url) as rest:
            now_us = rest.server_time_us()
            firsts_us, refused = ask_first_minutes(rest, new)
        begins: dict[str, int] = {}
        for symbol in (one.symbol for one in new if one.symbol not in refused):
            first_us = firsts_us.get(symbol)
            begin_us = begin_of(first_us, told_us.get(symbol), seen_us[symbol])
            if begin_us is None:  # it has not traded yet, or for long already
                begin_us = minute_of(now_us if first_us is None else seen_us[symbol])
            begins[symbol] = begin_us
        horizon_us = minute_of(now_us) - lookback_us
        begins = {symbol: max(begin_us, horizon_us) for symbol, begin_us in begins.items()}
        begins |= begins_behind(last_us, now_us, self._settings)
        return begins, [f"{symbol}: {error}" for symbol, error in refused.items()]
