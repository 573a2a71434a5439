"""``/api/v1/symbols``: listings and current prices."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from include.domain.candles import Candle
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import TIMEFRAMES, from_us
from include.errors import TransientError
from include.store.candles.bars import read_bars
from include.store.instruments import LISTED_FROM_UNKNOWN_US, Listing
from serving.bars.day_prices import DayAnswer
from serving.http import parameters
from serving.http.context import Context, context_of
from serving.http.formats import DECIMAL, book_ticker_fields, json, numbers, table
from serving.problems import Problem, unknown
from serving.protobuf.bars import EARLIEST_US, plain
from streamer.hub.trade_hub import FullError

router = APIRouter(tags=["symbols"], dependencies=[Depends(numbers)])

BOOK_TIMEOUT_S = 2.0
SOON = {"retry-after": "1"}

COLUMNS: dict[str, Any] = {
    "symbol": pl.String,
    "market": pl.String,
    "exchange_symbol": pl.String,
    "base_asset": pl.String,
    "quote_asset": pl.String,
    "status": pl.String,
    "tick_size": DECIMAL,
    "step_size": DECIMAL,
    "listed_from": pl.Datetime("us", "UTC"),
    "listed_to": pl.Datetime("us", "UTC"),
    "is_streamed": pl.Boolean,
    "volume_unit": pl.String,
    "quote_volume_unit": pl.String,
    "contract_type": pl.String,
    "contract_size": DECIMAL,
    "margin_asset": pl.String,
    "pair": pl.String,
    "delivers_at": pl.Datetime("us", "UTC"),
    "settlement_price": DECIMAL,
}

PRICES: dict[str, Any] = {
    "symbol": pl.String,
    "from": pl.Datetime("us", "UTC"),
    "newest_minute": pl.Datetime("us", "UTC"),
    "open": DECIMAL,
    "high": DECIMAL,
    "low": DECIMAL,
    "last": DECIMAL,
    "change": DECIMAL,
    "change_percent": DECIMAL,
    "volume": DECIMAL,
    "quote_volume": DECIMAL,
    "trade_count": pl.Int64,
    "minute_count": pl.Int32,
    "missing_minutes": pl.Int32,
    "is_whole": pl.Boolean,
}


@router.get("/symbols", summary="Listings, by symbol")
async def symbols(
    request: Request,
    market: Annotated[
        parameters.MarketName | None, Query(description="spot, um or cm; default: all.")
    ] = None,
    delisted: Annotated[bool, Query(description="Include ended listings.")] = False,
    streamed: Annotated[bool, Query(description="Only streamed symbols.")] = False,
) -> Response:
    """All known listings, with the exchange's rules for prices and quantities; for a streamed
    symbol
    that is not registered yet, its name and market only. On COIN-M, volumes count contracts, and
    quote volumes the base asset: `volume_unit` and `quote_volume_unit` say it.
    """
    context = context_of(request)
    live = frozenset(context.streamed())
    listings = await context.listings()
    found = [
        one
        for one in listings
        if (market is None or one.instrument.market.value == market)
        and (delisted or one.listed_to_us is None)
        and (not streamed or one.instrument.symbol in live)
    ]
    unregistered = [
        name
        for name in live.difference(one.instrument.symbol for one in listings)
        if market is None or market_of(name).value == market
    ]
    rows = len(found) + len(unregistered)
    return await context.made(
        lambda: table(
            request,
            "symbols",
            COLUMNS,
            sorted(
                [*(_row(one, live) for one in found), *map(_unregistered_row, unregistered)],
                key=itemgetter(0),
            ),
            further={},
            headers={"cache-control": "no-cache"},
        ),
        rows=rows,
    )


@router.get("/symbols/{symbol}", summary="One symbol, each of its listings")
async def symbol(request: Request, symbol: str) -> Response:
    """A reused ticker has several listings; no derived value spans two of them."""
    context = context_of(request)
    live = frozenset(context.streamed())
    found = [one for one in await context.listings() if one.instrument.symbol == symbol]
    if not found and symbol not in live:
        raise unknown(parameters.unknown_symbol_text(symbol, await context.symbols()))
    return table(
        request,
        "listings",
        COLUMNS,
        [_row(one, live) for one in found] or [_unregistered_row(symbol)],
        further={},
        headers={"cache-control": "no-cache"},
    )


@router.get("/symbols/{symbol}/price", summary="The last price")
async def price(request: Request, symbol: str) -> Response:
    """The close of the newest minute: from memory if the symbol is streamed and its stream is
    alive.
    Otherwise `is_live` is false, and it comes from the table or, if newer, from memory.
    """
    context = context_of(request)
    parameters.check_symbols([symbol], await context.symbols())
    newest, is_live = context.newest(symbol), bool(context.current([symbol]))
    candle = None if newest is None else newest.candle
    if not is_live:
        candle = await _newest_known(context, symbol, candle)
    if candle is None:
        raise unknown(f"price: no price is known of {symbol} yet")
    return json(
        request,
        {
            "symbol": symbol,
            "price": plain(candle.close),
            "open_time": from_us(candle.open_time_us),
            "is_live": is_live,
        },
        headers={"cache-control": "no-cache"},
    )


@router.get("/symbols/{symbol}/book", summary="The best bid and ask")
async def book(request: Request, symbol: str) -> Response:
    """From memory. A symbol's book ticker is streamed on request: the first request waits for a
    change,
    two seconds at most. `received_time` says when it arrived.
    """
    context = context_of(request)
    parameters.check_symbols([symbol], await context.symbols())
    if context.ticks is None:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "book tickers are not served here")
    if symbol not in frozenset(context.streamed()):
        raise unknown(f"symbol: {symbol} is not streamed, so it has no book ticker")
    try:
        with context.ticks.book_tickers.subscribe([symbol]) as subscription:
            async with asyncio.timeout(BOOK_TIMEOUT_S):
                found = await subscription.receive()
    except FullError as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers=SOON) from None
    except TimeoutError:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"no book ticker of {symbol} came within {BOOK_TIMEOUT_S:g} s; it is subscribed now: "
            "try again",
            headers=SOON,
        ) from None
    if found is None:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "streaming has ended")
    fields = book_ticker_fields(found.ticks[0])
    for field in ("event_time", "received_time"):
        moment_ms = fields[field]
        fields[field] = from_us(moment_ms * 1_000) if isinstance(moment_ms, int) else None
    return json(request, fields, headers={"cache-control": "no-store"})


@router.get("/prices", summary="Prices of the day")
async def prices(
    request: Request,
    symbol: Annotated[
        parameters.OptionalSymbols,
        Query(description="One or several; by default all streamed symbols."),
    ] = None,
) -> Response:
    """Of the 24 hours up to the newest minute. `is_whole` is true if each minute is included, or is
    excused by an outage or a later listing. `missing_minutes` counts the others; it is null until
    the table was read, on the first request of a symbol. `quote_volume` is null while that of a
    minute is not known: of symbols whose fills the exchange rounds, until its closed kline.
    """
    context = context_of(request)
    live = frozenset(context.streamed())
    if symbol is not None:
        parameters.check_symbols(symbol, live)
    names = sorted(live) if symbol is None else symbol
    return table(
        request,
        "prices",
        PRICES,
        [_day_row(one) for one in await context.prices.of(names)],
        further={},
        headers={"cache-control": "no-cache"},
    )


async def _newest_known(context: Context, name: str, kept: Candle | None) -> Candle | None:
    """The newest minute of the table, or the one in memory if that is newer."""
    try:
        bars = await context.history.call(
            lambda connection: read_bars(
                connection, name, TIMEFRAMES["1m"], EARLIEST_US, None, limit=1, newest=True
            )
        )
    except (TransientError, TimeoutError):
        if kept is None:
            raise
        return kept  # returned as not live
    stored = bars[0].candle if bars else None
    if stored is None or (kept is not None and kept.open_time_us > stored.open_time_us):
        return kept
    return stored


def _day_row(answer: DayAnswer) -> tuple[Any, ...]:
    day = answer.prices
    return (
        day.symbol, from_us(day.start_us), from_us(day.newest_us), day.open, day.high, day.low,
        day.last, day.change, day.change_percent, day.volume, day.quote_volume, day.trade_count,
        day.minute_count, answer.missing_minutes, answer.is_whole,
    )  # fmt: skip


def _row(listing: Listing, live: frozenset[str]) -> tuple[Any, ...]:
    one = listing.instrument
    is_known = listing.listed_from_us != LISTED_FROM_UNKNOWN_US
    ended_us = listing.listed_to_us
    return (
        one.symbol,
        one.market.value,
        one.exchange_symbol,
        one.base_asset,
        one.quote_asset,
        one.status,
        plain(one.tick_size),
        plain(one.step_size),
        from_us(listing.listed_from_us) if is_known else None,
        None if ended_us is None else from_us(ended_us),
        ended_us is None and one.symbol in live,
        one.volume_unit,
        one.quote_volume_unit,
        one.contract_type,
        None if one.contract_size is None else plain(one.contract_size),
        one.margin_asset,
        one.pair,
        None if one.delivers_at_us is None else from_us(one.delivers_at_us),
        None if listing.settlement_price is None else plain(listing.settlement_price),
    )


def _unregistered_row(name: str) -> tuple[Any, ...]:
    """A symbol that is streamed but not registered yet."""
    known = {
        "symbol": name,
        "market": market_of(name).value,
        "exchange_symbol": exchange_symbol_of(name),
        "is_streamed": True,
    }
    return tuple(map(known.get, COLUMNS))
