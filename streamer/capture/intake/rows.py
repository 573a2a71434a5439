"""Convert frames to COPY lines: each trade once by its id; missing ids are recorded, void trades
skipped.

A line is formatted on arrival, not when it is written. It needs a third of the memory of a row of
Decimals, the garbage collector does not scan it, and it is ready for the next write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from include.binance.streams.book_tickers import BookTicker
from include.binance.streams.depth import DepthUpdate
from include.binance.streams.liquidations import ForceOrder
from include.binance.streams.messages import AggTrade, Trade, microseconds
from include.domain.books.order_book import BookSnapshot
from include.domain.exact import ZERO
from include.domain.instruments import Market, symbol_of
from include.domain.timeframes import DAY_US, SECOND_US, to_us
from include.store.trades.captured import (
    AGG_TRADES,
    BOOK_TICKERS,
    DEPTH_DIFFS,
    DEPTH_SNAPSHOTS,
    LIQUIDATIONS,
    RAW_TABLES,
    TRADES,
    agg_trade_line,
    book_ticker_line,
    trade_line,
)
from include.store.trades.depth_lines import depth_diff_line, depth_snapshot_line
from include.store.trades.liquidations import liquidation_line
from streamer.capture.intake.ids import IdSequence, MissingRange
from streamer.capture.intake.lanes import Lane, Lanes
from streamer.capture.spool.losses import Loss
from streamer.capture.spool.spool import losses_of, tally
from streamer.exchange.liquidations import liquidation_of
from streamer.hub.books.live_books import LiveBooks
from streamer.hub.books.synced_book import NO_SNAPSHOT, Receipt

log = structlog.get_logger(__name__)

LATE_S = 2.0
"""Time in which missing ids may still arrive."""
NEAR_US = 10 * SECOND_US
"""Distance from midnight, in µs, within which two connections may deliver on different dates."""
DATASETS = tuple(RAW_TABLES)
MAX_LOGGED_LEVELS = 20
BUFFER_FULL = "the buffer was full while neither the database nor the disk took rows"

_SPOT = Market.SPOT


class Intake:
    """Receives the frames of all captured streams. A frame costs a few dict look-ups.

    Args:
        datasets: the tables to fill.
        max_rows: maximum rows in memory.
        on_losses: receives rows that had to be dropped for good.
        books: receive the diffs of order books, and return their snapshots.
        now_us: wall clock, for the time of receipt.
        monotonic_s: for waiting.
    """

    def __init__(
        self,
        datasets: Iterable[str],
        *,
        max_rows: int,
        on_losses: Callable[[list[Loss]], None],
        books: LiveBooks | None = None,
        late_s: float = LATE_S,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.datasets = frozenset(datasets)
        self.duplicates = 0
        self.void_trades = 0
        self.sequences: dict[tuple[str, str], IdSequence] = {}
        """Id trackers by dataset and symbol, for rows that can be requested by id."""
        self._agg_trades = Lane(AGG_TRADES, can_be_requested=True)
        self._spot_trades = Lane(TRADES, can_be_requested=True)
        self._futures_trades = Lane(TRADES, can_be_requested=False)
        self._quotes = Lane(BOOK_TICKERS, can_be_requested=False)
        self._liquidations = Lane(LIQUIDATIONS, can_be_requested=False)
        self._diffs = Lane(DEPTH_DIFFS, can_be_requested=False)
        self._snapshots = Lane(DEPTH_SNAPSHOTS, can_be_requested=False)
        self.lanes = Lanes(
            [
                self._agg_trades,
                self._spot_trades,
                self._futures_trades,
                self._quotes,
                self._liquidations,
                self._diffs,
                self._snapshots,
            ],
            max_rows=max_rows,
            on_leave=self._leave,
        )
        self._on_losses = on_losses
        self._late_s = late_s
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self.refused_diffs = 0
        self._books = LiveBooks() if books is None else books
        if self.takes(DEPTH_DIFFS.name):
            self._books.recorder = self
        self._takes_agg_trades = self.takes(AGG_TRADES.name)
        self._takes_trades = self.takes(TRADES.name)
        # By the exchange's name: one look-up finds everything for a frame.
        self._agg_ids: dict[Market, dict[str, tuple[str, IdSequence]]] = {m: {} for m in Market}
        self._spot_ids: dict[str, tuple[str, IdSequence]] = {}
        self._last_liquidations: dict[str, int] = {}
        self._last_quotes: dict[Market, dict[str, tuple[str, int]]] = {m: {} for m in Market}

    def takes(self, dataset: str) -> bool:
        """Whether this dataset is captured."""
        return dataset in self.datasets

    def sequence(self, dataset: str, symbol: str) -> IdSequence:
        """Return the id tracker of a symbol."""
        key = (dataset, symbol)
        found = self.sequences.get(key)
        if found is None:
            found = self.sequences[key] = IdSequence(late_s=self._late_s)
        return found

    def on_trade(self, market: Market, trade: AggTrade | Trade) -> None:
        """Add a trade, if its kind is captured."""
        is_aggregate = type(trade) is AggTrade
        if not (self._takes_agg_trades if is_aggregate else self._takes_trades):
            return
        price, quantity = trade.price, trade.quantity
        if price <= ZERO or quantity <= ZERO or trade.first_trade_id < 0:
            self.void_trades += 1
            return
        number, time_us = trade.id, microseconds(trade.trade_time)
        if isinstance(trade, AggTrade):
            known = self._agg_ids[market]
        elif market is not _SPOT:
            symbol = symbol_of(market, trade.symbol)
            line = trade_line(
                symbol, number, price, quantity, None, time_us, trade.is_buyer_maker,
                trade.trade_type,
            )  # fmt: skip
            self.lanes.add(self._futures_trades, line)
            return
        else:
            known = self._spot_ids
        symbol, sequence = known.get(trade.symbol) or self._know(
            known, AGG_TRADES.name if is_aggregate else TRADES.name, market, trade.symbol
        )
        if not sequence.take(number, time_us, self._monotonic_s()):
            self.duplicates += 1
            return
        if is_aggregate:
            line = agg_trade_line(
                symbol, number, price, quantity, trade.first_trade_id, trade.last_trade_id,
                time_us, trade.is_buyer_maker,
            )  # fmt: skip
            self.lanes.add(self._agg_trades, line)
        else:
            line = trade_line(symbol, number, price, quantity, None, time_us, trade.is_buyer_maker)
            self.lanes.add(self._spot_trades, line)

    def on_book_ticker(self, market: Market, quote: BookTicker, age_us: int = 0) -> None:
        """Add a book ticker; the table removes duplicates of two processes.

        Args:
            age_us: its age, if it was held during a handover. If the old connection has delivered a
                later message, it has most likely delivered this one too. The table stores it once,
                except around midnight if the exchange sends no time: then its time of receipt may
                fall on another date.
        """
        known, name, number = self._last_quotes[market], quote.symbol, quote.update_id
        symbol, last = known.get(name) or (symbol_of(market, name), None)
        if last == number or (
            age_us
            and last is not None
            and number < last
            and not quote.event_time
            and self._is_near_midnight(age_us)
        ):
            self.duplicates += 1
            return
        known[name] = (symbol, max(number, last) if age_us and last is not None else number)
        line = book_ticker_line(
            symbol, number, quote.bid_price, quote.bid_quantity, quote.ask_price,
            quote.ask_quantity, microseconds(quote.event_time) if quote.event_time else None,
            self._now_us() - age_us,
        )  # fmt: skip
        self.lanes.add(self._quotes, line)

    def on_liquidation(self, market: Market, frame: ForceOrder, age_us: int = 0) -> None:
        """Add a liquidation; the table removes duplicates of two processes.

        Args:
            age_us: its age, if it was held during a handover.
        """
        one = liquidation_of(market, frame, self._now_us() - age_us)
        if self._last_liquidations.get(one.symbol) == one.id:
            self.duplicates += 1
            return
        self._last_liquidations[one.symbol] = one.id
        self.lanes.add(self._liquidations, liquidation_line(one))

    def on_depth(self, market: Market, update: DepthUpdate) -> None:
        """Add a diff of an order book, unless its content is impossible.

        A diff that is left out shows by the ids of the next one.
        """
        symbol = symbol_of(market, update.symbol)
        receipt = self._books.add(symbol, update)
        if receipt is Receipt.REPEATED:
            self.duplicates += 1
            return
        if receipt is Receipt.REFUSED:
            self.refused_diffs += 1
            log.error(
                "depth_diff_refused",
                symbol=symbol,
                update_id=update.last_update_id,
                bids=update.bids[:MAX_LOGGED_LEVELS],
                asks=update.asks[:MAX_LOGGED_LEVELS],
            )
            return
        transaction = update.transaction_time
        line = depth_diff_line(
            symbol, update.last_update_id, update.first_update_id, update.final_update_id_before,
            microseconds(update.event_time),
            None if transaction is None else microseconds(transaction),
            self._now_us(), update.bids, update.asks,
        )  # fmt: skip
        self.lanes.add(self._diffs, line)

    def last_depth_id(self, market: Market, name: str) -> int | None:
        """Return the id of the last diff of an exchange's name; None before the first."""
        return self._books.last_update_id(symbol_of(market, name))

    # --- BookEvents

    def book_snapshot(self, symbol: str, snapshot: BookSnapshot, source: str, at_us: int) -> None:
        """Add a snapshot of a book."""
        self.lanes.add(self._snapshots, depth_snapshot_line(symbol, snapshot, source, at_us))

    def book_lost(self, symbol: str, from_us: int, to_us: int, reason: str) -> None:
        """Record that a book is unknown: diffs are missing, or a snapshot."""
        table = DEPTH_SNAPSHOTS if reason == NO_SNAPSHOT else DEPTH_DIFFS
        self._on_losses([Loss(table.name, symbol, reason, from_us, to_us)])

    def book_changed(self, symbol: str) -> None:
        """Nothing to store."""

    def _is_near_midnight(self, age_us: int) -> bool:
        now_us = self._now_us()
        return (now_us - age_us - NEAR_US) // DAY_US != (now_us + NEAR_US) // DAY_US

    def last_update_id(self, market: Market, name: str) -> int | None:
        """Return the update id of the last book ticker of an exchange's name; None before the
        first."""
        known = self._last_quotes[market].get(name)
        return None if known is None else known[1]

    def _know(
        self,
        known: dict[str, tuple[str, IdSequence]],
        dataset: str,
        market: Market,
        name: str,
    ) -> tuple[str, IdSequence]:
        symbol = symbol_of(market, name)
        found = known[name] = (symbol, self.sequence(dataset, symbol))
        return found

    def _leave(self, lane: Lane, lines: list[str]) -> None:
        """Handle rows evicted from memory: request them later if possible, otherwise record the
        loss."""
        table = lane.table
        if not lane.can_be_requested:
            counted: dict[tuple[str, str], list[int]] = {}
            tally(table.name, lines, counted)
            self._on_losses(losses_of(counted, BUFFER_FULL))
            return
        now_s = self._monotonic_s()
        runs: dict[str, MissingRange] = {}
        for line in lines:
            fields = line.split("\t")
            symbol, number = fields[0], int(fields[table.id_index])
            time_us = to_us(datetime.fromisoformat(fields[table.time_index]))
            run = runs.get(symbol)
            if run is not None and number == run.last_id + 1:
                run.last_id, run.to_us = number, time_us
                continue
            if run is not None:
                self.sequence(table.name, symbol).miss(run)
            runs[symbol] = MissingRange(number, number, time_us, time_us, now_s)
        for symbol, run in runs.items():
            self.sequence(table.name, symbol).miss(run)
