"""``/api/v1/candles``: bars of any timeframe, of one symbol or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from include.domain.timeframes import MINUTE_US, TIMEFRAMES, Timeframe, from_us
from include.store.candles.bar_texts import read_bar_texts, read_minutes_version
from include.store.candles.bars import StoredBar, read_bars
from include.store.candles.merging import Connection
from serving.bars.subscription import BarUpdate
from serving.http import parameters
from serving.http.context import context_of
from serving.http.formats import DECIMAL, Format, accepted, answered, joined, numbers, table
from serving.http.response_cache import CachedResponse, ResponseCache
from serving.problems import refused
from serving.protobuf.bars import EARLIEST_US

router = APIRouter(tags=["candles"], dependencies=[Depends(numbers)])

DEFAULT_LIMIT = 500
MAX_LIMIT = 10_000
FINAL_AFTER_US = 10 * MINUTE_US
"""Older bars change only by repairs."""
CLOSED_FOR_S = 60
"""Time for which caches may store a closed range; then they revalidate by ETag."""

COLUMNS: dict[str, Any] = {
    "symbol": pl.String,
    "timeframe": pl.String,
    "open_time": pl.Datetime("us", "UTC"),
    "open": DECIMAL,
    "high": DECIMAL,
    "low": DECIMAL,
    "close": DECIMAL,
    "volume": DECIMAL,
    "quote_volume": DECIMAL,
    "trade_count": pl.Int64,
    "taker_buy_volume": DECIMAL,
    "taker_buy_quote_volume": DECIMAL,
    "first_trade_id": pl.Int64,
    "last_trade_id": pl.Int64,
    "minute_count": pl.Int32,
    "is_closed": pl.Boolean,
    "status": pl.String,
    "source": pl.String,
}

EXAMPLE = {
    "candles": [
        {
            "symbol": "BTCUSDT",
            "timeframe": "1h",
            "open_time": "2026-11-21T17:00:00Z",
            "open": "61234.50",
            "high": "61300.00",
            "low": "61200.01",
            "close": "61250.00",
            "volume": "123.45600000",
            "quote_volume": "7561234.1234560000",
            "trade_count": 4321,
            "taker_buy_volume": "60.00000000",
            "taker_buy_quote_volume": "3675000.0000000000",
            "first_trade_id": 1000,
            "last_trade_id": 5320,
            "minute_count": 60,
            "is_closed": True,
            "status": None,
            "source": None,
        }
    ],
    "next_cursor": None,
}

SymbolsQuery = Annotated[
    parameters.Symbols,
    Query(description="One or several, by comma or repeated.", examples=["BTCUSDT"]),
]
TimeframeQuery = Annotated[
    parameters.TimeframeName, Query(description="1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M")
]


@router.get(
    "/candles",
    summary="Bars, oldest first",
    responses={
        200: {
            "description": "Decimals are text, exactly as the exchange has them. In CSV, Arrow and "
            "Parquet the cursor is the header `x-next-cursor`.",
            "content": {
                Format.JSON: {"example": EXAMPLE},
                Format.CSV: {},
                Format.ARROW: {},
                Format.PARQUET: {},
            },
        },
        304: {"description": "Not modified: `If-None-Match` equals the ETag."},
    },
)
async def candles(
    request: Request,
    symbol: SymbolsQuery,
    timeframe: TimeframeQuery = "1m",
    start: Annotated[
        parameters.TimeUs | None,
        Query(
            alias="from",
            description="Bars that open at this time or later (ISO 8601, or ms since 1970). "
            "Without it: the newest ones.",
        ),
    ] = None,
    end: Annotated[
        parameters.TimeUs | None, Query(alias="to", description="Bars that open before this time.")
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="Maximum number of bars, over all symbols.")
    ] = DEFAULT_LIMIT,
    cursor: parameters.Cursor = None,
) -> Response:
    """Stored and open bars, as in the views `marts.candles_*_live`.

    Without `from`, the newest `limit` bars of each symbol; `limit=1` is served from memory if the
    symbol is streamed. With `from`, pages from there on.
    """
    context = context_of(request)
    frame = TIMEFRAMES[timeframe]
    parameters.check_range(start, end)
    parameters.check_symbols(symbol, await context.symbols())
    first, resumed_us = (0, None) if cursor is None else parameters.parse_cursor(cursor, 2)
    if not 0 <= first < len(symbol):
        raise refused("cursor: it belongs to a request for other symbols")
    if limit == 1 and start is None and end is None and cursor is None:
        return await _newest(request, symbol, frame, further={"next_cursor": None})

    is_over = end is not None and end <= context.now_us() - FINAL_AFTER_US
    headers = {"cache-control": f"public, max-age={CLOSED_FOR_S}" if is_over else "no-cache"}
    page_request = _PageRequest(symbol, frame, start, end, limit, first, resumed_us)
    if accepted(request.headers.get("accept", "")) is Format.JSON:
        key = page_request.key if is_over else None
        made = None if key is None else context.response_cache.at_hand(key)
        if made is None:
            made = await context.history.call(
                partial(_as_json, page_request=page_request, cache=context.response_cache, key=key)
            )
        if made is not None:
            return answered(request, made, headers=headers)
    bars, further = await context.history.call(partial(_as_rows, page_request=page_request))
    return await context.made(
        lambda: table(
            request,
            "candles",
            COLUMNS,
            [_row(bar, frame.name) for bar in bars],
            further={"next_cursor": further},
            headers=headers,
        ),
        rows=len(bars),
    )


@router.get("/candles/latest", summary="The newest bar of each symbol")
async def latest(
    request: Request,
    symbol: SymbolsQuery,
    timeframe: TimeframeQuery = "1m",
) -> Response:
    """From memory if the symbol is streamed: the first request of a timeframe reads the symbol's
    past,
    further ones within a minute read nothing. Symbols without bars are left out.
    """
    context = context_of(request)
    parameters.check_symbols(symbol, await context.symbols())
    return await _newest(request, symbol, TIMEFRAMES[timeframe])


# --- inside


async def _newest(
    request: Request,
    names: list[str],
    frame: Timeframe,
    *,
    further: dict[str, Any] | None = None,
) -> Response:
    """The newest bar of each symbol: from memory if possible, else from the tables."""
    context = context_of(request)
    live = context.current(names)
    found: dict[str, StoredBar | BarUpdate] = dict(await context.latest.of(live, frame))
    left = [name for name in names if name not in found]
    if left:

        def read(connection: Any) -> list[StoredBar]:
            return [
                bar
                for name in left
                for bar in read_bars(
                    connection, name, frame, EARLIEST_US, None, limit=1, newest=True
                )
            ]

        found |= {bar.candle.symbol: bar for bar in await context.history.call(read)}
    return table(
        request,
        "candles",
        COLUMNS,
        [_row(found[name], frame.name) for name in names if name in found],
        further=further or {},
        headers={"cache-control": "no-cache"},
    )


_Key = tuple[str, int, int, int]
"""Symbol, half-open range of open times (µs), and limit."""


@dataclass(frozen=True, slots=True)
class _PageRequest:
    """A requested page; ``first`` and ``resumed_us`` say where the previous one ended."""

    names: list[str]
    timeframe: Timeframe
    start_us: int | None
    end_us: int | None
    limit: int
    first: int
    resumed_us: int | None

    @property
    def key(self) -> _Key | None:
        """The cache key of minutes of one symbol; other bars have no version to check."""
        start_us = self.start_us if self.resumed_us is None else self.resumed_us
        if self.timeframe.parent is not None or len(self.names) != 1:
            return None
        if start_us is None or self.end_us is None:
            return None
        return self.names[0], start_us, self.end_us, self.limit


Part = TypeVar("Part")
_Read = Callable[[str, int, int, bool], tuple[Part, int, int | None] | None]
"""Reads at most this many bars of a symbol from a time on, or the newest; returns them, their
count, and the open time of the first one beyond the limit.
"""


def _as_json(
    connection: Connection, page_request: _PageRequest, cache: ResponseCache, key: _Key | None
) -> CachedResponse | None:
    """Bars as JSON, from the cache if they are unchanged; None if they must be rolled up first."""
    if key is None:
        return _build_json(connection, page_request)
    name, start_us, end_us, limit = key
    return cache.answer(
        key,
        lambda: read_minutes_version(connection, name, start_us, end_us, limit=limit),
        lambda: _build_json(connection, page_request),
    )


def _build_json(connection: Connection, page_request: _PageRequest) -> CachedResponse | None:
    def read(
        name: str, start_us: int, limit: int, newest: bool
    ) -> tuple[str, int, int | None] | None:
        found = read_bar_texts(
            connection,
            name,
            page_request.timeframe,
            start_us,
            page_request.end_us,
            limit=limit,
            newest=newest,
        )
        return None if found is None else (found.text, found.count, found.next_open_us)

    page = _page(read, page_request)
    return None if page is None else joined("candles", page[0], {"next_cursor": page[1]})


def _as_rows(
    connection: Connection, page_request: _PageRequest
) -> tuple[list[StoredBar], str | None]:
    def read(
        name: str, start_us: int, limit: int, newest: bool
    ) -> tuple[list[StoredBar], int, int | None]:
        bars = read_bars(
            connection, name, page_request.timeframe, start_us, page_request.end_us,
            limit=limit if newest else limit + 1, newest=newest,
        )  # fmt: skip
        beyond = bars[limit].candle.open_time_us if len(bars) > limit else None
        return bars[:limit], len(bars[:limit]), beyond

    parts, further = _page(read, page_request) or ([], None)
    return [bar for part in parts for bar in part], further


def _page(read: _Read[Part], page_request: _PageRequest) -> tuple[list[Part], str | None] | None:
    """Bars of one symbol after another up to the limit, and the cursor."""
    parts: list[Part] = []
    is_newest = page_request.start_us is None and page_request.resumed_us is None
    room = page_request.limit
    for place in range(page_request.first, len(page_request.names)):
        is_resumed = place == page_request.first and page_request.resumed_us is not None
        start_us = page_request.resumed_us if is_resumed else page_request.start_us
        found = read(
            page_request.names[place],
            EARLIEST_US if start_us is None else start_us,
            room,
            is_newest,
        )
        if found is None:
            return None
        part, count, next_open_us = found
        parts.append(part)
        if next_open_us is not None:
            return parts, parameters.cursor_of(place, next_open_us)
        room = page_request.limit if is_newest else room - count
    return parts, None


def _row(bar: StoredBar | BarUpdate, timeframe: str) -> tuple[Any, ...]:
    candle = bar.candle
    values: list[Any] = list(candle.values)
    if not bar.has_quotes:
        values[5] = values[8] = None
    return (
        candle.symbol,
        timeframe,
        from_us(candle.open_time_us),
        *values,
        candle.first_trade_id,
        candle.last_trade_id,
        bar.minute_count,
        bar.is_closed,
        None if bar.status is None else bar.status.value,
        None if bar.source is None else bar.source.value,
    )
