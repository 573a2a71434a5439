"""``/api/v1/symbols/{symbol}/order-book``: the order book at any moment, from raw capture."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from include.domain.timeframes import from_us
from include.store.trades.books import StoredBook, read_book
from serving.http import parameters
from serving.http.context import context_of
from serving.http.formats import DECIMAL, Format, numbers, plain_json, table
from serving.problems import unknown

router = APIRouter(tags=["order book"], dependencies=[Depends(numbers)])

DEFAULT_LEVELS = 20
MAX_LEVELS = 1_000
KNOWN_FOR_S = 3_600
"""Time for which caches may store a known book; diffs of the past do not change."""

COLUMNS: dict[str, Any] = {
    "side": pl.String,
    "level": pl.Int32,
    "price": DECIMAL,
    "quantity": DECIMAL,
    "is_known": pl.Boolean,
}

EXAMPLE = {
    "order_book": [
        {
            "side": "ask",
            "level": 1,
            "price": "61234.51",
            "quantity": "0.87",
            "is_known": True,
        },
        {
            "side": "bid",
            "level": 1,
            "price": "61234.50",
            "quantity": "1.25",
            "is_known": True,
        },
    ],
    "symbol": "BTCUSDT",
    "state": "known",
    "last_update_id": 50123456789,
    "event_time": "2026-11-21T16:59:59.914000Z",
    "detail": None,
}


@router.get(
    "/symbols/{symbol}/order-book",
    summary="Order book at a time, each side best first",
    responses={
        200: {
            "description": "`state` is `known`, or `latest` if no later change is stored yet. "
            "`is_known` of a level is false where levels before it may be missing, because the "
            "exchange's snapshot ended there. CSV, Arrow and Parquet have the levels alone.",
            "content": {
                Format.JSON: {"example": EXAMPLE},
                Format.CSV: {},
                Format.ARROW: {},
                Format.PARQUET: {},
            },
        },
    },
)
async def book(
    request: Request,
    symbol: str,
    at: Annotated[
        parameters.TimeUs | None,
        Query(alias="time", description="ISO 8601, or ms since 1970; now without it."),
    ] = None,
    levels: Annotated[
        int, Query(ge=1, le=MAX_LEVELS, description="Of each side.")
    ] = DEFAULT_LEVELS,
) -> Response:
    """From `market.depth_snapshots` and `market.depth_diffs`, which `CAPTURE=depth` stores: the
    book after the last change at or before the time. 404 where it is not known, with the reason.
    """
    context = context_of(request)
    parameters.check_symbols([symbol], await context.symbols())
    moment = from_us(context.now_us() if at is None else at)
    found = await context.history.call(
        lambda connection: read_book(connection, symbol, moment, levels=levels)
    )
    if not found.levels:
        raise unknown(f"book: {found.detail}{_REMEDY if found.state == 'none' else ''}")
    is_final = at is not None and found.state == "known"
    return table(
        request,
        "order_book",
        COLUMNS,
        found.levels,
        further={"symbol": symbol, **_state(found)},
        headers={"cache-control": f"public, max-age={KNOWN_FOR_S}" if is_final else "no-cache"},
    )


_REMEDY = "; CAPTURE=depth stores order books from then on"


def _state(found: StoredBook) -> dict[str, Any]:
    return {
        "state": found.state,
        "last_update_id": found.last_update_id,
        "event_time": plain_json(found.event_time),
        "detail": found.detail,
    }
