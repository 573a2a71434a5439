"""Analytics of a symbol from the marts: levels, indicators, profile, footprint, coverage, gaps."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from psycopg import errors
from starlette.responses import Response

from include.domain.timeframes import DAY_US, HOUR_US, TIMEFRAMES, Timeframe, from_us
from include.errors import PermanentError
from include.store.trades.analytics import (
    COVERAGE,
    FOOTPRINT,
    GAPS,
    INDICATORS,
    LEVELS,
    PROFILE_SESSION,
    VOLUME_PROFILE,
    Rows,
    read_rows,
)
from serving.http import parameters
from serving.http.context import Context, context_of
from serving.http.formats import DECIMAL, numbers, plain_json, table
from serving.problems import Problem, refused, unknown
from serving.protobuf.bars import EARLIEST_US

router = APIRouter(prefix="/symbols/{symbol}", tags=["analytics"], dependencies=[Depends(numbers)])

DEFAULT_BARS = 200
MAX_BARS = 5_000
DEFAULT_DAYS = 30
MAX_DAYS = 3_660
MONTH_US = 31 * DAY_US
MAX_ROWS = 50_000
UNBUILT = "the marts are not built yet: the DAG build_marts builds them"
MAX_FOOTPRINT_US = 2 * DAY_US
TYPES: dict[str, Any] = {
    "bool": pl.Boolean,
    "int2": pl.Int16,
    "int4": pl.Int32,
    "int8": pl.Int64,
    "float8": pl.Float64,
    "numeric": DECIMAL,
    "timestamptz": pl.Datetime("us", "UTC"),
    "date": pl.Date,
}
"""Column types in Arrow and Parquet; all others are text."""


@router.get("/levels", summary="All-time high and low, and retracements")
async def levels(request: Request, symbol: str) -> Response:
    """Of the present listing: the extremes with their times, the position of the last price between
    them in percent, and the Fibonacci retracements.
    """
    context, name = await _checked(request, symbol)
    found = await _read(context, LEVELS, {"symbol": name})
    if not found.rows:
        raise unknown(f"levels: {name} has no built bar yet")
    return await _respond(request, "levels", found)


@router.get("/indicators", summary="Indicators, oldest bar first")
async def indicators(
    request: Request,
    symbol: str,
    timeframe: Annotated[parameters.TimeframeName, Query(description="As of candles.")] = "1h",
    start: parameters.From = None,
    end: parameters.To = None,
    limit: Annotated[int, Query(ge=1, le=MAX_BARS)] = DEFAULT_BARS,
) -> Response:
    """Moving averages, RSI, MACD, ATR, Bollinger bands, VWAP, OBV, returns and volatility, in
    binary
    floats. The newest `limit` bars of the range; earlier bars warm them up.
    """
    context, name = await _checked(request, symbol)
    frame = TIMEFRAMES[timeframe]
    span = _span(context, start, end, default_us=limit * _width_us(frame))
    arguments = {"symbol": name, "timeframe": frame.name, "limit": limit, **_times(span)}
    return await _respond(
        request, "indicators", await _read(context, INDICATORS, arguments), turned=True
    )


@router.get("/coverage", summary="Coverage of each day, oldest first")
async def coverage(
    request: Request,
    symbol: str,
    start: parameters.From = None,
    end: parameters.To = None,
    limit: Annotated[int, Query(ge=1, le=MAX_DAYS)] = MAX_DAYS,
) -> Response:
    """Minutes of each UTC day that are expected, present, verified, silent, revised or missing, and
    the
    verdict of the comparison with the exchange's files. The last 30 days without a range.
    """
    context, name = await _checked(request, symbol)
    span = _span(context, start, end, default_us=DEFAULT_DAYS * DAY_US)
    arguments = {"symbol": name, "limit": limit, **_times(span)}
    return await _respond(
        request, "coverage", await _read(context, COVERAGE, arguments), turned=True
    )


@router.get("/gaps", summary="Gaps, oldest first")
async def gaps(
    request: Request,
    symbol: str,
    start: parameters.From = None,
    end: parameters.To = None,
    limit: Annotated[int, Query(ge=1, le=MAX_BARS)] = DEFAULT_BARS,
) -> Response:
    """What was missed, why, and when it was repaired. The last 30 days without a range."""
    context, name = await _checked(request, symbol)
    span = _span(context, start, end, default_us=DEFAULT_DAYS * DAY_US)
    arguments = {"symbol": name, "limit": limit, **_times(span)}
    return await _respond(request, "gaps", await _read(context, GAPS, arguments), turned=True)


@router.get("/volume-profile", summary="Volume by price of one session")
async def volume_profile(
    request: Request,
    symbol: str,
    session: Annotated[
        parameters.Day | None,
        Query(description="UTC day such as 2026-11-21; default: the newest."),
    ] = None,
) -> Response:
    """From stored trades by the maker's side, never estimated from candles. In JSON `session` has
    the
    point of control, the value area and whether every trade is stored; null if none is.
    """
    context, name = await _checked(request, symbol)
    arguments = {"symbol": name, "session": session}
    about = await _read(context, PROFILE_SESSION, arguments)
    found = await _read(context, VOLUME_PROFILE, arguments)
    columns = _columns(about)
    summary = [dict(zip(columns, map(plain_json, row), strict=True)) for row in about.rows]
    further = {"session": summary[0] if summary else None}
    return await _respond(request, "volume_profile", found, further=further)


@router.get("/footprint", summary="Volume by price and side of each bar")
async def footprint(
    request: Request,
    symbol: str,
    timeframe: Annotated[parameters.TimeframeName, Query(description="As of candles.")] = "5m",
    start: parameters.From = None,
    end: parameters.To = None,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = MAX_ROWS,
) -> Response:
    """What takers bought and sold in each price bucket of each bar, with imbalances, from stored
    trades.
    A bar without stored trades is one row with `kept` `none`. The last hour without a range; two
    days
    at most.
    """
    context, name = await _checked(request, symbol)
    frame = TIMEFRAMES[timeframe]
    span = _span(context, start, end, default_us=HOUR_US)
    if span[1] - span[0] > max(MAX_FOOTPRINT_US, _width_us(frame)):
        raise refused("from and to: a footprint covers two days at most; request one day at a time")
    arguments = {"symbol": name, "timeframe": frame.name, "limit": limit, **_times(span)}
    return await _respond(request, "footprint", await _read(context, FOOTPRINT, arguments))


# --- inside


def _width_us(frame: Timeframe) -> int:
    return frame.width_us or MONTH_US


async def _checked(request: Request, symbol: str) -> tuple[Context, str]:
    """The request's context, and the symbol.

    Raises:
        Problem: the symbol does not exist.
    """
    context = context_of(request)
    parameters.check_symbols([symbol], await context.symbols())
    return context, symbol


def _span(
    context: Context, start_us: int | None, end_us: int | None, *, default_us: int
) -> tuple[int, int]:
    """The range in µs; by default the newest ``default_us``."""
    parameters.check_range(start_us, end_us)
    until_us = context.now_us() + DAY_US if end_us is None else end_us
    since_us = (min(until_us, context.now_us()) - default_us) if start_us is None else start_us
    return max(since_us, EARLIEST_US), until_us


def _times(span: tuple[int, int]) -> dict[str, datetime]:
    return {"start": from_us(span[0]), "end": from_us(span[1])}


async def _read(context: Context, query: str, arguments: dict[str, Any]) -> Rows:
    try:
        return await context.history.call(
            lambda connection: read_rows(connection, query, arguments)
        )
    except PermanentError as error:
        if isinstance(error.__cause__, errors.UndefinedTable | errors.UndefinedFunction):
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, UNBUILT) from None
        raise


def _columns(found: Rows) -> dict[str, Any]:
    return {column: TYPES.get(type_, pl.String) for column, type_ in found.types.items()}


async def _respond(
    request: Request,
    name: str,
    found: Rows,
    *,
    turned: bool = False,
    further: dict[str, Any] | None = None,
) -> Response:
    columns = _columns(found)

    def make() -> Response:
        rows = [
            tuple(
                value if columns[column] is not pl.String or value is None else _text(value)
                for column, value in zip(columns, row, strict=True)
            )
            for row in found.rows
        ]
        return table(
            request,
            name,
            columns,
            rows[::-1] if turned else rows,
            further=further or {},
            headers={"cache-control": "no-cache"},
        )

    return await context_of(request).made(make, rows=len(found.rows))


def _text(value: Any) -> Any:
    """Text of values that are neither numbers nor times; the formats convert decimals."""
    return value if isinstance(value, Decimal | str | date) else str(value)
