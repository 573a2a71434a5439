"""Raw capture: taps the candle feeds, opens further streams and stores the rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import BinaryIO

import structlog

from include.binance.streams.depth import DEPTH_STREAM
from include.binance.streams.liquidations import FORCE_ORDER
from include.binance.streams.messages import AggTrade, Trade
from include.config import Settings
from include.domain.instruments import (
    Instrument,
    Market,
    exchange_symbol_of,
    market_of,
    symbol_of,
)
from include.domain.timeframes import MINUTE_US, to_us
from include.errors import PermanentError, TransientError
from include.jobs.exchange import endpoints_of
from include.jobs.trades.by_id import FetchCounts, Tail, fetch_trades, fetch_trailing
from include.store.trades.captured import (
    AGG_TRADES,
    BOOK_TICKERS,
    DEPTH_DIFFS,
    LIQUIDATIONS,
    TRADES,
    tables_of,
)
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.feeds import CaptureFeeds
from streamer.capture.intake.ids import MissingRange
from streamer.capture.intake.rows import Intake
from streamer.capture.intake.watch import StreamWatch
from streamer.capture.repair.expected_trades import ExpectedTrades
from streamer.capture.repair.former_symbols import RECENT_US, FormerSymbols
from streamer.capture.repair.missing_ids import MissingIdsQueue
from streamer.capture.repair.resumption import (
    CaptureResumption,
    cannot_be_requested,
    is_streamed,
)
from streamer.capture.repair.stored_rows_check import LOST, Behind, StoredRowsCheck
from streamer.capture.repair.trade_calls import trade_calls
from streamer.capture.repair.trailing_trades import TrailingTrades
from streamer.capture.spool.checkpoint import (
    MARGIN_US,
    WHOLE_FILE,
    Checkpoint,
    CompleteUntil,
    MissingIds,
)
from streamer.capture.spool.folders import claim_folder
from streamer.capture.spool.losses import LOSSES_FILE, Loss, Losses
from streamer.capture.spool.spool import Spool
from streamer.capture.writer import CaptureWriter
from streamer.hub.books.live_books import LiveBooks
from streamer.runtime.supervisor import run_together

log = structlog.get_logger(__name__)

STREAM_OF = {
    AGG_TRADES.name: "aggTrade",
    TRADES.name: "trade",
    BOOK_TICKERS.name: "bookTicker",
    LIQUIDATIONS.name: FORCE_ORDER,
    DEPTH_DIFFS.name: DEPTH_STREAM,
}
"""Streams of tables; snapshots of depth have none."""
MARKET_ROUTE = frozenset({"aggTrade", FORCE_ORDER})
"""Streams that USD-M routes apart from single trades, book tickers and depth."""
CUT = "the connection was cut"
SILENT = "the exchange delivered nothing of a stream that it had acknowledged"

Tap = Callable[[AggTrade | Trade], None]


class Capture:
    """Captures datasets of the streamed symbols; does nothing if none is configured.

    Args:
        datasets: of ``DATASETS``, or tables of them.
        trade_stream: the stream that the candles use; it is tapped, not subscribed twice.
        traded_us: returns the time (µs) of the last trade on a symbol's candle stream; 0 if there
            is none.
        books: receive the diffs of order books; None: own ones.
        now_us: wall clock.
    """

    def __init__(
        self,
        settings: Settings,
        datasets: Sequence[str],
        *,
        trade_stream: str,
        traded_us: Callable[[str], int],
        books: LiveBooks | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._settings = settings
        self._datasets = tables_of(datasets)
        self._books = LiveBooks() if books is None else books
        self._trade_stream = trade_stream
        self._now_us = now_us
        self._captured: set[str] = set()
        self._feeds = CaptureFeeds(self._routes, self._make_feed)
        self._watch = StreamWatch(self._feeds.feeds, traded_us, self._stayed_silent, now_us=now_us)
        self._lock: BinaryIO | None = None
        if not self._datasets:
            return
        self._url = settings.url_for("streamer")
        folder, self._lock = claim_folder(settings.candelabra_home / "spool")
        self.spool = Spool(folder, max_bytes=settings.capture_spool_bytes)
        self.losses = Losses(folder / LOSSES_FILE)
        self.losses.load()
        self.whole = CompleteUntil(folder / WHOLE_FILE, self._whole)
        self._complete_before = self.whole.load()
        self._began: tuple[int, float] | None = None
        """The exchange's time at the start (µs), and the monotonic clock's."""
        self.intake = Intake(
            self._datasets,
            max_rows=settings.capture_buffer_rows,
            on_losses=self.losses.add,
            books=self._books,
            now_us=now_us,
        )
        stored = StoredRowsCheck(self._url, self._gone, folder)
        stored.load()
        self.writer = CaptureWriter(
            self._url,
            self.intake.lanes,
            self.spool,
            self.losses,
            batch_rows=settings.capture_batch_rows,
            flush_timeout_s=settings.capture_flush_timeout_ms / 1000,
            acknowledged=stored,
        )
        self._resumption = CaptureResumption(
            self._url,
            self._datasets,
            self.intake,
            self.spool,
            self.losses,
            delivers_since_us=self._delivers_since_us,
            now_us=now_us,
            on_read=stored.expect,
        )
        calls = trade_calls()
        self.missing_ranges = MissingIdsQueue(
            self.intake.sequences,
            self._fetch,
            self._give_up,
            horizon_us=lambda: self._resumption.since_us,
            calls=calls,
        )
        self.tails = TrailingTrades(
            self.intake.sequences,
            self._resumption.is_done,
            self._fetch_trailing,
            self._give_up,
            calls,
        )
        self.former = FormerSymbols(
            self._url,
            self._datasets,
            is_captured=self._captured.__contains__,
            since_us=self._former_since_us,
            now_us=self._exchange_now_us,
            resume=self._resumption.read_rows,
        )
        self.evidence = ExpectedTrades(
            self._url,
            self.intake.sequences,
            is_checked=lambda one: (
                (one in self._captured or one in self.former) and self._resumption.is_done(one)
            ),
            since_us=lambda: min(self._resumption.since_us, self._former_since_us()),
            on_beyond=self._lacks_trades,
            is_pending=self.tails.is_pending,
            on_given_up=self._give_up,
        )

    def tap(self, market: Market) -> Tap | None:
        """Return the function that receives a candle feed's trades of this market; None if not
        captured."""
        wanted = any(STREAM_OF.get(name) == self._trade_stream for name in self._datasets)
        return partial(self.intake.on_trade, market) if wanted else None

    def begin(self, instruments: Sequence[Instrument], *, exchange_us: int) -> None:
        """Start with these symbols.

        Args:
            exchange_us: the exchange's time.
        """
        if not self._datasets:
            return
        whole, now_s = self._complete_before, time.monotonic()
        self._began = (exchange_us, now_s)
        self._resumption.begin(
            exchange_us=exchange_us,
            lookback_us=self._settings.fill_lookback_minutes * MINUTE_US,
            complete_until_us=None if whole is None else whole.until_us,
        )
        for one in () if whole is None else whole.missing:
            self.intake.sequence(one.dataset, one.symbol).miss(
                MissingRange(one.first_id, one.last_id, one.from_us, one.to_us, now_s)
            )
        self._join([instrument.symbol for instrument in instruments])
        for instrument in instruments:
            if not instrument.is_trading:
                self.trading_stopped(instrument.symbol, exchange_us=exchange_us)

    def add(self, symbols: Sequence[str]) -> None:
        """Capture further symbols, continuing after their last stored rows."""
        if self._datasets:
            self._join(symbols)

    def trading_stopped(self, symbol: str, *, exchange_us: int) -> None:
        """Fetch the last trades of a symbol that stopped trading.

        Args:
            exchange_us: the exchange's time.
        """
        for dataset in self._datasets:
            if not cannot_be_requested(dataset, market_of(symbol)):
                self.tails.stopped(dataset, symbol, exchange_us)

    def remove(self, symbol: str) -> None:
        """Stop capturing a symbol; its missing ids are still fetched."""
        if self._datasets:
            self._feeds.remove(symbol)
            self._captured.discard(symbol)
            self._books.drop(symbol)

    async def run(self) -> None:
        """Capture until cancelled."""
        if not self._datasets:
            await asyncio.Event().wait()
        await run_together(
            self._feeds.run(),
            self.writer.run(),
            self.missing_ranges.run(),
            self._resumption.run(),
            self.tails.run(),
            self.former.run(),
            self.evidence.run(),
            self._watch.run(),
            self.whole.run(),
            name="capture",
        )

    async def stop(self, timeout_s: float) -> None:
        """Write the remaining rows. If PostgreSQL does not store rows that cannot be refetched,
        they go to disk."""
        if self._lock is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self.writer.flush()
                await self.whole.save()
        except (TransientError, PermanentError, TimeoutError) as error:
            log.warning(
                "stopped_with_unwritten_capture",
                waiting=self.intake.lanes.waiting,
                spooled_bytes=self.spool.size_bytes,
                error=str(error) or "timeout",
                remedy="the next start replays the spool and fetches trades by id",
            )
        finally:
            self._lock.close()

    @property
    def feeds(self) -> Sequence[CaptureFeed]:
        """Current connections of raw capture; the list object is never replaced."""
        return self._feeds.feeds

    def report(self) -> Mapping[str, int]:
        """Return figures for logs and metrics; empty if nothing is captured."""
        if not self._datasets:
            return {}
        return {
            **{f"captured_{name}": self.writer.written[name] for name in self._datasets},
            "capture_waiting": self.intake.lanes.waiting,
            "capture_repeated": self.writer.repeated + self.intake.duplicates,
            "capture_refused": self.writer.refused + self.intake.refused_diffs,
            "capture_replayed": self.writer.replayed,
            "capture_spooled_bytes": self.spool.size_bytes,
            "capture_lost_rows": self.losses.rows,
            "capture_losses": self.losses.times,
            "capture_missing_ids": self.missing_ranges.waiting_ids,
            "capture_filled_rows": self.missing_ranges.filled_rows + self.tails.filled_rows,
        }

    # --- inside

    def _whole(self) -> Checkpoint | None:
        """Return the known ids; None until all rows have been read and losses are on disk."""
        if self._began is None or not (self._resumption.is_complete and self.losses.is_saved):
            return None
        until_us = self._exchange_now_us()
        for lane in self.intake.lanes.lanes:
            if lane.can_be_requested and lane.rows:
                moment = lane.rows[0].split("\t")[lane.table.time_index]
                until_us = min(until_us, to_us(datetime.fromisoformat(moment)))
        missing = [
            MissingIds(dataset, symbol, one.first_id, one.last_id, one.from_us, one.to_us)
            for dataset, symbol, one in self.missing_ranges.missing
        ]
        return Checkpoint(until_us - MARGIN_US, missing)

    def _former_since_us(self) -> int:
        """Return the exchange time since which rows and candles are checked: two days before the
        start, or when an earlier process last knew every missing id, whichever is earlier."""
        before = self._complete_before
        since_us = (0 if self._began is None else self._began[0]) - RECENT_US
        return since_us if before is None else min(since_us, before.until_us)

    def _exchange_now_us(self) -> int:
        if self._began is None:
            return 0
        exchange_us, began_s = self._began
        return exchange_us + int((time.monotonic() - began_s) * 1e6)

    def _lacks_trades(self, dataset: str, symbol: str, end_us: int) -> None:
        """Fetch trades that a candle with this end (µs) shows to be missing."""
        if not self.former.drop_if_trading(symbol, end_us):
            self.tails.stopped(dataset, symbol, end_us)

    def _join(self, symbols: Sequence[str]) -> None:
        self._feeds.add(symbols)
        self._resumption.join([name for name in symbols if name not in self._captured])
        self._captured.update(symbols)

    def _routes(self, market: Market) -> dict[str, list[str]]:
        """Return the stream kinds that no candle feed carries, by the URL that serves them."""
        endpoints = endpoints_of(self._settings, market)
        routes: dict[str, list[str]] = {}
        for name in self._datasets:
            kind = STREAM_OF.get(name)
            if kind is not None and kind != self._trade_stream and is_streamed(name, market):
                url = endpoints.stream_url_for("aggTrade" if kind in MARKET_ROUTE else "trade")
                routes.setdefault(url, []).append(kind)
        return routes

    def _make_feed(
        self,
        market: Market,
        url: str,
        kinds: Sequence[str],
        names: Collection[str],
        own_name: str,
    ) -> CaptureFeed:
        return CaptureFeed(
            url,
            market,
            kinds,
            names,
            self.intake,
            name=own_name,
            stale_after_s=self._settings.stale_stream_s,
            rotate_after_s=self._settings.rotate_after_s,
            on_missed=self._missed,
            on_revived=self._watch.revived,
            now_us=self._now_us,
            proxy=self._settings.proxy_for(url) or None,
        )

    def _delivers_since_us(self, dataset: str, symbol: str) -> int | None:
        """Return the wall clock since which the exchange delivers a dataset of a symbol.

        0 if a candle feed is tapped, or nothing is subscribed.
        """
        try:
            return self._feeds.delivers_since_us(
                market_of(symbol), STREAM_OF[dataset], exchange_symbol_of(symbol)
            )
        except KeyError:
            return 0

    def _missed(self, feed: CaptureFeed, from_us: int, to_us: int) -> None:
        """Record a disconnect: missing trades show by their ids, other rows are lost.

        Trades have the exchange's time: trades still in flight are older than the disconnect.
        """
        trades_from_us = min(from_us, feed.disconnect_event_us or from_us)
        self.losses.add(
            Loss(
                dataset,
                symbol_of(feed.market, name),
                CUT,
                trades_from_us if dataset == TRADES.name else from_us,
                to_us,
            )
            for name in sorted(feed.names)
            for dataset in self._datasets
            if STREAM_OF.get(dataset) in feed.kinds
            and cannot_be_requested(dataset, feed.market)
            and dataset != DEPTH_DIFFS.name  # the next diff shows by its ids whether any is missing
        )

    def _stayed_silent(
        self, feed: CaptureFeed, kind: str, name: str, from_us: int, to_us: int
    ) -> None:
        """Record the loss of one stream of a connection that was dead."""
        self.losses.add(
            Loss(dataset, symbol_of(feed.market, name), SILENT, from_us, to_us)
            for dataset in self._datasets
            if STREAM_OF.get(dataset) == kind
            and cannot_be_requested(dataset, feed.market)
            and dataset != DEPTH_DIFFS.name
        )

    def _gone(self, behind: Sequence[Behind]) -> None:
        """Handle rows that PostgreSQL lost: request rows with ids again, record the rest as lost.

        Rows fetched by id were stored in between; a check of all rows finds them.
        """
        now_s = time.monotonic()
        for one in behind:
            if cannot_be_requested(one.dataset, market_of(one.symbol)):
                from_us = one.time_us if one.stored is None else one.stored[1]
                self.losses.add([Loss(one.dataset, one.symbol, LOST, from_us, one.time_us)])
            else:
                self.intake.sequence(one.dataset, one.symbol).unstore(one.stored, one.id, now_s)
        self._resumption.check_again(sorted(self._captured))

    def _fetch(
        self, dataset: str, symbol: str, first_id: int, last_id: int, until_us: int
    ) -> FetchCounts:
        return fetch_trades(
            settings=self._settings,
            database_url=self._url,
            dataset=dataset,
            symbol=symbol,
            first_id=first_id,
            last_id=last_id,
            until_us=until_us,
        )

    def _fetch_trailing(self, dataset: str, symbol: str, after_id: int, after_us: int) -> Tail:
        return fetch_trailing(
            settings=self._settings,
            database_url=self._url,
            dataset=dataset,
            symbol=symbol,
            after_id=after_id,
            after_us=after_us,
        )

    def _give_up(self, dataset: str, symbol: str, missing_range: MissingRange, reason: str) -> None:
        """Record a loss in the ledger, with a count if it is known."""
        self.losses.add(
            [
                Loss(
                    dataset,
                    symbol,
                    reason,
                    missing_range.from_us,
                    missing_range.to_us,
                    missing_range.ids or None,
                )
            ]
        )
