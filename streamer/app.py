"""The streamer: connects feeds, writer and repair, and starts and stops them in order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from include.config import Settings
from include.domain.candles import CandleCandidate, Status
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, from_us_text, minute_of
from include.errors import TransientError
from include.jobs.exchange import endpoints_of
from include.jobs.klines.minutes import HALT_IS_SURE_US
from include.jobs.klines.pieces import LoadCounts
from include.jobs.klines.repairs import Repairs
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.events import (
    KLINE_DISPUTED,
    MISSING_TRADES,
    NO_CLOSED_KLINE,
    NOT_STREAMED,
    NOT_VERIFIED_AT_START,
)
from streamer.candles.feed import CandleFeed, stream_kinds
from streamer.candles.feeds import CandleFeeds
from streamer.capture.app import Capture
from streamer.exchange.clock import ExchangeClock, next_tick_s
from streamer.health.statistics import report
from streamer.health.telemetry import TelemetrySources
from streamer.health.watchdog import Watchdog
from streamer.hub.books.live_books import LiveBooks
from streamer.hub.books.snapshots import BookSnapshots, depth_fetcher
from streamer.hub.hub import Hub
from streamer.hub.trade_tap import TradeTaps
from streamer.runtime.garbage import collect_seldom
from streamer.runtime.supervisor import Supervisor
from streamer.storage.failover_check import FailoverCheck
from streamer.storage.gap_ledger import GapLedger
from streamer.storage.repair_queue import RepairQueue, RepairRequest
from streamer.storage.writer import CandleWriter
from streamer.symbols.first_minutes import BEFORE_LOOKBACK
from streamer.symbols.listings import Listings
from streamer.symbols.registry import Registry
from streamer.symbols.startup import (
    StoppedError,
    StoredState,
    StreamOptions,
    StreamStart,
    find_start,
    timing_of,
)
from streamer.symbols.symbol_selection import SelectionChanges, selections_of

log = structlog.get_logger(__name__)

CANCEL_TIMEOUT_S = 3.0
MAX_DISPUTED = 1_000
"""Disputed klines that wait for REST; of more, the oldest are only in the log."""
STOP_TIMEOUT_S = 5.0
"""Maximum wait for the last writes; together with ``CANCEL_TIMEOUT_S`` below the ten seconds that
follow SIGTERM."""


@asynccontextmanager
async def _no_probes(_settings: Settings, _telemetry: TelemetrySources) -> AsyncIterator[None]:
    yield


async def _no_readers(
    _settings: Settings, _telemetry: TelemetrySources, _now_us: Callable[[], int]
) -> None:
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Serving:
    """Servers of a streamer's data, passed in by the entry point. By default there are none.

    Attributes:
        probes: serves metrics and health from before the start until after the end.
        readers: serves live candles until cancelled.
    """

    probes: Callable[[Settings, TelemetrySources], AbstractAsyncContextManager[None]] = _no_probes
    readers: Callable[
        [Settings, TelemetrySources, Callable[[], int]], Coroutine[Any, Any, None]
    ] = _no_readers


class Streamer:
    """Streams the selected symbols into PostgreSQL until it is stopped.

    It implements ``AggregatorEvents`` for its aggregators.
    """

    def __init__(
        self, settings: Settings, options: StreamOptions, serving: Serving | None = None
    ) -> None:
        self._settings = settings
        self._options = options
        self._serving = serving or Serving()
        kinds = stream_kinds(options.trade_stream, klines=options.klines)
        self._feeds = CandleFeeds(self._make_feed, streams_per_symbol=len(kinds))
        self._listings: Listings | None = None
        self._instruments: dict[str, Instrument] = {}
        self._clocks: dict[Market, ExchangeClock] = {}
        self._aggregators: list[SymbolAggregator] = []
        self._counts: Counter[str] = Counter()
        self._disputed: dict[tuple[str, int], CandleCandidate] = {}
        """Closed klines, by symbol and open time, that wait for REST."""
        self._missing_logged: dict[str, int] = {}
        """Minute for which missing trades were last logged, by symbol."""
        self.hub = Hub()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest = Repairs(settings, settings.url_for("streamer"))
        self._ledger = GapLedger(settings.url_for("streamer"), expects_klines=options.klines)
        self._repairs = RepairQueue(
            repair=self._repair,
            exchange_us=self._exchange_us,
            on_given_up=self._give_up,
            on_repaired=self._repaired,
            patience_us=self._patience_us,
            release=self._rest.close,
        )
        self._failover_check = FailoverCheck(
            settings, self.hub, self._exchange_us, self.rest_needed
        )
        self._writer = CandleWriter(
            settings.url_for("streamer"),
            lambda: self._aggregators,
            batch_size=settings.batch_size,
            flush_timeout_s=settings.batch_flush_timeout_ms / 1000,
            buffer_rows=settings.buffer_rows,
            on_overflow=self.rest_needed,
            on_stored=self._ledger.stored,
            on_reconnected=self._failover_check.schedule,
        )
        self.live_books = LiveBooks()
        self._book_snapshots = BookSnapshots(
            self.live_books, depth_fetcher(settings, settings.url_for("streamer"))
        )
        self._capture = Capture(
            settings,
            options.capture,
            books=self.live_books,
            trade_stream=options.trade_stream,
            traded_us=lambda symbol: self._feeds.last_trade_us(symbol),
        )
        self.telemetry = TelemetrySources(
            feeds=self._feeds.feeds,
            writer=self._writer,
            repairs=self._repairs,
            ledger=self._ledger,
            hub=self.hub,
            capture=self._capture.report,
            capture_feeds=self._capture.feeds,
            counts=self._counts,
        )
        self._registry = Registry(settings, lambda: list(self._clocks))
        self._trade_taps = TradeTaps(self.telemetry.ticks.trades)
        self._watchdog = Watchdog(self.telemetry.states, self._feeds.feed_of)

    # --- AggregatorEvents

    def candle_closed(self, candidate: CandleCandidate) -> None:
        """Store and publish a candle."""
        self._counts[candidate.status.value] += 1
        if candidate.status is Status.PARTIAL:
            start_us = candidate.candle.open_time_us
            self._ledger.missed(
                candidate.candle.symbol, start_us, start_us + MINUTE_US, MISSING_TRADES
            )
        self._watchdog.candle_closed(candidate)
        self._writer.enqueue(candidate)
        self.hub.publish_closed(candidate)

    def rest_needed(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Open a gap and queue its repair by REST."""
        self._ledger.repair_requested(symbol, start_us, end_us, cause)
        self._repairs.request(symbol, start_us, end_us, cause)

    def resubscribe_needed(self, symbol: str, reason: str) -> None:
        """Subscribe again, or rotate the connection."""
        self._watchdog.revive(symbol, self._instruments[symbol].exchange_symbol, reason)

    def symbol_silent(self, symbol: str, since_us: int) -> None:
        """Mark the symbol as silent."""
        self._watchdog.symbol_silent(symbol, since_us)

    def silence_ended(self, symbol: str, since_us: int, until_us: int) -> None:
        """Mark the symbol as delivering again."""
        self._watchdog.silence_ended(symbol, since_us, until_us)

    def trades_missing(
        self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int
    ) -> None:
        """Open a gap; log only the first one of each minute, since a bad network loses many."""
        self._ledger.trades_lost(symbol, from_us, to_us + 1, MISSING_TRADES)
        self._counts["missing_trades"] += 1
        if self._missing_logged.get(symbol) == (minute := minute_of(to_us)):
            return
        self._missing_logged[symbol] = minute
        log.warning(
            "trades_missing",
            symbol=symbol,
            first_id=first_id,
            last_id=last_id,
            since=from_us_text(from_us),
            until=from_us_text(to_us),
        )

    def trade_ids_restarted(self, symbol: str, expected_id: int, trade_id: int, at_us: int) -> None:
        """Log that the ticker belongs to another instrument."""
        log.warning(
            "trade_ids_restarted",
            symbol=symbol,
            expected_id=expected_id,
            trade_id=trade_id,
            at=from_us_text(at_us),
        )

    def kline_differs(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """Count and log a candle that differs from its kline; the merge stores both."""
        self._counts["differing"] += 1
        open_time = from_us_text(open_time_us)
        log.warning("kline_differs", symbol=symbol, open_time=open_time, values=values)

    def kline_disputed(self, kline: CandleCandidate) -> None:
        """Request the minute from REST; the kline is stored as evidence after that."""
        symbol, start_us = kline.candle.symbol, kline.candle.open_time_us
        self._disputed.pop((symbol, start_us), None)
        self._disputed[symbol, start_us] = kline
        if len(self._disputed) > MAX_DISPUTED:
            del self._disputed[next(iter(self._disputed))]
        self.rest_needed(symbol, start_us, start_us + MINUTE_US, KLINE_DISPUTED)

    def open_candle_corrected(self, symbol: str, open_time_us: int, values: list[str]) -> None:
        """Count and log a correction of an open candle."""
        self._counts["corrected"] += 1
        open_time = from_us_text(open_time_us)
        log.warning("open_candle_corrected", symbol=symbol, open_time=open_time, values=values)

    # --- start and stop

    def stop(self) -> None:
        """Request a clean stop; ``run`` returns within ten seconds."""
        self._stop.set()

    def reload(self) -> None:
        """Read the symbols file again; does nothing before the start, which has just read it."""
        if self._listings is not None:
            self._listings.reload()

    async def run(self) -> None:
        """Stream until ``stop``.

        Raises:
            PermanentError: a setting, a symbol or the database URL is wrong.
        """
        self._loop = asyncio.get_running_loop()
        async with self._serving.probes(self._settings, self.telemetry):
            try:
                self._begin(await find_start(self._settings, self._options, self._stop))
            except StoppedError:
                return
            await self._work()

    async def _work(self) -> None:
        collect_seldom()
        tasks = Supervisor("streamer", cancel_timeout_s=CANCEL_TIMEOUT_S)
        for work in (
            self._feeds.run(),
            self._follow_listings(),
            self._tick(),
            self._writer.run(),
            self._repairs.run(),
            self._ledger.run(),
            self._failover_check.run(),
            self._registry.run(),
            self._capture.run(),
            self._book_snapshots.run(),
            report(self.telemetry),
            self._serving.readers(self._settings, self.telemetry, self._exchange_us),
        ):
            tasks.start(work)
        self.telemetry.is_started = True
        log.info(
            "streaming_started",
            symbols=len(self._aggregators),
            connections=len(self._feeds.feeds),
        )
        try:
            await tasks.wait(self._stop)
        finally:
            # Sources end first, so that nothing arrives after the last write.
            await tasks.close()
            self.hub.close()
            flushes = (self._flush(), self._capture.stop(STOP_TIMEOUT_S))
            errors = await asyncio.gather(*flushes, return_exceptions=True)
            self._rest.close()
            for error in filter(None, errors):
                raise error

    async def _flush(self) -> None:
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
        log.info("streaming_stopped", written=self._writer.written, **self._counts)

    def _begin(self, start: StreamStart) -> None:
        self._clocks = {one: ExchangeClock(begin_us=at) for one, at in start.now_us.items()}
        for market in start.now_us:
            of_market = [one for one in start.instruments if one.market is market]
            now_us = minute_of(start.now_us[market])
            self._failover_check.begin({one.symbol: now_us for one in of_market})
            self._add(market, of_market, start.begins_us)
        self._writer.expect_server(start.stored.server_started)
        self._repair_stored(start.stored)
        self._listings = Listings(
            self._settings,
            selections_of(self._options, start.instruments),
            start.now_us,
            on_changes=self._change,
            on_stored=self._repair_stored,
            live_written=self._writer.wait_for_write,
            stop=self._stop,
            top=self._options.top,
            file=None if (file := self._options.symbols_file) is None else file.path,
        )
        self._capture.begin(start.instruments, exchange_us=min(start.now_us.values()))

    # --- symbols

    def _repair_stored(self, stored: StoredState) -> None:
        """Queue repairs for gaps in newly streamed symbols."""
        for symbol, spans in stored.left_us.items():
            for span in spans:
                self._ledger.leave(symbol, *span, NOT_STREAMED, BEFORE_LOOKBACK)
        self._ledger.adopt(stored.gaps)
        for gap in stored.gaps:
            self._repairs.request(gap.symbol, gap.start_us, gap.end_us, gap.cause)
        for symbol, ranges in stored.unsure_us.items():
            for start_us, end_us in ranges:
                self.rest_needed(symbol, start_us, end_us, NOT_VERIFIED_AT_START)

    def _add(
        self, market: Market, instruments: Sequence[Instrument], begins: Mapping[str, int]
    ) -> None:
        """Stream further symbols, each from its given minute or from now on."""
        timing = timing_of(self._settings, self._options, market)
        aggregators = {}
        for instrument in instruments:
            aggregator = SymbolAggregator(instrument, timing, self)
            if instrument.symbol in begins:
                aggregator.resume_after(begins[instrument.symbol] - MINUTE_US)
            aggregators[instrument.exchange_symbol] = aggregator
            self.hub.add(aggregator)
            self._instruments[instrument.symbol] = instrument
        self._failover_check.begin(begins)
        self._aggregators += aggregators.values()
        self._feeds.add(market, aggregators)

    def _change(self, market: Market, changes: SelectionChanges, begins: Mapping[str, int]) -> None:
        """Apply changes of the exchange's list of symbols, or of the selection."""
        self._market_us(market)  # needed before the last connection of the market may close
        for symbol, status in changes.halted.items():
            self._watchdog.halted(symbol, status)
            self._capture.trading_stopped(symbol, exchange_us=self._exchange_us())
        for symbol in changes.resumed:
            self._watchdog.resumed(symbol)
        for symbol in changes.dropped:
            if (unfinished := self._feeds.feed_of(symbol).unfinished_us(symbol)) is not None:
                self.rest_needed(symbol, *unfinished, NO_CLOSED_KLINE)
        removed = (*changes.dropped, *changes.removed)
        self._failover_check.end(removed)
        for symbol in removed:
            self._feeds.remove(symbol)
            self._capture.remove(symbol)
            self.hub.remove(symbol)
            self._aggregators = [one for one in self._aggregators if one.symbol != symbol]
            self._watchdog.removed(symbol, is_wanted=symbol not in changes.dropped)
        for one in changes.added:
            log.info("symbol_added", symbol=one.symbol, since=from_us_text(begins[one.symbol]))
        if changes.added:
            self._registry.refresh()
        self._add(market, changes.added, begins)
        self._capture.add([one.symbol for one in changes.added])

    def _make_feed(
        self, market: Market, name: str, aggregators: Mapping[str, SymbolAggregator]
    ) -> CandleFeed:
        settings, options = self._settings, self._options
        endpoints = endpoints_of(settings, market)
        return CandleFeed(
            endpoints.stream_url_for(options.trade_stream),
            market,
            aggregators,
            name=name,
            trade_stream=options.trade_stream,
            klines=options.klines,
            stale_after_s=settings.stale_stream_s,
            rotate_after_s=settings.rotate_after_s,
            proxy=settings.proxy_for(endpoints.ws_url) or None,
            capture=self._capture.tap(market),
            trade_tap=self._trade_taps.taps[market],
            on_missed=self._ledger.trades_lost,
            begin_us=self._market_us(market),
        )

    async def _follow_listings(self) -> None:
        if self._listings is not None:
            await self._listings.run()
        await self._stop.wait()

    # --- exchange time

    async def _tick(self) -> None:
        """Close minutes that have ended."""
        loop = asyncio.get_running_loop()
        graces_us = {timing_of(self._settings, self._options, one).grace_us for one in Market}
        while True:
            wait_s = next_tick_s(self._exchange_us(), graces_us)
            due_s = loop.time() + wait_s
            await asyncio.sleep(wait_s)
            self.telemetry.loop_delay_seconds.observe(max(0.0, loop.time() - due_s))
            if await self._feeds.close_minutes():
                self._writer.write_now()

    def _exchange_us(self) -> int:
        return self._feeds.now_us

    def _market_us(self, market: Market) -> int:
        """Return the exchange time of a market, even while it has no connection."""
        clock = self._clocks.setdefault(market, ExchangeClock(begin_us=self._exchange_us()))
        times_us = (feed.now_us for feed in self._feeds.feeds if feed.market is market)
        return clock.now_us(max(times_us, default=0))

    # --- repairs

    def _patience_us(self, symbol: str) -> int:
        """Return a longer wait for silent symbols: REST shows only after minutes whether one is
        halted."""
        return HALT_IS_SURE_US if self._watchdog.is_silent(symbol) else 0

    def _repair(self, symbol: str, start_us: int, end_us: int) -> LoadCounts:
        """Fetch and store minutes by REST; runs in a thread."""
        return self._rest.repair(symbol, start_us, end_us, on_merged=self._publish_repaired)

    def _publish_repaired(self, candidates: Sequence[CandleCandidate]) -> None:
        def publish() -> None:
            for candidate in candidates:
                self.hub.publish_closed(candidate)
                key = (candidate.candle.symbol, candidate.candle.open_time_us)
                if (kline := self._disputed.pop(key, None)) is not None:
                    self._writer.enqueue(kline)

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(publish)

    def _repaired(self, request: RepairRequest, counts: LoadCounts) -> None:
        bounds = (request.symbol, request.start_us, request.end_us)
        self._ledger.repaired(*bounds, request.cause, counts.offered)

    def _give_up(self, request: RepairRequest, reason: str) -> None:
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
