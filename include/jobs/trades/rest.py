"""Fetch the trades of a day by REST, in place of a missing or unusable dump file.

Rows are requested by id, a page at a time. The last row before the day and the first row after it
are requested too: they prove that the day is complete. Rows are parsed like rows of a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from include.binance.files.text_blocks import TextBlock
from include.binance.files.trade_files import (
    TradeBlock,
    TradeReader,
    agg_trades_layout,
    trades_layout,
)
from include.binance.rest.client import MAX_TRADES, BinanceRest
from include.binance.streams.messages import microseconds
from include.config import Settings
from include.domain.instruments import Market, exchange_symbol_of, market_of
from include.errors import PermanentError
from include.jobs.trades.by_id import PUBLIC_DATA_HOST

AGG_TRADES = "agg_trades"

BLOCK_ROWS = 20_000
"""Rows aggregated at a time."""

FUTURES_SERVED_US = 47 * 3_600_000_000
"""The exchange serves aggTrades of futures of 48 hours; one hour is reserved for the requests."""

FINAL_AFTER_US = 60_000_000
"""Time after a day's end until the exchange serves all its trades."""


class _Row(NamedTuple):
    """A row of REST, with its line in the format of a file."""

    number: int
    time_us: int
    is_void: bool
    line: str


def served_kind(settings: Settings, symbol: str, kind: str, *, keep_raw: bool) -> str:
    """Return the kind of trades to fetch by REST: single trades, otherwise aggTrades.

    Minutes can be aggregated from aggTrades too, but single trades cannot be recovered from them.

    Raises:
        PermanentError: single trades are to be stored, and this exchange does not serve them.
    """
    if kind == AGG_TRADES:
        return kind
    is_futures = market_of(symbol).is_futures
    if not is_futures and urlsplit(settings.binance_rest_url).hostname != PUBLIC_DATA_HOST:
        return kind
    if not keep_raw:
        return AGG_TRADES
    what = "futures" if is_futures else f"{PUBLIC_DATA_HOST}, which has no historicalTrades"
    raise PermanentError(
        f"{symbol}: single trades, whose rows are to be stored, are not served by {what}"
    )


@dataclass(slots=True)
class RestTrades:
    """The rows of a period; they can be read once.

    Attributes:
        window: the period, half-open (µs).
        reader: its state is final once ``blocks`` is exhausted.
        answered_us: the exchange's time before the first page.
        pages: requests so far.
    """

    rest: BinanceRest
    symbol: str
    kind: str
    window: tuple[int, int]
    reader: TradeReader
    answered_us: int
    pages: int = 1
    first_page: list[_Row] = field(default_factory=list)

    @classmethod
    def find(
        cls, rest: BinanceRest, *, symbol: str, kind: str, window: tuple[int, int], keep_rows: bool
    ) -> RestTrades:
        """Find the first row of a period.

        Args:
            kind: from ``served_kind``.
            keep_rows: return the rows as well.

        Raises:
            PermanentError: the exchange does not (or no longer) serve them, or the period is not
                over.
            TransientError, RateLimitedError: as ``BinanceRest``.
        """
        answered_us = rest.server_time_us()
        if window[1] + FINAL_AFTER_US > answered_us:
            raise PermanentError(
                f"{symbol}: the day has not ended; its trades are served afterwards"
            )
        is_aggregate = kind == AGG_TRADES
        found = rest.agg_trades(exchange_symbol_of(symbol), start_us=window[0])
        first = next((row for row in found if is_aggregate or not row.is_void), None)
        page: list[_Row] = []
        after_id = None
        if first is not None and microseconds(first.trade_time) < window[1]:
            first_id = first.id if is_aggregate else first.first_trade_id
            page = _ask(rest, symbol, kind, max(0, first_id - 1))
            before = [row.number for row in page if row.time_us < window[0]]
            # Ids begin at 0, so row 0 has no predecessor.
            after_id = max(before, default=-1 if page and page[0].number == 0 else None)
        layout = agg_trades_layout if is_aggregate else trades_layout
        reader = TradeReader(
            symbol, layout(symbol), after_id=after_id, window=window, keep_rows=keep_rows
        )
        return cls(rest, symbol, kind, window, reader, answered_us, 1 + bool(page), page)

    def blocks(self) -> Iterator[TradeBlock]:
        """Yield the rows, block by block.

        Raises:
            PermanentError, TransientError, RateLimitedError: as ``BinanceRest``.
        """
        begin_us, end_us = self.window
        rows: list[_Row] = []
        first_line, before_id = 1, None
        for page in self._pages():
            for row in page:
                if row.time_us >= end_us:
                    before_id = row.number if before_id is None else before_id
                elif row.time_us >= begin_us:
                    rows.append(row)
            if len(rows) > BLOCK_ROWS:
                yield self._read(rows[:-1], first_line)
                first_line += len(rows) - 1
                rows = rows[-1:]  # one row is held back so that the last block is never empty
        if rows:
            yield self._read(rows, first_line, is_last=True, before_id=before_id)

    def _read(
        self,
        rows: list[_Row],
        first_line: int,
        *,
        is_last: bool = False,
        before_id: int | None = None,
    ) -> TradeBlock:
        content = "".join(row.line for row in rows).encode()
        return self.reader.read(
            TextBlock(first_line, content), is_last=is_last, before_id=before_id
        )

    def _pages(self) -> Iterator[list[_Row]]:
        """Yield pages up to the first row after the period, or up to the last row."""
        page = self.first_page
        while page:  # also after a short page: it may lack its last rows
            yield _without_repeated_ids(page)
            first, last = page[0], page[-1]
            if last.time_us >= self.window[1]:
                return
            # A void row may have the id of a real trade, which begins the next page.
            is_held = last.is_void and last.number > first.number
            next_id = last.number + (not is_held)
            page = _ask(self.rest, self.symbol, self.kind, next_id)
            self.pages += 1


def _without_repeated_ids(rows: list[_Row]) -> list[_Row]:
    """Drop void rows whose id a real trade has, or may have on the next page."""
    true_ids = {row.number for row in rows if not row.is_void}
    unique = [row for row in rows if not row.is_void or row.number not in true_ids]
    if len(unique) > 1 and unique[-1].is_void:
        unique.pop()
    return unique


def _ask(rest: BinanceRest, symbol: str, kind: str, from_id: int) -> list[_Row]:
    """Request a page of rows from an id on."""
    name = exchange_symbol_of(symbol)
    # Spot's files have a last column, which the reader ignores.
    end = ",True\n" if rest.market is Market.SPOT else "\n"
    rows: list[_Row]
    if kind == AGG_TRADES:
        rows = [
            _Row(
                row.id,
                time_us := microseconds(row.trade_time),
                row.is_void,
                f"{row.id},{row.price:f},{row.quantity:f},{row.first_trade_id},"
                f"{row.last_trade_id},{time_us},{row.is_buyer_maker}{end}",
            )
            for row in rest.agg_trades(name, from_id=from_id, limit=MAX_TRADES)
        ]
    else:
        rows = [
            _Row(
                row.id,
                time_us := microseconds(row.trade_time),
                False,  # without quantity it is not void: its minute becomes incomplete
                f"{row.id},{row.price:f},{row.quantity:f},{row.quote_quantity:f},{time_us},"
                f"{row.is_buyer_maker}{end}",
            )
            for row in rest.trades(name, from_id=from_id, limit=MAX_TRADES)
        ]
    return [row for row in rows if row.number >= from_id]
