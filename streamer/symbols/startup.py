"""Determine which symbols to stream, from which minutes, and what the table lacks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog

from include.backoff import Backoff, RetryLoop
from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.domain.instruments import Instrument, Market
from include.domain.ranges import united, without
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import TransientError
from include.jobs.exchange import open_shared_rest
from include.store.candles.live import remove_stale_live
from include.store.candles.minutes import first_minutes, last_minutes, minutes_to_request
from include.store.ledgers.gaps import Gap, claim_gaps, close_proven_gaps, unknown_since
from include.store.postgres.pools import connect, server_started
from streamer.candles.minutes import Timing
from streamer.runtime.threads import in_thread
from streamer.symbols.first_minutes import (
    SEEN_BEFORE_US,
    LeftMinutes,
    find_begins,
    find_missing_beginnings,
    leave_to_jobs,
    log_unknown,
)
from streamer.symbols.symbols_file import WantedSymbols
from streamer.symbols.universe import choose, markets_of, not_trading

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

BACKOFF = Backoff(first_s=1.0, max_s=15.0, min_s=0.1)
CALL_TIMEOUT_S = 300.0
"""Timeout for requests that wait for weight, and for reading the stored minutes of all symbols."""
MAX_GAPS = 10_000
"""Maximum open gaps of ended streamers taken over at a start; ``repair_gaps`` repairs the rest."""


class StoppedError(Exception):
    """Stopped before the work was done."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Symbols and streams to subscribe to.

    Attributes:
        symbols: names and patterns; see ``universe.choose``.
        top: keep the N symbols of largest volume in 24 hours.
        trade_stream: ``aggTrade``, or ``trade`` for recordings without aggTrades.
        klines: whether to subscribe to klines, which verify the candles.
        capture: tables of raw capture to fill, such as ``agg_trades``.
        symbols_file: file of the symbols, which may be read again; None without a file.
    """

    symbols: tuple[str, ...]
    top: int | None = None
    trade_stream: str = "aggTrade"
    klines: bool = True
    capture: tuple[str, ...] = ()
    symbols_file: WantedSymbols | None = None

    def place_of(self, name: str) -> str:
        """Return the place of a name, as the prefix of an error."""
        return "" if self.symbols_file is None else self.symbols_file.place_of(name)


@dataclass(frozen=True, slots=True)
class StoredState:
    """Stored and missing minutes of the symbols to stream.

    Attributes:
        last_us: open time of the newest row of each symbol with rows.
        unsure_us: half-open ranges of missing or unverified minutes up to the newest row, from
            the first minute of a new listing on.
        gaps: open gaps of these symbols.
        server_started: start time of the server that was read; None if none was.
        left_us: missed minutes older than the lookback, each recorded as an open gap.
    """

    last_us: dict[str, int]
    unsure_us: dict[str, list[tuple[int, int]]]
    gaps: list[Gap]
    server_started: datetime | None = None
    left_us: LeftMinutes = field(default_factory=dict)

    def of(self, symbols: Container[str]) -> StoredState:
        """Return the part that concerns these symbols."""
        return StoredState(
            {symbol: at_us for symbol, at_us in self.last_us.items() if symbol in symbols},
            {symbol: spans for symbol, spans in self.unsure_us.items() if symbol in symbols},
            [gap for gap in self.gaps if gap.symbol in symbols],
            self.server_started,
            {symbol: spans for symbol, spans in self.left_us.items() if symbol in symbols},
        )

    def leaving(self, left_us: LeftMinutes) -> StoredState:
        """Return the state with further minutes that are left to jobs."""
        both = {
            symbol: [*self.left_us.get(symbol, ()), *left_us.get(symbol, ())]
            for symbol in {**self.left_us, **left_us}
        }
        return replace(self, left_us=both)


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where the streamer begins.

    Attributes:
        begins_us: the first minute of each symbol that does not begin now.
        now_us: exchange time by market.
    """

    instruments: list[Instrument]
    stored: StoredState
    begins_us: dict[str, int]
    now_us: dict[Market, int]


def timing_of(settings: Settings, options: StreamOptions, market: Market) -> Timing:
    """Return how long the minutes of a market wait for trades and klines."""
    grace_ms = settings.close_grace_um_ms if market.is_futures else settings.close_grace_spot_ms
    return Timing(
        grace_us=grace_ms * 1000,
        kline_timeout_us=settings.kline_timeout_ms * 1000,
        expects_klines=options.klines,
        has_contiguous_ids=not (market.is_futures and options.trade_stream == "trade"),
    )


async def find_start(
    settings: Settings, options: StreamOptions, stop: asyncio.Event
) -> StreamStart:
    """Read the exchange's symbols and the state of the table.

    Retries while the exchange or the database does not answer.

    Raises:
        PermanentError: a symbol does not exist, or a URL or login is wrong.
        StoppedError: ``stop`` was set.
    """
    markets = markets_of(options.symbols) or (Market.SPOT,)
    instruments: list[Instrument] = []
    now_us: dict[Market, int] = {}
    volumes = {}
    url = settings.url_for("streamer")
    for market in markets:
        instruments += await retry_until_stopped(
            "exchange_info", _request(settings, market, lambda rest: rest.exchange_info()), stop
        )
        now_us[market] = await retry_until_stopped(
            "server_time", _request(settings, market, lambda rest: rest.server_time_us()), stop
        )
        if options.top is not None:
            ask_volumes = _request(settings, market, lambda rest: rest.quote_volumes_24h())
            volumes.update(await retry_until_stopped("volumes", ask_volumes, stop))
    horizon_us = min(now_us.values()) - settings.fill_lookback_minutes * MINUTE_US
    streamed: list[str] = []
    if halted := not_trading(options.symbols, instruments):
        # A symbol halted or delisted while no streamer ran may lack its last minutes.
        names = [one.symbol for one in instruments]
        streamed = await retry_until_stopped(
            "streamed_before", lambda: _streamed_before(url, halted, names, horizon_us), stop
        )
    chosen = choose(
        options.symbols,
        instruments,
        top=options.top,
        quote_volume_24h=volumes,
        streamed=streamed,
        place_of=options.place_of,
    )
    for one in chosen:
        if not one.is_trading:
            log.warning("symbol_not_trading", symbol=one.symbol, status=one.status)
    stored = await find_stored(settings, chosen, now_us, stop)
    found = await retry_until_stopped(
        "first_minutes", lambda: find_begins(settings, chosen, stored.last_us, now_us), stop
    )
    log_unknown(found.refused)
    return StreamStart(chosen, stored.leaving(found.left_us), found.begins_us, now_us)


async def find_stored(
    settings: Settings,
    instruments: Sequence[Instrument],
    now_us: Mapping[Market, int],
    stop: asyncio.Event,
) -> StoredState:
    """Read the state of the table for symbols about to be streamed, and claim their gaps.

    Retries while the exchange or the database does not answer. Removes their old open candles.

    Args:
        now_us: exchange time by market.

    Raises:
        PermanentError: a URL or login is wrong, or a statement is refused.
        StoppedError: ``stop`` was set.
    """
    url = settings.url_for("streamer")
    symbols = [one.symbol for one in instruments]
    lookback_us = settings.fill_lookback_minutes * MINUTE_US
    horizon_us = min(map(minute_of, now_us.values())) - lookback_us
    stored = await retry_until_stopped(
        "stored_minutes",
        lambda: _stored_minutes(url, symbols, horizon_us, now_us=max(now_us.values())),
        stop,
    )
    since_us = _since_us(stored.last_us, horizon_us, lookback_us)
    missed = await retry_until_stopped(
        "beginnings",
        lambda: find_missing_beginnings(settings, instruments, now_us, since_us),
        stop,
    )
    for symbol, span in missed.items():
        stored.unsure_us.setdefault(symbol, []).append(span)
    stored = _leaving_old(stored, horizon_us)
    await retry_until_stopped(
        "minutes_before_lookback", lambda: leave_to_jobs(settings, stored.left_us), stop
    )
    return stored


async def retry_until_stopped(what: str, call: Callable[[], Result], stop: asyncio.Event) -> Result:
    """Run a blocking call in a thread, and retry while its failure is transient."""
    results: list[Result] = []

    async def attempt() -> bool:
        results.append(await _unless_stopped(what, in_thread(call, name=what), stop))
        return True

    async def wait(wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await stop.wait()
                raise StoppedError(what)

    await RetryLoop(
        BACKOFF,
        retry_on=(TransientError,),
        on_retry=partial(log.warning, "start_postponed", what=what),
        sleep=wait,
    ).run(attempt)
    return results[0]


async def _unless_stopped(
    what: str, call: Coroutine[Any, Any, Result], stop: asyncio.Event
) -> Result:
    """Await a call, but raise when ``stop`` is set.

    Raises:
        TransientError: no answer within ``CALL_TIMEOUT_S``.
    """
    calling = asyncio.ensure_future(call)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait(
            {calling, stopping}, timeout=CALL_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if calling in done:
            return calling.result()
        if stopping in done:
            raise StoppedError(what)
        raise TransientError(f"{what}: no answer within {CALL_TIMEOUT_S:g} s")
    finally:
        calling.cancel()
        stopping.cancel()


def _request(
    settings: Settings, market: Market, ask: Callable[[BinanceRest], Result]
) -> Callable[[], Result]:
    """Return a REST call with a new client, so that a retry does not use one that hangs."""

    def call() -> Result:
        with open_shared_rest(settings, market, settings.url_for("streamer")) as rest:
            return ask(rest)

    return call


def _streamed_before(
    url: str, halted: Sequence[str], symbols: Sequence[str], horizon_us: int
) -> list[str]:
    """Return halted symbols that were streamed to the end, by a streamer that ended long ago too.

    They have a row since the horizon, or not long before the newest row of all symbols, or a gap
    and no row.
    """
    with connect(url, application_name="candelabra-streamer") as connection:
        last_us = last_minutes(connection, {*symbols, *halted})
        since_us = min(horizon_us, max(last_us.values(), default=horizon_us) - SEEN_BEFORE_US)
        last_us |= unknown_since(connection, halted, since_us)
    return [symbol for symbol in halted if last_us.get(symbol, 0) >= since_us]


def _stored_minutes(
    url: str, symbols: Sequence[str], horizon_us: int, *, now_us: int
) -> StoredState:
    """Read newest rows, unverified minutes and open gaps; remove old open candles.

    A symbol streamed a moment ago may have unwritten rows. Rows newer than the last one found here
    are requested again, never skipped. A symbol's minutes between its first gap and its first row
    are missing, too.
    """
    with connect(url, application_name="candelabra-streamer") as connection:
        started = server_started(connection)
        remove_stale_live(connection, symbols)
        close_proven_gaps(connection, symbols=symbols)
        gaps = claim_gaps(connection, worker="streamer", limit=MAX_GAPS, symbols=symbols)
        last_us = last_minutes(connection, symbols, now_us=now_us)
        since_us = _since_us(last_us, horizon_us, minute_of(now_us) - horizon_us)
        unsure_us = minutes_to_request(connection, symbols, since_us, now_us=now_us)
        firsts_us = first_minutes(connection, {gap.symbol for gap in gaps}, since_us)
    for symbol, first_us in firsts_us.items():
        known = united((gap.start_us, gap.end_us) for gap in gaps if gap.symbol == symbol)
        if unknown := without([(known[0][0], max(first_us, known[0][0]))], known):
            unsure_us[symbol] = [*unknown, *unsure_us.get(symbol, [])]
    return StoredState(last_us, unsure_us, gaps, started)


def _since_us(last_us: Mapping[str, int], horizon_us: int, lookback_us: int) -> int:
    """Return the first minute (µs) to look at: before the horizon after a long stop.

    All minutes of the last streamer are then older. It may have been killed before it recorded a
    gap, so as many minutes before its newest row are read.
    """
    return min(horizon_us, max(last_us.values(), default=horizon_us) - lookback_us)


def _leaving_old(stored: StoredState, horizon_us: int) -> StoredState:
    """Leave what the table lacks before the horizon, and no gap tells, to jobs."""
    recent_us, left_us = {}, {}
    for symbol, ranges in stored.unsure_us.items():
        whole = united(ranges)
        if recent := without(whole, [(whole[0][0], horizon_us)]):
            recent_us[symbol] = recent
        known = [(one.start_us, one.end_us) for one in stored.gaps if one.symbol == symbol]
        later = [(max(horizon_us, whole[0][0]), max(horizon_us, whole[-1][1]))]
        if left := without(without(whole, later), united(known)):
            left_us[symbol] = left
    return replace(stored, unsure_us=recent_us, left_us=left_us)
