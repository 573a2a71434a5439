"""Binance's own SDKs, spot and USD-M: every answer goes through their models."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from binance_common.errors import BadRequestError, RateLimitBanError, TooManyRequestsError
from binance_sdk_derivatives_trading_usds_futures import (
    derivatives_trading_usds_futures as usds_futures,
)
from binance_sdk_spot import spot
from program import (
    AGG_TRADE_KEYS,
    BOOK_KEYS,
    DEEPEST,
    KLINE_KEYS,
    MINI_KEYS,
    BookRecord,
    command,
    end_connections,
    run,
    until,
)

MARKETS = ("spot", "um")
ANY_KEY = "any"
"""USD-M gives historicalTrades to holders of a key alone."""

STREAMED = {"spot": ("agg_trade", "kline"), "um": ("aggregate_trade_streams",
            "kline_candlestick_streams")}  # fmt: skip


def rest(urls: dict[str, str], market: str) -> Any:
    """The library's base URL is a parameter of its configuration."""
    if market == "spot":
        settings = spot.ConfigurationRestAPI(base_path=urls["spot_rest_url"], timeout=10_000)
        return spot.Spot(config_rest_api=settings).rest_api
    settings = usds_futures.ConfigurationRestAPI(
        base_path=urls["um_rest_url"], timeout=10_000, api_key=ANY_KEY
    )
    return usds_futures.DerivativesTradingUsdsFutures(config_rest_api=settings).rest_api


def sockets(urls: dict[str, str], market: str) -> Any:
    """As `rest`, for streams."""
    if market == "spot":
        settings = spot.ConfigurationWebSocketStreams(
            stream_url=urls["spot_ws_url"], reconnect_delay=100
        )
        return spot.Spot(config_ws_streams=settings).websocket_streams
    settings = usds_futures.ConfigurationWebSocketStreams(
        stream_url=urls["um_ws_url"], reconnect_delay=100
    )
    return usds_futures.DerivativesTradingUsdsFutures(config_ws_streams=settings).websocket_streams


@command
def klines(
    urls: dict[str, str], market: str, symbol: str, interval: str, start_ms: int, end_ms: int
) -> Any:
    """Page by page from the start: `start_time`, `end_time` and `limit`."""
    api = rest(urls, market)
    ask = api.klines if market == "spot" else api.kline_candlestick_data
    found: list[Any] = []
    while True:
        page = ask(symbol, interval, start_time=start_ms, end_time=end_ms, limit=1_000).data()
        found += page
        start_ms = page[-1][0] + 1
        if start_ms > end_ms:
            return found


def _aggregates(api: Any, market: str, symbol: str, start_ms: int, end_ms: int) -> Any:
    ask = api.agg_trades if market == "spot" else api.compressed_aggregate_trades_list
    (first,) = ask(symbol, start_time=start_ms, end_time=end_ms, limit=1).data()
    from_id = first.a
    found: list[Any] = []
    while True:
        page = ask(symbol, from_id=from_id, limit=1_000).data()
        for row in page:
            if end_ms <= row.T:
                return found
            found.append([getattr(row, key) for key in AGG_TRADE_KEYS])
        from_id = page[-1].a + 1


@command
def trades(urls: dict[str, str], market: str, symbol: str, start_ms: int, end_ms: int) -> Any:
    """All aggTrades of a span and all fills of it, both page by page by their ids."""
    api = rest(urls, market)
    aggregates = _aggregates(api, market, symbol, start_ms, end_ms)
    ask = api.historical_trades if market == "spot" else api.old_trades_lookup
    fills: list[Any] = []
    next_id = aggregates[0][3]
    while not fills or fills[-1][3] < end_ms:
        page = ask(symbol, from_id=next_id, limit=500).data()
        fills += [[row.id, row.price, row.qty, row.time] for row in page]
        next_id = page[-1].id + 1
    return {"aggregates": aggregates, "fills": [row for row in fills if row[3] < end_ms]}


@command
def listings(urls: dict[str, str]) -> Any:
    found = {}
    for market in MARKETS:
        api = rest(urls, market)
        ask = api.exchange_info if market == "spot" else api.exchange_information
        for entry in ask().data().symbols:
            filters = {kind.filter_type: kind for kind in map(_chosen, entry.filters)}
            found[f"{market} {entry.symbol}"] = [
                entry.base_asset,
                entry.quote_asset,
                filters["PRICE_FILTER"].tick_size,
                filters["LOT_SIZE"].step_size,
            ]
    return found


def _chosen(entry: Any) -> Any:
    """Spot's filters are one of several models."""
    return getattr(entry, "actual_instance", entry)


@command
def quotes(urls: dict[str, str]) -> Any:
    """Best bid and ask with their quantities, and the last price, of all symbols."""
    found = {}
    for market in MARKETS:
        api = rest(urls, market)
        asks = (
            (api.ticker_book_ticker, api.ticker_price)
            if market == "spot"
            else (api.symbol_order_book_ticker, api.symbol_price_ticker)
        )
        tops_of, prices = (ask().data().actual_instance for ask in asks)
        last = {row.symbol: row.price for row in prices}
        for row in tops_of:
            best = [row.bid_price, row.bid_qty, row.ask_price, row.ask_qty]
            found[f"{market} {row.symbol}"] = [*best, last[row.symbol]]
    return found


@command
def errors(urls: dict[str, str]) -> Any:
    api, futures = rest(urls, "spot"), rest(urls, "um")
    seen: dict[str, Any] = {
        "invalid symbol": _refused(lambda: api.klines("NOPEUSDT", "1m")),
        "invalid interval": _refused(lambda: api.klines("BTCUSDT", "7m")),
        "futures limit": _refused(
            lambda: futures.kline_candlestick_data("BTCUSDT", "1m", limit=5_000)
        ),
    }
    used = [api.klines("BTCUSDT", "1m", limit=1).rate_limits[0].count for _ in range(2)]
    seen["weight of klines"] = used[1] - used[0]
    while "ban" not in seen:
        answer = _refused(api.exchange_info, tolerated=True)
        if answer is not None:
            kind = "too much weight" if answer["status"] == 429 else "ban"
            seen.setdefault(kind, answer)
    return seen


STATUSES = {BadRequestError: 400, TooManyRequestsError: 429, RateLimitBanError: 418}


def _refused(ask: Callable[[], Any], *, tolerated: bool = False) -> Any:
    try:
        ask()
    except tuple(STATUSES) as error:
        return {
            "class": type(error).__name__,
            "code": error.status_code,  # as the library names the exchange's code
            "status": STATUSES[type(error)],
            "retry_after": getattr(error, "retry_after", None),
        }
    if not tolerated:
        raise AssertionError("not refused")
    return None


@command
async def streams(urls: dict[str, str], closed: int) -> Any:
    """One combined connection a market and path; a further symbol for a while."""
    answers = await asyncio.gather(*(_streamed(urls, market, closed) for market in MARKETS))
    return dict(zip(MARKETS, answers, strict=True))


async def _streamed(urls: dict[str, str], market: str, closed: int) -> Any:
    client = sockets(urls, market)
    if await client.create_connection() is None:
        raise AssertionError(f"no connection to {market}")
    trades_of, klines_of = (getattr(client, name) for name in STREAMED[market])
    found: dict[str, list[Any]] = {"btcusdt": [], "ethusdt": []}
    candles: list[Any] = []

    async def keep(symbol: str) -> Any:
        handle = await trades_of(symbol=symbol)
        handle.on("message", lambda row: found[symbol].append(_values(row, AGG_TRADE_KEYS)))
        return handle

    def keep_kline(row: Any) -> None:
        if row.k.x:
            candles.append(_values(row.k, KLINE_KEYS))

    await keep("btcusdt")
    (await klines_of(symbol="btcusdt", interval="1m")).on("message", keep_kline)
    other = await keep("ethusdt")
    await until(lambda: len(found["ethusdt"]) >= 30, "30 trades of the further symbol")
    listed = [(await client.list_subscribe())["result"]]
    await other.unsubscribe()
    listed.append((await client.list_subscribe())["result"])
    arrived = len(found["ethusdt"])
    await until(lambda: len(candles) >= closed, "closed klines")
    await client.close_connection()
    return {
        "trades": found,
        "klines": candles,
        "silent": len(found["ethusdt"]) == arrived,
        "listed": listed,
    }


def _values(row: Any, keys: tuple[str, ...]) -> list[Any]:
    return [getattr(row, key) for key in keys]


@command
async def tops(urls: dict[str, str], wanted: int) -> Any:
    """Book tickers and mini tickers of each market."""
    answers = await asyncio.gather(*(_topped(urls, market, wanted) for market in MARKETS))
    return dict(zip(MARKETS, answers, strict=True))


async def _topped(urls: dict[str, str], market: str, wanted: int) -> Any:
    client = sockets(urls, market)
    if await client.create_connection() is None:
        raise AssertionError(f"no connection to {market}")
    found: dict[str, list[Any]] = {"book": [], "mini": []}
    subscriptions = (
        (client.book_ticker, client.mini_ticker)
        if market == "spot"
        else (
            client.individual_symbol_book_ticker_streams,
            client.individual_symbol_mini_ticker_stream,
        )
    )
    for (name, rows), subscribe, keys in zip(
        found.items(), subscriptions, (BOOK_KEYS, MINI_KEYS), strict=True
    ):
        handle = await subscribe(symbol="btcusdt")
        handle.on("message", lambda row, rows=rows, keys=keys: rows.append(_values(row, keys)))
        await until(lambda rows=rows: len(rows) >= wanted, f"{name} tickers")
    await client.close_connection()
    return found


@command
async def books(urls: dict[str, str], updates: int) -> Any:
    """The SDKs keep no book; this does as their documentation says, with their calls."""
    answers = await asyncio.gather(*(_book(urls, market, updates) for market in MARKETS))
    return dict(zip(MARKETS, answers, strict=True))


async def _book(urls: dict[str, str], market: str, updates: int) -> Any:
    client, api = sockets(urls, market), rest(urls, market)
    if await client.create_connection() is None:
        raise AssertionError(f"no connection to {market}")
    subscribe = client.diff_book_depth if market == "spot" else client.diff_book_depth_streams
    waiting: list[Any] = []
    (await subscribe(symbol="btcusdt", update_speed="100ms")).on("message", waiting.append)
    await until(lambda: len(waiting) > 3, "updates of the book")
    ask = api.depth if market == "spot" else api.order_book
    snapshot = (await asyncio.to_thread(ask, "BTCUSDT", limit=DEEPEST[market])).data()
    last_id = snapshot.last_update_id
    sides = {"bids": dict(snapshot.bids), "asks": dict(snapshot.asks)}
    record = BookRecord(updates, min(sides["bids"], key=float), max(sides["asks"], key=float))
    while not record.is_full:
        await until(lambda: bool(waiting), "further updates of the book")
        row = waiting.pop(0)
        if row.u < last_id or (market == "spot" and row.u == last_id):
            continue
        if record.updates:
            is_next = last_id == (row.U - 1 if market == "spot" else row.pu)
        else:
            is_next = last_id >= (row.U - 1 if market == "spot" else row.U)
        if not is_next:
            raise AssertionError(f"{market}: update {row.U} to {row.u} after {last_id}")
        last_id = row.u
        for side, changes in (("bids", row.b), ("asks", row.a)):
            for price, quantity in changes:
                sides[side][price] = quantity
                if not Decimal(quantity):
                    del sides[side][price]
        levels = (sides["bids"].items(), sides["asks"].items())
        record.note(record.updates + 1, last_id, lambda levels=levels: levels)
    await client.close_connection()
    return record.result()


@command
async def rotations(urls: dict[str, str], ends: list[str]) -> Any:
    """Connections that the exchange drops, announces to end, or lets reach their age limit.

    The library reports the end to its user; a new client continues. Last, it replaces a connection
    itself, as it does every 23 hours.
    """
    answers = await asyncio.gather(*(_rotated(urls, market, ends) for market in MARKETS))
    return dict(zip(MARKETS, answers, strict=True))


async def _rotated(urls: dict[str, str], market: str, ends: list[str]) -> Any:
    found: list[Any] = []
    notices: list[str] = []
    starts = []

    async def opened() -> Any:
        client = sockets(urls, market)
        if await client.create_connection() is None:
            raise AssertionError(f"no connection to {market}")
        first = client.connections[0]
        client.on_connection("close", lambda: notices.append("close"), first)
        client.on_connection("reconnect", lambda: notices.append("reconnect"), first)
        handle = await getattr(client, STREAMED[market][0])(symbol="btcusdt")
        handle.on("message", lambda row: found.append(_values(row, AGG_TRADE_KEYS)))
        return client

    async def more(what: str) -> None:
        wanted = len(found) + 30
        await until(lambda: len(found) >= wanted, f"trades {what}")

    client = await opened()
    await more("at first")
    for end in ends:
        ended = len(notices)
        await end_connections(urls, market, end)
        await until(lambda ended=ended: len(notices) > ended, f"the end by {end}")
        await client.close_connection()
        starts.append(len(found))
        client = await opened()
        await more(f"after {end}")
    await client.reconnect(client.connections[0], client.configuration)
    starts.append(len(found))
    await more("after the library's own rotation")
    await client.close_connection()
    return {"trades": found, "starts": starts, "notices": notices}


if __name__ == "__main__":
    run()
