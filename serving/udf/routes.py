"""TradingView's datafeed: the UDF protocol, under ``/udf``.

https://www.tradingview.com/charting-library-docs/latest/connecting_data/UDF/ describes it. Prices
are binary floats, for charts; exact values are at ``/api/v1``.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from starlette.responses import PlainTextResponse, Response

from include.domain.day_prices import MINUTES
from include.domain.instruments import Market, decimals_of
from include.domain.timeframes import SECOND_US, Timeframe, timeframe
from include.store.candles.bars import StoredBar, read_bars
from include.store.candles.marks import Mark, read_marks, read_outages
from include.store.instruments import Listing
from serving.bars.day_prices import DayAnswer
from serving.http.context import Context, context_of
from serving.http.formats import json
from serving.protobuf.bars import LATEST_US

router = APIRouter(prefix="/udf", tags=["TradingView"])

RESOLUTIONS = {
    "1": "1m",
    "3": "3m",
    "5": "5m",
    "15": "15m",
    "30": "30m",
    "60": "1h",
    "120": "2h",
    "240": "4h",
    "360": "6h",
    "480": "8h",
    "720": "12h",
    "1D": "1d",
    "3D": "3d",
    "1W": "1w",
    "1M": "1M",
}
"""Our timeframes by TradingView's resolutions."""
_ALSO = {"D": "1D", "W": "1W", "M": "1M"}
EXCHANGES = {Market.SPOT: "BINANCE", Market.UM: "BINANCE-UM", Market.CM: "BINANCE-CM"}
MAX_BARS = 5_000
MAX_FOUND = 100
MAX_QUOTES = 100
LATEST_S = LATEST_US // SECOND_US - 1
Start = Annotated[
    int,
    AfterValidator(lambda start: max(start, 0)),  # charts ask for bars before 1970
    Query(alias="from", ge=-LATEST_S, le=LATEST_S),
]
NO_STORE = {"cache-control": "no-store"}
KEPT = {"cache-control": "no-cache"}


@router.get("/config", summary="Capabilities of the datafeed")
async def config(request: Request) -> Response:
    """Requested first by the chart."""
    return json(
        request,
        {
            "supported_resolutions": list(RESOLUTIONS),
            "supports_group_request": False,
            "supports_search": True,
            "supports_marks": True,
            "supports_timescale_marks": True,
            "supports_time": True,
            "exchanges": [{"value": "", "name": "All", "desc": ""}]
            + [{"value": name, "name": name, "desc": ""} for name in EXCHANGES.values()],
            "symbols_types": [
                {"name": "All", "value": ""},
                {"name": "Spot", "value": "spot"},
                {"name": "Futures", "value": "futures"},
            ],
        },
        headers=KEPT,
    )


@router.get("/time", summary="The server's time", response_class=PlainTextResponse)
async def server_time() -> Response:
    """A time in seconds since 1970."""
    return PlainTextResponse(str(int(time.time())), headers=NO_STORE)


@router.get("/symbols", summary="One symbol")
async def symbol(
    request: Request,
    symbol: Annotated[str, Query(description="BTCUSDT, or with its exchange BINANCE:BTCUSDT.")],
) -> Response:
    """Symbol information that the chart reads before it requests bars."""
    found = await _find(context_of(request), symbol)
    if found is None:
        return _failed(request, f"unknown symbol {symbol[:64]}")
    return json(request, _described(found), headers=KEPT)


@router.get("/symbol_info", summary="All symbols of an exchange, column by column")
async def symbol_info(
    request: Request, group: Annotated[str, Query(description="The exchange.")] = ""
) -> Response:
    """For clients that read all symbols in one request, such as OpenBB."""
    listings = [
        one
        for one in (await context_of(request).newest_listings()).values()
        if not group or EXCHANGES[one.instrument.market] == group
    ]
    described = [_described(one) for one in listings]
    names = {
        "symbol": "name",
        "description": "description",
        "exchange-listed": "listed_exchange",
        "exchange-traded": "exchange",
        "minmovement": "minmov",
        "pricescale": "pricescale",
        "type": "type",
        "timezone": "timezone",
        "session-regular": "session",
        "has-intraday": "has_intraday",
        "supported-resolutions": "supported_resolutions",
    }
    columns = {column: [one[name] for one in described] for column, name in names.items()}
    return json(request, {"s": "ok", **columns}, headers=KEPT)


@router.get("/search", summary="Symbols that match a text")
async def search(
    request: Request,
    query: Annotated[str, Query(max_length=64)] = "",
    type: Annotated[str, Query(max_length=16)] = "",
    exchange: Annotated[str, Query(max_length=16)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 30,
) -> Response:
    """Symbols that start with the text first, then those that contain it."""
    wanted = query.upper().strip()
    fits = [
        one
        for one in (await context_of(request).newest_listings()).values()
        if wanted in one.instrument.symbol.upper()
        and (not exchange or EXCHANGES[one.instrument.market] == exchange)
        and (not type or _type_of(one) == type)
    ]
    fits.sort(
        key=lambda one: (
            not one.instrument.symbol.upper().startswith(wanted),
            len(one.instrument.symbol),
            one.instrument.symbol,
        )
    )
    items = [
        {
            "symbol": one.instrument.symbol,
            "full_name": _ticker(one),
            "description": _description(one),
            "exchange": EXCHANGES[one.instrument.market],
            "ticker": one.instrument.symbol,
            "type": _type_of(one),
        }
        for one in fits[:limit]
    ]
    return json(request, items, headers=KEPT)


@router.get("/history", summary="Bars")
async def history(
    request: Request,
    symbol: str,
    resolution: str,
    start: Start,
    end: Annotated[int, Query(alias="to", ge=0, le=LATEST_S)],
    countback: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Bars from ``from`` until before ``to``, in seconds; with ``countback``, that many before
    ``to``,
    whatever ``from`` is. If there are none, ``nextTime`` is the time of the newest bar before.
    """
    context = context_of(request)
    found = await _find(context, symbol)
    if found is None:
        return _failed(request, f"unknown symbol {symbol[:64]}")
    frame = _frame(resolution)
    if frame is None:
        return _failed(request, f"unknown resolution {resolution[:16]}")
    if end < start:
        return _failed(request, "to lies before from")
    name = found.instrument.symbol
    end_us = end * SECOND_US
    limit = MAX_BARS if countback is None else min(countback, MAX_BARS)

    def read(connection: Any) -> tuple[list[StoredBar], list[StoredBar]]:
        start_us = start * SECOND_US if countback is None else 0
        bars = read_bars(connection, name, frame, start_us, end_us, limit=limit, newest=True)
        before = [] if bars else read_bars(connection, name, frame, 0, end_us, limit=1, newest=True)
        return bars, before

    bars, before = await context.history.call(read)
    if not bars:
        further = {"nextTime": _seconds(before[0])} if before else {}
        return json(request, {"s": "no_data", **further}, headers=KEPT)
    candles = [bar.candle for bar in bars]
    return json(
        request,
        {
            "s": "ok",
            "t": [_seconds(bar) for bar in bars],
            "o": [float(one.open) for one in candles],
            "h": [float(one.high) for one in candles],
            "l": [float(one.low) for one in candles],
            "c": [float(one.close) for one in candles],
            "v": [float(one.volume) for one in candles],
        },
        headers=KEPT,
    )


@router.get("/quotes", summary="Prices of the day")
async def quotes(
    request: Request, symbols: Annotated[str, Query(description="Names, by comma.")]
) -> Response:
    """For watchlists and details; each unknown symbol has an error entry."""
    context = context_of(request)
    names = list(dict.fromkeys(symbols.split(",")))[:MAX_QUOTES]
    listed = {name: await _find(context, name) for name in names}
    days = {
        answer.prices.symbol: answer
        for answer in await context.prices.of(
            [one.instrument.symbol for one in listed.values() if one is not None]
        )
    }
    items = []
    for name, found in listed.items():
        answer = None if found is None else days.get(found.instrument.symbol)
        if found is None or answer is None:
            items.append({"s": "error", "n": name[:64], "v": {}, "errmsg": "unknown symbol"})
            continue
        day = answer.prices
        items.append(
            {
                "s": "ok",
                "n": name,
                "v": {
                    "short_name": found.instrument.symbol,
                    "exchange": EXCHANGES[found.instrument.market],
                    "description": _description(found) + _incomplete(answer),
                    "is_whole": answer.is_whole,
                    "lp": float(day.last),
                    "ch": float(day.change),
                    "chp": float(day.change_percent),
                    "open_price": float(day.open),
                    "high_price": float(day.high),
                    "low_price": float(day.low),
                    "prev_close_price": float(day.open),
                    "volume": float(day.volume),
                },
            }
        )
    return json(request, {"s": "ok", "d": items}, headers=NO_STORE)


@router.get("/marks", summary="Repairs, missing trades and gaps")
async def marks(
    request: Request,
    symbol: str,
    start: Start,
    end: Annotated[int, Query(alias="to", ge=0, le=LATEST_S)],
    resolution: str = "1",
) -> Response:
    """Marks on bars: repaired minutes, minutes with missing trades, and gaps."""
    context = context_of(request)
    found, frame = await _find(context, symbol), _frame(resolution)
    if found is None or frame is None or end < start:
        return json(request, _columns([], frame), headers=KEPT)
    name = found.instrument.symbol
    items = await context.history.call(
        lambda connection: read_marks(connection, name, start * SECOND_US, end * SECOND_US)
    )
    return json(request, _columns(items, frame), headers=KEPT)


@router.get("/timescale_marks", summary="Outages of the exchange")
async def timescale_marks(
    request: Request,
    symbol: str,
    start: Start,
    end: Annotated[int, Query(alias="to", ge=0, le=LATEST_S)],
    resolution: str = "1",
) -> Response:
    """Marks on the time scale: outages of the exchange and halts of the symbol."""
    context = context_of(request)
    found, frame = await _find(context, symbol), _frame(resolution)
    if found is None or frame is None or end < start:
        return json(request, [], headers=KEPT)
    name = found.instrument.symbol
    items = await context.history.call(
        lambda connection: read_outages(connection, name, start * SECOND_US, end * SECOND_US)
    )
    return json(
        request,
        [
            {
                "id": one.id,
                "time": frame.open_time_us(one.time_us) // SECOND_US,
                "color": COLOURS[one.kind],
                "label": one.kind[0].upper(),
                "tooltip": [one.text],
            }
            for one in items
        ],
        headers=KEPT,
    )


# --- inside

COLOURS = {"repaired": "blue", "partial": "red", "gap": "yellow", "outage": "red"}


def _columns(found: list[Mark], frame: Timeframe | None) -> dict[str, list[Any]]:
    """Marks in the protocol's columns; one for each bar and kind."""
    of_bars: dict[tuple[int, str], list[Mark]] = {}
    if frame is not None:
        for one in found:
            of_bars.setdefault((frame.open_time_us(one.time_us), one.kind), []).append(one)
    texts = [
        of_bar[0].text if len(of_bar) == 1 else f"{len(of_bar)} × {kind}; first: {of_bar[0].text}"
        for (_, kind), of_bar in of_bars.items()
    ]
    return {
        "id": [f"{kind} {open_us}" for open_us, kind in of_bars],
        "time": [open_us // SECOND_US for open_us, _ in of_bars],
        "color": [COLOURS[kind] for _, kind in of_bars],
        "text": texts,
        "label": [kind[0].upper() for _, kind in of_bars],
        "labelFontColor": ["white"] * len(of_bars),
        "minSize": [14] * len(of_bars),
    }


async def _find(context: Context, name: str) -> Listing | None:
    """The newest listing of a symbol, which may be prefixed with its exchange."""
    exchange, _, symbol = name.rpartition(":")
    found = (await context.newest_listings()).get(symbol)
    if found is None or exchange not in ("", EXCHANGES[found.instrument.market]):
        return None
    return found


def _frame(resolution: str) -> Timeframe | None:
    name = RESOLUTIONS.get(_ALSO.get(resolution, resolution))
    return None if name is None else timeframe(name)


def _described(listing: Listing) -> dict[str, Any]:
    one = listing.instrument
    return {
        "name": one.symbol,
        "ticker": one.symbol,
        "full_name": _ticker(listing),
        "description": _description(listing),
        "type": _type_of(listing),
        "session": "24x7",
        "timezone": "Etc/UTC",
        "exchange": EXCHANGES[one.market],
        "listed_exchange": EXCHANGES[one.market],
        "minmov": int(one.tick_size.scaleb(decimals_of(one.tick_size))),
        "pricescale": 10 ** decimals_of(one.tick_size),
        "has_intraday": True,
        "has_daily": True,
        "has_weekly_and_monthly": True,
        "visible_plots_set": "ohlcv",
        "supported_resolutions": list(RESOLUTIONS),
        "intraday_multipliers": [one for one in RESOLUTIONS if one.isdigit()],
        "volume_precision": decimals_of(one.step_size),
        "data_status": "streaming",
        "currency_code": one.quote_asset,
    }


def _ticker(listing: Listing) -> str:
    return f"{EXCHANGES[listing.instrument.market]}:{listing.instrument.symbol}"


def _description(listing: Listing) -> str:
    one = listing.instrument
    kind = "spot"
    if one.market.is_futures:
        is_dated = one.contract_type is not None and "PERPETUAL" not in one.contract_type
        kind = f"{one.exchange_symbol.rpartition('_')[2]} delivery" if is_dated else "perpetual"
    return f"{one.base_asset} / {one.quote_asset}, {kind}"


def _incomplete(answer: DayAnswer) -> str:
    """Return what to add to a description if minutes of the 24 hours are missing."""
    if answer.is_whole:
        return ""
    return f" (24 h incomplete: {answer.prices.minute_count:,} of {MINUTES:,} minutes)"


def _type_of(listing: Listing) -> str:
    return "futures" if listing.instrument.market.is_futures else "spot"


def _seconds(bar: StoredBar) -> int:
    return bar.candle.open_time_us // SECOND_US


def _failed(request: Request, why: str) -> Response:
    return json(request, {"s": "error", "errmsg": why}, headers=NO_STORE)
