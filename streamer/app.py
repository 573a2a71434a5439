"""The streamer: wires feeds, writer and repair, starts and stops them in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from include.config import Settings
from include.domain.candles import CandleCandidate
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, from_us_text, minute_of
from include.errors import TransientError
from include.jobs.exchange import endpoints_of
from include.jobs.klines.minutes import HALT_IS_SURE_US
from include.jobs.klines.pieces import LoadCounts
from include.jobs.klines.repairs import Repairs
from streamer.anomalies import Findings
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.connection_pool import ConnectionPool
from streamer.candles.events import NO_CLOSED_KLINE
from streamer.candles.feed import Feed, stream_names
from streamer.capture.app import Capture
from streamer.exchange.clock import ExchangeClock, next_look_s
from streamer.health.report import report
from streamer.health.telemetry import TelemetrySources
from streamer.health.watchdog import Watchdog
from streamer.hub.hub import Hub
from streamer.hub.trade_tap import TradeTaps
from streamer.runtime.garbage import collect_seldom
from streamer.storage.failover_check import FailoverCheck
from streamer.storage.gap_ledger import GapLedger
from streamer.storage.repair_queue import RepairQueue, Request
from streamer.storage.writer import CandleWriter
from streamer.symbols.listings import Listings
from streamer.symbols.startup import (
    StoppedError,
    StoredState,
    StreamOptions,
    StreamStart,
    find_start,
    timing_of,
)
from streamer.symbols.symbol_selection import SelectionChanges, rosters_of

log = structlog.get_logger(__name__)

POLL_INTERVAL_S = 60.0
"""An end of a part is heard at once; so often it is looked for all the same."""
CANCEL_TIMEOUT_S = 3.0
STOP_TIMEOUT_S = 5.0
"""Together they stay below the ten seconds that a supervisor waits after SIGTERM."""


@asynccontextmanager
async def _no_probes(_settings: Settings, _sources: TelemetrySources) -> AsyncIterator[None]:
    yield


async def _no_readers(
    _settings: Settings, _sources: TelemetrySources, _now_us: Callable[[], int]
) -> None:
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves a streamer's data, handed in by the entry point. By default nothing is served.

    Attributes:
        probes: serves metrics and health from before the start until after the end.
        readers: serves live candles until cancelled.
    """

    probes: Callable[[Settings, TelemetrySources], AbstractAsyncContextManager[None]] = _no_probes
    readers: Callable[
        [Settings, TelemetrySources, Callable[[], int]], Coroutine[Any, Any, None]
    ] = _no_readers


class Streamer(Findings):
    """Streams the chosen symbols into PostgreSQL until told to stop.

    It is the ``Sink`` of its aggregators.
    """

    def __init__(
        self, settings: Settings, options: StreamOptions, serving: Serving | None = None
    ) -> None:
        super().__init__(GapLedger(settings.url_for("streamer"), expects_klines=options.klines))
        self._settings = settings
        self._options = options
        self._serving = serving or Serving()
        per_symbol = stream_names("x", trade_stream=options.trade_stream, klines=options.klines)
        self._fleet = ConnectionPool(self._make_feed, streams_per_symbol=len(per_symbol))
        self._feeds = self._fleet.feeds
        self._listings: Listings | None = None
        self._instruments: dict[str, Instrument] = {}
        self._clocks: dict[Market, ExchangeClock] = {}
        self._aggregators: list[SymbolAggregator] = []
        self.hub = Hub()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest = Repairs(settings, settings.url_for("streamer"))
        self._repairs = RepairQueue(
            repair=self._repair,
            exchange_us=self._exchange_us,
            on_given_up=self._give_up,
            on_repaired=self._repaired,
            patience_us=self._patience_us,
            release=self._rest.close,
        )
        self._look_back = FailoverCheck(settings, self.hub, self._exchange_us, self.ask_rest)
        self._writer = CandleWriter(
            settings.url_for("streamer"),
            lambda: self._aggregators,
            batch_size=settings.batch_size,
            flush_timeout_s=settings.batch_flush_timeout_ms / 1000,
            buffer_rows=settings.buffer_rows,
            on_overflow=self.ask_rest,
            on_written=self._ledger.written,
            on_back=self._look_back.note,
        )
        self._capture = Capture(
            settings,
            options.capture,
            trade_stream=options.trade_stream,
            traded_us=lambda symbol: self._fleet.last_trade_us(symbol),
        )
        self.observed = TelemetrySources(
            feeds=self._feeds,
            writer=self._writer,
            repairs=self._repairs,
            ledger=self._ledger,
            hub=self.hub,
            capture=self._capture.report,
            capture_feeds=self._capture.feeds,
            counts=self._counts,
        )
        self._tape = TradeTaps(self.observed.ticks.trades)
        self._watchdog = Watchdog(self.observed.states, self._fleet.feed_of)

    # --- results of the aggregators

    def settle(self, offer: CandleCandidate) -> None:
        """A candle is ready for the table."""
        self._counts[offer.status.value] += 1
        self._watchdog.settled(offer)
        self._writer.add(offer)
        self.hub.settle(offer)

    def ask_rest(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Minutes need the exchange's word by REST."""
        self._ledger.asked(symbol, start_us, end_us, cause)
        self._repairs.ask(symbol, start_us, end_us, cause)

    def doubt(self, symbol: str, reason: str) -> None:
        """A symbol's streams do not deliver what they should."""
        self._watchdog.doubt(symbol, self._instruments[symbol].exchange_symbol, reason)

    def silent(self, symbol: str, since_us: int) -> None:
        """Nothing comes of a symbol."""
        self._watchdog.silent(symbol, since_us)

    def speaks_again(self, symbol: str, since_us: int, until_us: int) -> None:
        """A silent symbol delivers again."""
        self._watchdog.speaks_again(symbol, since_us, until_us)

    # --- life

    def stop(self) -> None:
        """Ask for a clean stop; ``run`` returns within ten seconds."""
        self._stop.set()

    def reload(self) -> None:
        """Read the file of symbols again; before the start is done, it was just read."""
        if self._listings is not None:
            self._listings.reload()

    async def run(self) -> None:
        """Stream until ``stop``.

        Raises:
            PermanentError: a setting, a symbol or the database's URL is wrong.
        """
        self._loop = asyncio.get_running_loop()
        async with self._serving.probes(self._settings, self.observed):
            try:
                self._build(await find_start(self._settings, self._options, self._stop))
            except StoppedError:
                return
            await self._work()

    async def _work(self) -> None:
        collect_seldom()
        works = [
            self._fleet.run(),
            self._follow(),
            self._tick(),
            self._writer.run(),
            self._repairs.run(),
            self._ledger.run(),
            self._look_back.run(),
            self._capture.run(),
            report(self.observed),
            self._serving.readers(self._settings, self.observed, self._exchange_us),
        ]
        tasks = [asyncio.ensure_future(work) for work in works]
        stopping = asyncio.ensure_future(self._stop.wait())
        self.observed.is_started = True
        log.info("streaming", symbols=len(self._aggregators), connections=len(self._feeds))
        try:
            done: set[asyncio.Future[Any]] = set()
            while not done:
                done, _ = await asyncio.wait(
                    [stopping, *tasks],
                    timeout=POLL_INTERVAL_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            for task in done:
                task.result()  # raises what ended it
        finally:
            # Sources first: nothing may come behind the last write.
            for task in [*tasks, stopping]:
                task.cancel()
            await asyncio.wait([*tasks, stopping], timeout=CANCEL_TIMEOUT_S)
            self.hub.close()
            rests = (self._write_the_rest(), self._capture.stop(STOP_TIMEOUT_S))
            ends = await asyncio.gather(*rests, return_exceptions=True)  # neither ends the other
            self._rest.close()
            for error in filter(None, ends):
                raise error

    async def _write_the_rest(self) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._writer.flush()
                await self._ledger.flush()
        except (TransientError, TimeoutError) as error:
            log.warning(
                "stopped_with_unwritten_candles",
                waiting=self._writer.waiting,
                error=str(error) or "timeout",
                remedy="the next start fetches them from the exchange",
            )
        log.info("stopped", written=self._writer.written, **self._counts)

    def _build(self, start: StreamStart) -> None:
        self._clocks = {one: ExchangeClock(begin_us=at) for one, at in start.now_us.items()}
        for market in start.now_us:
            of_market = [one for one in start.instruments if one.market is market]
            now_us = minute_of(start.now_us[market])
            self._look_back.begun({one.symbol: now_us for one in of_market})
            self._add(market, of_market, start.begins_us)
        self._take_over(start.stored)
        self._listings = Listings(
            self._settings,
            rosters_of(self._options, start.instruments),
            start.now_us,
            on_changes=self._change,
            on_stored=self._take_over,
            live_written=self._writer.settled,
            stop=self._stop,
            top=self._options.top,
            file=None if (file := self._options.symbols_file) is None else file.path,
        )
        self._capture.begin(start.instruments, exchange_us=min(start.now_us.values()))

    def _take_over(self, stored: StoredState) -> None:
        """Have what the rows of symbols lack that are streamed from now on."""
        self._ledger.adopt(stored.gaps)
        for gap in stored.gaps:
            self._repairs.ask(gap.symbol, gap.start_us, gap.end_us, gap.cause)
        for symbol, ranges in stored.unsure_us.items():
            for start_us, end_us in ranges:
                self.ask_rest(symbol, start_us, end_us, "unsure at the start")

    def _add(
        self, market: Market, instruments: Sequence[Instrument], begins: Mapping[str, int]
    ) -> None:
        """Stream further symbols, each from the minute given, or else from now on."""
        timing = timing_of(self._settings, self._options, market)
        aggregators = {}
        for instrument in instruments:
            aggregator = SymbolAggregator(instrument, timing, self)
            if instrument.symbol in begins:
                aggregator.resume_after(begins[instrument.symbol] - MINUTE_US)
            aggregators[instrument.exchange_symbol] = aggregator
            self.hub.add(aggregator)
            self._instruments[instrument.symbol] = instrument
        self._look_back.begun(begins)
        self._aggregators += aggregators.values()
        self._fleet.add(market, aggregators)

    def _change(self, market: Market, changes: SelectionChanges, begins: Mapping[str, int]) -> None:
        """The exchange's list of symbols has changed."""
        self._market_us(market)  # noted before the last of its connections may go
        for symbol, status in changes.halted.items():
            self._watchdog.halted(symbol, status)
            self._capture.stopped(symbol, exchange_us=self._exchange_us())
        for symbol in changes.resumed:
            self._watchdog.resumed(symbol)
        for symbol in changes.dropped:
            if (closed_us := self._fleet.feed_of(symbol).unsettled_us(symbol)) is not None:
                self.ask_rest(symbol, *closed_us, NO_CLOSED_KLINE)
        self._look_back.left((*changes.dropped, *changes.removed))
        for symbol in (*changes.dropped, *changes.removed):
            self._fleet.remove(symbol)
            self._capture.remove(symbol)
            self.hub.remove(symbol)
            self._aggregators = [one for one in self._aggregators if one.symbol != symbol]
            self._watchdog.gone(symbol, is_wanted=symbol not in changes.dropped)
        for one in changes.added:
            log.info("symbol_added", symbol=one.symbol, since=from_us_text(begins[one.symbol]))
        self._add(market, changes.added, begins)
        self._capture.add([one.symbol for one in changes.added])

    def _make_feed(
        self, market: Market, name: str, aggregators: dict[str, SymbolAggregator]
    ) -> Feed:
        settings, options = self._settings, self._options
        endpoints = endpoints_of(settings, market)
        return Feed(
            endpoints.stream_url_for(options.trade_stream),
            market,
            aggregators,
            name=name,
            trade_stream=options.trade_stream,
            klines=options.klines,
            stale_after_s=settings.stale_stream_s,
            rotate_after_s=settings.rotate_after_s,
            proxy=settings.proxy_for(endpoints.ws_url) or None,
            tap=self._capture.tap(market),
            ear=self._tape.ears[market],
            on_missed=self._ledger.lost,
            begin_us=self._market_us(market),
        )

    # --- works

    async def _follow(self) -> None:
        if self._listings is not None:
            await self._listings.run()
        await self._stop.wait()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        graces_us = {timing_of(self._settings, self._options, one).grace_us for one in Market}
        while True:
            wait_s = next_look_s(self._exchange_us(), graces_us)
            due_s = loop.time() + wait_s
            await asyncio.sleep(wait_s)
            self.observed.loop_delay_seconds.observe(max(0.0, loop.time() - due_s))
            if await self._fleet.close_minutes():
                self._writer.hurry()

    def _exchange_us(self) -> int:
        return self._fleet.now_us

    def _market_us(self, market: Market) -> int:
        """The exchange's time in a market, also where it has no connection at the moment."""
        clock = self._clocks.setdefault(market, ExchangeClock(begin_us=self._exchange_us()))
        told_us = (feed.now_us for feed in self._feeds if feed.market is market)
        return clock.now_us(max(told_us, default=0))

    def _patience_us(self, symbol: str) -> int:
        """Of a silent symbol REST will hardly have rows, and only after minutes is that sure."""
        return HALT_IS_SURE_US if self._watchdog.is_silent(symbol) else 0

    def _repair(self, symbol: str, start_us: int, end_us: int) -> LoadCounts:
        """Ask REST; runs in a thread."""
        return self._rest.repair(symbol, start_us, end_us, on_merged=self._tell_repaired)

    def _tell_repaired(self, offers: Sequence[CandleCandidate]) -> None:
        def tell() -> None:
            for offer in offers:
                self.hub.settle(offer)

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(tell)

    def _repaired(self, request: Request, counts: LoadCounts) -> None:
        bounds = (request.symbol, request.start_us, request.end_us)
        self._ledger.repaired(*bounds, request.cause, counts.offered)

    def _give_up(self, request: Request, reason: str) -> None:
        log.error(
            "minutes_not_repaired",
            symbol=request.symbol,
            start=from_us_text(request.start_us),
            end=from_us_text(request.end_us),
            cause=request.cause,
            reason=reason,
        )
        bounds = (request.symbol, request.start_us, request.end_us)
        self._ledger.give_up(*bounds, request.cause, reason)
