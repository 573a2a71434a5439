"""``/api/v1/liquidations``: captured liquidations of futures by time."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from include.domain.timeframes import DAY_US, HOUR_US, from_us
from include.store.candles.merging import Connection
from include.store.candles.unbuilt_bars import listed_from_us
from include.store.trades.liquidation_pages import LiquidationPage, read_liquidations
from include.store.trades.liquidations import HASH_BITS, Liquidation
from serving.http import parameters
from serving.http.context import context_of
from serving.http.formats import DECIMAL, Format, numbers, table

router = APIRouter(tags=["trades"], dependencies=[Depends(numbers)])

DEFAULT_LIMIT = 500
MAX_LIMIT = 1_000
"""Encoded by the event loop, in a few ms."""
PAST_FOR_S = 300
"""Time for which caches may store a range that ended an hour ago; then they revalidate by ETag."""

_PART = 1 << HASH_BITS
"""A cursor holds times: an id is split into its order time and the rest."""
_TIME = pl.Datetime("us", "UTC")
COLUMNS: dict[str, Any] = {
    "symbol": pl.String,
    "id": pl.String,
    "order_time": _TIME,
    "event_time": _TIME,
    "received_at": _TIME,
    "side": pl.String,
    "order_type": pl.String,
    "time_in_force": pl.String,
    "price": DECIMAL,
    "average_price": DECIMAL,
    "quantity": DECIMAL,
    "last_filled_quantity": DECIMAL,
    "accumulated_quantity": DECIMAL,
    "order_status": pl.String,
}

EXAMPLE = {
    "liquidations": [
        {
            "symbol": "BTCUSDT.P",
            "id": "3755580004513517568",
            "order_time": "2026-11-21T17:00:00.121Z",
            "event_time": "2026-11-21T17:00:00.126Z",
            "received_at": "2026-11-21T17:00:00.170345Z",
            "side": "SELL",
            "order_type": "LIMIT",
            "time_in_force": "IOC",
            "price": "60980.10",
            "average_price": "61234.50",
            "quantity": "0.014",
            "last_filled_quantity": "0.010",
            "accumulated_quantity": "0.014",
            "order_status": "FILLED",
        }
    ],
    "is_sample": True,
    "next_cursor": None,
}


@router.get(
    "/liquidations",
    summary="Captured liquidations by time, oldest first",
    responses={
        200: {
            "description": "`is_sample` is always true: the exchange sends at most one liquidation "
            "a second and symbol, so sums and counts are no totals. In CSV, Arrow and Parquet the "
            "cursor is the header `x-next-cursor`.",
            "content": {
                Format.JSON: {"example": EXAMPLE},
                Format.CSV: {},
                Format.ARROW: {},
                Format.PARQUET: {},
            },
        },
    },
)
async def liquidations(
    request: Request,
    symbol: Annotated[parameters.OneSymbol, Query(description="One.", examples=["BTCUSDT.P"])],
    start: parameters.From = None,
    end: parameters.To = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: parameters.Cursor = None,
) -> Response:
    """From `market.liquidations`, which raw capture fills (`CAPTURE=liquidations`); the day before
    `to` without `from`. Only of the present instrument, if a ticker was reused. Spot has none.
    """
    context = context_of(request)
    parameters.check_symbols([symbol], await context.symbols())
    parameters.check_range(start, end)
    now_us = context.now_us()
    end_us = now_us + HOUR_US if end is None else end
    start_us = (now_us if end is None else end) - DAY_US if start is None else start
    from_id = 0 if cursor is None else _resumed(cursor)

    def read(connection: Connection) -> LiquidationPage:
        since_us = max(start_us, listed_from_us(connection, symbol))
        return read_liquidations(connection, symbol, since_us, end_us, from_id=from_id, limit=limit)

    page = await context.history.call(read)
    is_past = end is not None and end <= now_us - HOUR_US
    return table(
        request,
        "liquidations",
        COLUMNS,
        [_row(one) for one in page.liquidations],
        further={
            "is_sample": True,
            "next_cursor": None
            if page.further_id is None
            else parameters.cursor_of(*divmod(page.further_id, _PART)),
        },
        headers={"cache-control": f"public, max-age={PAST_FOR_S}" if is_past else "no-cache"},
    )


def _resumed(cursor: str) -> int:
    order_ms, rest = parameters.parse_cursor(cursor, 2)
    return order_ms * _PART + rest


def _row(one: Liquidation) -> tuple[Any, ...]:
    return (
        one.symbol, str(one.id), from_us(one.order_us), from_us(one.event_us),
        from_us(one.received_us), one.side, one.order_type, one.time_in_force, one.price,
        one.average_price, one.quantity, one.last_filled_quantity, one.accumulated_quantity,
        one.order_status,
    )  # fmt: skip
