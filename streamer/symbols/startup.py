"""What the streamer has to know before its first frame."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from include.backoff import Backoff
from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import TransientError
from include.jobs.exchange import open_shared_rest
from include.store.candles.live import remove_left_live
from include.store.candles.minutes import last_minutes, minutes_to_ask
from include.store.ledgers.gaps import Gap, claim_gaps, close_proven_gaps, unknown_since
from include.store.postgres.pools import connect
from streamer.candles.minutes import Timing
from streamer.runtime.threads import in_thread
from streamer.symbols.first_minutes import begin_newcomers, missed_beginnings
from streamer.symbols.symbols_file import WantedSymbols
from streamer.symbols.universe import choose, markets_of, resting

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

BACKOFF = Backoff(first_s=1.0, max_s=15.0, min_s=0.1)
MAX_CALL_S = 300.0
"""Requests that wait for weight, or the stored minutes of all symbols: longer than that, a call
hangs, as on a server that is frozen."""
MAX_GAPS = 10_000
"""Open gaps of ended streamers taken up at a start; what is left is for ``repair_gaps``."""


class StoppedError(Exception):
    """Told to stop before the work was done."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What to stream.

    Attributes:
        symbols: names and patterns; see ``universe.choose``.
        top: keep the N of largest volume in 24 hours.
        trade_stream: ``aggTrade``, or ``trade`` where a recording has nothing else.
        klines: whether the exchange's klines are subscribed to as the checksum.
        capture: tables of raw capture to fill, such as ``agg_trades``.
        symbols_file: where the symbols were read and may be read again; None: they stay.
    """

    symbols: tuple[str, ...]
    top: int | None = None
    trade_stream: str = "aggTrade"
    klines: bool = True
    capture: tuple[str, ...] = ()
    symbols_file: WantedSymbols | None = None

    def place_of(self, name: str) -> str:
        """Where a name was written, to begin a message with."""
        return "" if self.symbols_file is None else self.symbols_file.place_of(name)


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the table has of symbols that are to be streamed, and what it lacks.

    Attributes:
        last_us: open time of the newest row of each symbol that has any.
        unsure_us: half-open ranges of minutes up to it that have no row, or one that the
            exchange has not confirmed; from the first minute of a new listing on.
        gaps: what was missed of these symbols before and nobody has repaired.
    """

    last_us: dict[str, int]
    unsure_us: dict[str, list[tuple[int, int]]]
    gaps: list[Gap]

    def of(self, symbols: Container[str]) -> StoredState:
        """What of it is about these."""
        return StoredState(
            {symbol: at_us for symbol, at_us in self.last_us.items() if symbol in symbols},
            {symbol: spans for symbol, spans in self.unsure_us.items() if symbol in symbols},
            [gap for gap in self.gaps if gap.symbol in symbols],
        )


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where the streamer begins.

    Attributes:
        begins_us: the first minute to have of each symbol, where that is not now.
        now_us: the exchange's time, by market.
    """

    instruments: list[Instrument]
    stored: StoredState
    begins_us: dict[str, int]
    now_us: dict[Market, int]


def timing_of(settings: Settings, options: StreamOptions, market: Market) -> Timing:
    """How long the minutes of a market wait for more."""
    is_um = market is Market.UM
    grace_ms = settings.close_grace_um_ms if is_um else settings.close_grace_spot_ms
    return Timing(
        grace_us=grace_ms * 1000,
        kline_timeout_us=settings.kline_timeout_ms * 1000,
        expects_klines=options.klines,
        has_contiguous_ids=not (is_um and options.trade_stream == "trade"),
    )


async def find_start(
    settings: Settings, options: StreamOptions, stop: asyncio.Event
) -> StreamStart:
    """Ask the exchange for its symbols and the table where it ends.

    The exchange or the database being away is waited out.

    Raises:
        PermanentError: a symbol does not exist, or a URL or login is wrong.
        StoppedError: ``stop`` was set while waiting.
    """
    markets = markets_of(options.symbols) or (Market.SPOT,)
    instruments: list[Instrument] = []
    now_us: dict[Market, int] = {}
    volumes = {}
    url = settings.url_for("streamer")
    for market in markets:
        instruments += await persist(
            "exchange_info", _asking(settings, market, lambda rest: rest.exchange_info()), stop
        )
        now_us[market] = await persist(
            "server_time", _asking(settings, market, lambda rest: rest.server_time_us()), stop
        )
        if options.top is not None:
            ask_volumes = _asking(settings, market, lambda rest: rest.quote_volumes_24h())
            volumes.update(await persist("volumes", ask_volumes, stop))
    horizon_us = min(now_us.values()) - settings.fill_lookback_minutes * MINUTE_US
    streamed: list[str] = []
    if at_rest := resting(options.symbols, instruments):
        # One that was halted or delisted while nobody streamed may lack its last minutes.
        streamed = await persist(
            "streamed_before", lambda: _streamed_since(url, at_rest, horizon_us), stop
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
    begins = await persist(
        "first_minutes", lambda: begin_newcomers(settings, chosen, stored.last_us, now_us), stop
    )
    for market, market_us in now_us.items():
        of_market = {one.symbol for one in chosen if one.market is market}
        begins |= begins_behind(stored.of(of_market).last_us, market_us, settings)
    return StreamStart(chosen, stored, begins, now_us)


async def find_stored(
    settings: Settings,
    instruments: Sequence[Instrument],
    now_us: Mapping[Market, int],
    stop: asyncio.Event,
) -> StoredState:
    """Ask the table what it has of symbols that are about to be streamed, and take their gaps over.

    The exchange or the database being away is waited out. Open candles left behind are removed.

    Args:
        now_us: the exchange's time, by market.

    Raises:
        PermanentError: a URL or login is wrong, or a statement is refused.
        StoppedError: ``stop`` was set while waiting.
    """
    url = settings.url_for("streamer")
    symbols = [one.symbol for one in instruments]
    horizon_us = min(_horizon_us(settings, market_us) for market_us in now_us.values())
    stored = await persist(
        "stored_minutes", lambda: _stored_minutes(url, symbols, horizon_us), stop
    )
    missed = await persist(
        "beginnings", lambda: missed_beginnings(settings, instruments, now_us), stop
    )
    for symbol, span in missed.items():
        stored.unsure_us.setdefault(symbol, []).append(span)
    return stored


def begins_behind(last_us: Mapping[str, int], now_us: int, settings: Settings) -> dict[str, int]:
    """The minutes (µs) behind the newest rows, as far back as is looked."""
    horizon_us = _horizon_us(settings, now_us)
    return {symbol: max(at_us + MINUTE_US, horizon_us) for symbol, at_us in last_us.items()}


def _horizon_us(settings: Settings, now_us: int) -> int:
    return minute_of(now_us) - settings.fill_lookback_minutes * MINUTE_US


async def persist(what: str, call: Callable[[], Result], stop: asyncio.Event) -> Result:
    """Run a blocking call in a thread, again and again while its failure is transient."""
    failures = 0
    while True:
        try:
            return await _unless_stopped(what, in_thread(call, name=what), stop)
        except TransientError as error:
            failures += 1
            wait_s = BACKOFF.wait_s(failures, error)
            log.warning("start_postponed", what=what, error=str(error), retry_in_s=round(wait_s, 1))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await stop.wait()
                raise StoppedError(what)


async def _unless_stopped(
    what: str, call: Coroutine[Any, Any, Result], stop: asyncio.Event
) -> Result:
    """Await a call, or raise as soon as ``stop`` is set.

    Raises:
        TransientError: it hangs.
    """
    calling = asyncio.ensure_future(call)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait(
            {calling, stopping}, timeout=MAX_CALL_S, return_when=asyncio.FIRST_COMPLETED
        )
        if calling in done:
            return calling.result()
        if stopping in done:
            raise StoppedError(what)
        raise TransientError(f"{what}: no answer in {MAX_CALL_S:g} s")
    finally:
        calling.cancel()
        stopping.cancel()


def _asking(
    settings: Settings, market: Market, ask: Callable[[BinanceRest], Result]
) -> Callable[[], Result]:
    """A call of REST with a client of its own: one that hangs is not used by the next try."""

    def call() -> Result:
        with open_shared_rest(settings, market, settings.url_for("streamer")) as rest:
            return ask(rest)

    return call


def _streamed_since(url: str, symbols: Sequence[str], since_us: int) -> list[str]:
    """Those that have a row of this time, or none yet and a gap."""
    with connect(url, application_name="candelabra-streamer") as connection:
        last_us = unknown_since(connection, symbols, since_us) | last_minutes(connection, symbols)
    return [symbol for symbol in symbols if last_us.get(symbol, 0) >= since_us]


def _stored_minutes(url: str, symbols: Sequence[str], since_us: int) -> StoredState:
    """Where the table ends, what it is not sure of, and what was missed before.

    Open candles left behind are removed. A symbol that was streamed a moment ago may have rows
    under way: those that come after the look at its newest one are asked for, never left out.
    """
    with connect(url, application_name="candelabra-streamer") as connection:
        remove_left_live(connection, symbols)
        close_proven_gaps(connection, symbols=symbols)
        gaps = claim_gaps(connection, worker="streamer", limit=MAX_GAPS, symbols=symbols)
        last_us = last_minutes(connection, symbols)
        return StoredState(last_us, minutes_to_ask(connection, symbols, since_us), gaps)
