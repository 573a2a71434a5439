"""From frames to rows: each trade once by its id, holes noted, void trades left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from include.binance.frames import AggTrade, Trade, microseconds
from include.binance.quotes import BookTicker
from include.domain.exact import ZERO
from include.domain.instruments import Market, symbol_of
from include.store.raw import AGG_TRADES, BOOK_TICKERS, TRADES
from streamer.capture.ids import Hole, IdSequence
from streamer.capture.lanes import Lane, Lanes
from streamer.capture.losses import Loss
from streamer.capture.spool import losses_of, tally

log = structlog.get_logger(__name__)

SETTLE_S = 2.0
"""Ids that are missing may still come by themselves for so long."""
BUFFER_FULL = "the buffer was full while neither the database nor the disk took rows"

DATASETS = (AGG_TRADES.name, TRADES.name, BOOK_TICKERS.name)


class Intake:
    """Takes the frames of all captured streams. What it does for a frame is a few dict look-ups.

    Args:
        datasets: the tables to fill.
        most_rows: rows that may wait in memory.
        on_losses: given rows that had to be let go for good.
        now_us: wall clock, for the time of receipt.
        monotonic_s: for waiting.
    """

    def __init__(
        self,
        datasets: Iterable[str],
        *,
        most_rows: int,
        on_losses: Callable[[list[Loss]], None],
        settle_s: float = SETTLE_S,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.datasets = frozenset(datasets)
        self.duplicates = 0
        self.void_trades = 0
        self.sequences: dict[tuple[str, str], IdSequence] = {}
        """By dataset and symbol, of those that can be asked for by id."""
        self._agg_trades = Lane(AGG_TRADES, can_be_asked=True)
        self._spot_trades = Lane(TRADES, can_be_asked=True)
        self._um_trades = Lane(TRADES, can_be_asked=False)
        self._quotes = Lane(BOOK_TICKERS, can_be_asked=False)
        self.lanes = Lanes(
            [self._agg_trades, self._spot_trades, self._um_trades, self._quotes],
            most_rows=most_rows,
            on_leave=self._leave,
        )
        self._on_losses = on_losses
        self._settle_s = settle_s
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._last_quote: dict[str, int] = {}

    def takes(self, dataset: str) -> bool:
        """Whether this dataset is captured."""
        return dataset in self.datasets

    def sequence(self, dataset: str, symbol: str) -> IdSequence:
        """The ids of a symbol."""
        key = (dataset, symbol)
        found = self.sequences.get(key)
        if found is None:
            found = self.sequences[key] = IdSequence(settle_s=self._settle_s)
        return found

    def on_trade(self, market: Market, trade: AggTrade | Trade) -> None:
        """Take a trade, if its kind is captured."""
        is_aggregate = type(trade) is AggTrade
        dataset = AGG_TRADES.name if is_aggregate else TRADES.name
        if dataset not in self.datasets:
            return
        if trade.price <= ZERO or trade.quantity <= ZERO or trade.first_trade_id < 0:
            self.void_trades += 1
            return
        symbol = symbol_of(market, trade.symbol)
        time_us = microseconds(trade.trade_time)
        if is_aggregate or market is Market.SPOT:
            sequence = self.sequences.get((dataset, symbol)) or self.sequence(dataset, symbol)
            if not sequence.take(trade.id, time_us, self._monotonic_s()):
                self.duplicates += 1
                return
        if is_aggregate:
            self.lanes.add(
                self._agg_trades,
                (
                    symbol, trade.id, trade.price, trade.quantity, trade.first_trade_id,
                    trade.last_trade_id, time_us, trade.is_buyer_maker,
                ),
            )  # fmt: skip
        else:
            lane = self._um_trades if market is Market.UM else self._spot_trades
            self.lanes.add(
                lane,
                (
                    symbol, trade.id, trade.price, trade.quantity, None, time_us,
                    trade.is_buyer_maker,
                ),
            )  # fmt: skip

    def on_quote(self, market: Market, quote: BookTicker) -> None:
        """Take a change of the best prices; the table sorts out what comes from two connections."""
        symbol = symbol_of(market, quote.symbol)
        if self._last_quote.get(symbol) == quote.update_id:
            self.duplicates += 1
            return
        self._last_quote[symbol] = quote.update_id
        event_us = microseconds(quote.event_time) if quote.event_time else None
        self.lanes.add(
            self._quotes,
            (
                symbol, quote.update_id, quote.bid_price, quote.bid_quantity, quote.ask_price,
                quote.ask_quantity, event_us, self._now_us(),
            ),
        )  # fmt: skip

    def _leave(self, lane: Lane, rows: list[tuple[Any, ...]]) -> None:
        """Rows that memory has no room for: to be asked for later, or lost."""
        if not lane.can_be_asked:
            counted: dict[tuple[str, str], list[int]] = {}
            tally(lane.table.name, [lane.table.line(row) for row in rows], counted)
            self._on_losses(losses_of(counted, BUFFER_FULL))
            return
        now_s = self._monotonic_s()
        runs: dict[str, Hole] = {}
        for row in rows:
            symbol, number, time_us = row[0], row[1], row[-2]
            run = runs.get(symbol)
            if run is not None and number == run.last_id + 1:
                run.last_id, run.to_us = number, time_us
                continue
            if run is not None:
                self.sequence(lane.table.name, symbol).miss(run)
            runs[symbol] = Hole(number, number, time_us, time_us, now_s)
        for symbol, run in runs.items():
            self.sequence(lane.table.name, symbol).miss(run)
