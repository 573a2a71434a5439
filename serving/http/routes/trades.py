"""``/api/v1/trades``: stored trades by id, such as those that a reader missed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from include.store.candles.merging import Connection
from include.store.candles.unbuilt_bars import listed_from_us
from include.store.trades.captured import RAW_TABLES
from include.store.trades.pages import StoredTrade, TradePage, read_trades
from serving.http import parameters
from serving.http.context import context_of
from serving.http.formats import DECIMAL, Format, numbers, table
from serving.problems import Problem, refused, unknown

router = APIRouter(tags=["trades"], dependencies=[Depends(numbers)])

DEFAULT_LIMIT = 500
MAX_LIMIT = 1_000
"""Encoded by the event loop, in a few ms."""
MAX_ID = 2**53 - 1
"""JavaScript represents no larger integer exactly."""
WHOLE_FOR_S = 3_600
"""Time for which caches may store a complete range; then they revalidate by ETag."""


class Kind(StrEnum):
    """Tables of raw capture."""

    AGG_TRADES = "agg_trades"
    TRADES = "trades"


COLUMNS: dict[str, Any] = {
    "symbol": pl.String,
    "id": pl.Int64,
    "price": DECIMAL,
    "quantity": DECIMAL,
    "time": pl.Datetime("us", "UTC"),
    "is_buyer_maker": pl.Boolean,
    "first_trade_id": pl.Int64,
    "last_trade_id": pl.Int64,
}

EXAMPLE = {
    "trades": [
        {
            "symbol": "BTCUSDT",
            "id": 3456789012,
            "price": "61234.50000000",
            "quantity": "0.00123000",
            "time": "2026-11-21T17:00:00.123Z",
            "is_buyer_maker": False,
            "first_trade_id": 5123456780,
            "last_trade_id": 5123456781,
        }
    ],
    "next_cursor": None,
    "kept": {"first_id": 3456000000, "last_id": 3456999999},
}


@router.get(
    "/trades",
    summary="Stored trades by id, oldest first",
    responses={
        200: {
            "description": "Decimals are text, exactly as the exchange has them. `kept` names the "
            "ends of what is kept of the symbol. In CSV, Arrow and Parquet the cursor is the "
            "header `x-next-cursor`.",
            "content": {
                Format.JSON: {"example": EXAMPLE},
                Format.CSV: {},
                Format.ARROW: {},
                Format.PARQUET: {},
            },
        },
    },
)
async def trades(
    request: Request,
    symbol: Annotated[parameters.OneSymbol, Query(description="One.", examples=["BTCUSDT"])],
    from_id: Annotated[int, Query(ge=0, le=MAX_ID, description="First trade id.")],
    to_id: Annotated[
        int | None,
        Query(ge=0, le=MAX_ID, description="Last trade id; default: no limit."),
    ] = None,
    kind: Annotated[
        Kind,
        Query(
            description="Kind of the ids: of aggTrades, or of single trades, as in the channel "
            "`trades` of a streamer that aggregates those."
        ),
    ] = Kind.AGG_TRADES,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: parameters.Cursor = None,
) -> Response:
    """From raw capture: `market.agg_trades` or `market.trades`, which store what the streamer
    captures
    and what was loaded from dump files. Only of the present instrument, if a ticker was reused.
    Trades that are not stored are left out; ids reveal them (single trades of USD-M skip by
    design).
    """
    context = context_of(request)
    parameters.check_symbols([symbol], await context.symbols())
    if to_id is not None and to_id < from_id:
        raise refused(f"to_id: {to_id} lies before from_id, {from_id}")
    begin_id = from_id if cursor is None else _resumed(cursor, from_id)

    def read(connection: Connection) -> TradePage | None:
        return read_trades(
            connection, RAW_TABLES[kind], symbol, begin_id, to_id,
            limit=limit, since_us=listed_from_us(connection, symbol),
        )  # fmt: skip

    page = await context.history.call(read)
    if page is None:
        raise unknown(
            f"trades: none of {symbol} are kept in market.{kind}: CAPTURE={kind} keeps them from "
            f"then on, `candelabra backfill --kind {kind} --keep-raw` loads those of before"
        )
    if not page.trades and to_id is not None:
        raise _not_kept(symbol, kind, from_id, to_id, page)
    is_whole = to_id is not None and page.further_id is None and (
        [one.id for one in page.trades] == list(range(begin_id, to_id + 1))
    )  # fmt: skip
    return table(
        request,
        "trades",
        COLUMNS,
        [_row(symbol, one) for one in page.trades],
        further={
            "next_cursor": None
            if page.further_id is None
            else parameters.cursor_of(page.further_id),
            "kept": {"first_id": page.first_id, "last_id": page.last_id},
        },
        headers={"cache-control": f"public, max-age={WHOLE_FOR_S}" if is_whole else "no-cache"},
    )


def _resumed(cursor: str, from_id: int) -> int:
    (begin_id,) = parameters.parse_cursor(cursor, 1)
    if begin_id < from_id:
        raise refused("cursor: it belongs to a request for other ids")
    return begin_id


def _not_kept(name: str, kind: Kind, from_id: int, to_id: int, page: TradePage) -> Problem:
    return unknown(
        f"trades: none of {from_id} to {to_id} of {name} are kept; market.{kind} has "
        f"{page.first_id} ({page.first_day}) to {page.last_id} ({page.last_day})"
    )


def _row(symbol: str, one: StoredTrade) -> tuple[Any, ...]:
    return (
        symbol, one.id, one.price, one.quantity, one.time, one.is_buyer_maker,
        one.first_trade_id, one.last_trade_id,
    )  # fmt: skip
