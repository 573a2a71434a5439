"""ccxt and ccxt.pro: unified calls, the exchange's own calls, watched trades, klines and books."""

import asyncio
import json
import re
from typing import Any

import ccxt
import ccxt.pro
from program import (
    AGG_TRADE_KEYS,
    BOOK_KEYS,
    DEEPEST,
    MINI_KEYS,
    BookRecord,
    command,
    end_connections,
    run,
)

MARKETS = {"spot": "BTC/USDT", "um": "BTC/USDT:USDT"}
OTHERS = {"spot": "ETH/USDT", "um": "ETH/USDT:USDT"}


def pointed(exchange: Any, urls: dict[str, str]) -> Any:
    """The library's base URLs are in `urls`; the other settings are documented options.

    ccxt knows a spot connection by the text `/stream` in its URL (`//stream.binance.com`), which
    the name before the @ brings in here.
    """
    exchange.urls["api"]["public"] = urls["spot_rest_url"] + "/api/v3"
    exchange.urls["api"]["fapiPublic"] = urls["um_rest_url"] + "/fapi/v1"
    exchange.urls["api"]["fapiPublicV2"] = urls["um_rest_url"] + "/fapi/v2"
    if "ws" in exchange.urls["api"]:
        sockets = exchange.urls["api"]["ws"]
        sockets["spot"] = urls["spot_ws_url"].replace("//", "//stream@") + "/ws"
        sockets["linear"] = urls["um_ws_url"] + "/ws"
        sockets["inverse"] = urls["cm_ws_url"] + "/ws"
    exchange.urls["api"]["fapiData"] = urls["um_rest_url"] + "/futures/data"
    exchange.urls["api"]["dapiPublic"] = urls["cm_rest_url"] + "/dapi/v1"
    exchange.urls["api"]["dapiData"] = urls["cm_rest_url"] + "/futures/data"
    exchange.number = str
    exchange.enableRateLimit = False
    return exchange


@command
def klines(
    urls: dict[str, str], market: str, symbol: str, interval: str, start_ms: int, end_ms: int
) -> Any:
    """The exchange's own call, page by page from the end: `endTime` and `limit`."""
    exchange = pointed(ccxt.binance(), urls)
    ask = exchange.publicGetKlines if market == "spot" else exchange.fapiPublicGetKlines
    found: list[Any] = []
    while True:
        query = {"symbol": symbol, "interval": interval, "endTime": end_ms, "limit": 1_000}
        page = ask(query)
        kept = [row for row in page if int(row[0]) >= start_ms]
        found = kept + found
        if len(kept) < len(page) or not page:
            return [_numbered(row) for row in found]
        end_ms = int(page[0][0]) - 1


def _numbered(row: list[str]) -> list[Any]:
    """The library hands raw numbers out as text."""
    return [int(cell) if place in (0, 6, 8) else cell for place, cell in enumerate(row)]


@command
def unified_klines(urls: dict[str, str], market: str, start_ms: int, end_ms: int) -> Any:
    """fetch_ohlcv, which pages by itself."""
    exchange = pointed(ccxt.binance(), urls)
    paging = {"until": end_ms, "paginate": True, "paginationCalls": 10}
    return exchange.fetch_ohlcv(MARKETS[market], "1m", since=start_ms, params=paging)


def _aggregates(exchange: Any, market: str, symbol: str, start_ms: int, end_ms: int) -> Any:
    exchange.load_markets()
    kind = {"fetchTradesMethod": "fapiPublicGetAggTrades"} if market == "um" else {}
    name = next(one["symbol"] for one in exchange.markets_by_id[symbol] if _is_of(one, market))
    (first,) = exchange.fetch_trades(name, since=start_ms, limit=1, params=kind)
    found: list[Any] = []
    from_id = int(first["id"])
    while True:
        page = exchange.fetch_trades(name, limit=1_000, params=kind | {"fromId": from_id})
        for trade in page:
            if trade["timestamp"] >= end_ms:
                return found
            found.append([trade["info"][key] for key in AGG_TRADE_KEYS])
        from_id = int(page[-1]["id"]) + 1


def _is_of(entry: dict[str, Any], market: str) -> bool:
    return bool(entry["spot"] if market == "spot" else entry["linear"])


@command
def trades(urls: dict[str, str], market: str, symbol: str, start_ms: int, end_ms: int) -> Any:
    """All aggTrades of a span and all fills of it, both page by page by their ids."""
    # the library asks for historicalTrades with a key alone, on spot too
    exchange = pointed(ccxt.binance({"apiKey": "any"}), urls)
    aggregates = _aggregates(exchange, market, symbol, start_ms, end_ms)
    ask = (
        exchange.publicGetHistoricalTrades
        if market == "spot"
        else exchange.fapiPublicGetHistoricalTrades
    )
    fills: list[Any] = []
    next_id = int(aggregates[0][3])
    while not fills or fills[-1][3] < end_ms:
        page = ask({"symbol": symbol, "fromId": next_id, "limit": 500})
        fills += [[int(row["id"]), row["price"], row["qty"], int(row["time"])] for row in page]
        next_id = fills[-1][0] + 1
    return {"aggregates": aggregates, "fills": [row for row in fills if row[3] < end_ms]}


@command
def listings(urls: dict[str, str]) -> Any:
    exchange = pointed(ccxt.binance(), urls)
    return {
        f"{'spot' if entry['spot'] else 'um'} {entry['id']}": [
            entry["base"],
            entry["quote"],
            entry["precision"]["price"],
            entry["precision"]["amount"],
        ]
        for entry in exchange.load_markets().values()
        if not entry["inverse"]
    }


@command
def quotes(urls: dict[str, str]) -> Any:
    """Best bid and ask with their quantities, and the last price, of all symbols."""
    exchange = pointed(ccxt.binance(), urls)
    found = {}
    for market in MARKETS:
        names = [one["symbol"] for one in exchange.load_markets().values() if _is_of(one, market)]
        prices = exchange.fetch_last_prices(names)
        for name, row in exchange.fetch_bids_asks(names).items():
            best = [row[key] for key in ("bid", "bidVolume", "ask", "askVolume")]
            found[f"{market} {exchange.market(name)['id']}"] = [*best, prices[name]["price"]]
    return found


@command
def errors(urls: dict[str, str]) -> Any:
    exchange = pointed(ccxt.binance(), urls)
    futures = {"symbol": "BTCUSDT", "interval": "1m", "limit": 5_000}
    bad_symbol = {"symbol": "NOPEUSDT", "interval": "1m"}
    bad_interval = {"symbol": "BTCUSDT", "interval": "7m"}
    seen = {
        "invalid symbol": _refused(exchange, exchange.publicGetKlines, bad_symbol),
        "invalid interval": _refused(exchange, exchange.publicGetKlines, bad_interval),
        "futures limit": _refused(exchange, exchange.fapiPublicGetKlines, futures),
    }
    used = []
    for _ in range(2):
        exchange.publicGetKlines({"symbol": "BTCUSDT", "interval": "1m", "limit": 1})
        used.append(int(_header(exchange, "x-mbx-used-weight-1m")))
    seen["weight of klines"] = used[1] - used[0]
    while "refusal" not in seen or seen["refusal"]["status"] == 429:
        answer = _refused(exchange, exchange.publicGetExchangeInfo, {}, tolerated=True)
        if answer is not None:
            seen.setdefault("too much weight", answer)
            seen["refusal"] = answer
    seen["ban"] = seen.pop("refusal")
    return seen


def _header(exchange: Any, name: str) -> Any:
    headers = exchange.last_response_headers
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _refused(exchange: Any, ask: Any, query: dict[str, Any], *, tolerated: bool = False) -> Any:
    try:
        ask(query)
    except ccxt.BaseError as error:
        retry_after = _header(exchange, "retry-after")
        status = re.search(r"binance (418|429) ", str(error))
        return {
            "class": type(error).__name__,
            "code": json.loads(exchange.last_http_response)["code"],
            "status": int(status[1]) if status else 400,
            "retry_after": None if retry_after is None else int(retry_after),
        }
    if not tolerated:
        raise AssertionError(f"not refused: {query}")
    return None


@command
async def streams(urls: dict[str, str], closed: int) -> Any:
    """Watch trades and klines, on both markets concurrently; a further symbol for a while."""
    async with pointed(ccxt.pro.binance(), urls) as exchange:
        await exchange.load_markets()
        answers = await asyncio.gather(*(_streamed(exchange, name, closed) for name in MARKETS))
        return dict(zip(MARKETS, answers, strict=True))


async def _streamed(exchange: Any, market: str, closed: int) -> Any:
    candles: dict[int, Any] = {}
    found: dict[str, list[Any]] = {"btcusdt": [], "ethusdt": []}
    aggregated = {"name": "aggTrade"}

    async def watch(symbol: str) -> None:
        while True:
            for trade in await exchange.watch_trades(symbol, params=aggregated):
                row = [trade["info"][key] for key in AGG_TRADE_KEYS]
                found[trade["info"]["s"].lower()].append(row)

    async def watch_other() -> None:
        while len(found["ethusdt"]) < 30:
            for trade in await exchange.watch_trades(OTHERS[market], params=aggregated):
                found["ethusdt"].append([trade["info"][key] for key in AGG_TRADE_KEYS])
        await exchange.un_watch_trades(OTHERS[market], params=aggregated)

    watching = [
        asyncio.create_task(watch(MARKETS[market])),
        asyncio.create_task(watch_other()),
    ]
    while len(candles) <= closed:
        for row in await exchange.watch_ohlcv(MARKETS[market], "1m"):
            candles[row[0]] = row
    await watching[1]
    watching[0].cancel()
    return {
        "trades": found,
        "klines": [candles[key] for key in sorted(candles)[:-1]],
        # a later frame would have created the cache again
        "silent": OTHERS[market] not in exchange.trades,
    }


@command
async def tops(urls: dict[str, str], wanted: int) -> Any:
    """Book tickers and mini tickers of each market."""
    async with pointed(ccxt.pro.binance(), urls) as exchange:
        await exchange.load_markets()
        answers = await asyncio.gather(*(_topped(exchange, name, wanted) for name in MARKETS))
        return dict(zip(MARKETS, answers, strict=True))


async def _topped(exchange: Any, market: str, wanted: int) -> Any:
    found: dict[str, list[Any]] = {"book": [], "mini": []}
    while len(found["book"]) < wanted:
        for ticker in (await exchange.watch_bids_asks([MARKETS[market]])).values():
            found["book"].append([ticker["info"][key] for key in BOOK_KEYS])
    while len(found["mini"]) < wanted:
        news = await exchange.watch_tickers([MARKETS[market]], params={"name": "miniTicker"})
        found["mini"] += [[one["info"][key] for key in MINI_KEYS] for one in news.values()]
    return found


@command
async def books(urls: dict[str, str], updates: int) -> Any:
    """watch_order_book of both markets concurrently."""
    async with pointed(ccxt.pro.binance(), urls) as exchange:
        await exchange.load_markets()
        answers = await asyncio.gather(
            *(_watched_book(exchange, name, updates) for name in MARKETS)
        )
        return dict(zip(MARKETS, answers, strict=True))


async def _watched_book(exchange: Any, market: str, updates: int) -> Any:
    ask = (MARKETS[market], DEEPEST[market])
    book = await exchange.watch_order_book(*ask)
    while book["timestamp"] is None:  # a snapshot of spot that no update has followed yet
        book = await exchange.watch_order_book(*ask)
    began_ms = book["timestamp"]
    # the library forgets levels beyond its depth, so half of its first levels are compared
    half = DEEPEST[market] // 2 if market == "um" else 0
    record = BookRecord(updates, book["bids"][half - 1][0], book["asks"][half - 1][0])
    while not record.is_full:
        book = await exchange.watch_order_book(*ask)
        # one call may return several updates; there is one each 100 ms
        passed = (book["timestamp"] - began_ms) // 100
        record.note(passed, book["nonce"], lambda book=book: (book["bids"], book["asks"]))
    return record.result()


@command
async def rotations(urls: dict[str, str], ends: list[str]) -> Any:
    """Watches aggTrades while connections are dropped, announced to end, and reach their life."""
    async with pointed(ccxt.pro.binance(), urls) as exchange:
        await exchange.load_markets()
        answers = await asyncio.gather(*(_rotated(exchange, urls, name, ends) for name in MARKETS))
        return dict(zip(MARKETS, answers, strict=True))


async def _rotated(exchange: Any, urls: dict[str, str], market: str, ends: list[str]) -> Any:
    found: list[Any] = []
    notices: list[str] = []
    starts = []

    def connection() -> Any:
        place = urls[f"{market}_ws_url"].partition("//")[2]
        return next((one for url, one in exchange.clients.items() if place in url), None)

    async def more(*, until_end: bool) -> None:
        ended, wanted = len(notices), len(found) + 30
        before = connection()
        while len(notices) == ended if until_end else len(found) < wanted:
            try:
                news = await exchange.watch_trades(MARKETS[market], params={"name": "aggTrade"})
            except ccxt.NetworkError as error:
                notices.append(type(error).__name__)
                continue
            found.extend([trade["info"][key] for key in AGG_TRADE_KEYS] for trade in news)
            if until_end and connection() is not before:
                notices.append("replaced")  # it ended between two calls

    await more(until_end=False)
    for end in ends:
        # only current watchers receive the end
        ending = asyncio.create_task(end_connections(urls, market, end))
        await more(until_end=True)
        await ending
        starts.append(len(found))
        await more(until_end=False)
    return {"trades": found, "starts": starts, "notices": notices}


@command
def contracts(urls: dict[str, str], name: str, calls: list[list[Any]]) -> Any:
    """Results of unified methods of an exchange of ccxt: [name, arguments, parameters] each."""
    exchange = pointed(getattr(ccxt, name)(), urls)
    exchange.load_markets()
    return [getattr(exchange, method)(*args, params=params) for method, args, params in calls]


@command
def contract_markets(urls: dict[str, str], name: str) -> Any:
    """Each market by its unified symbol."""
    keys = ("id", "type", "linear", "inverse", "contractSize", "settle", "expiry", "active")
    markets = pointed(getattr(ccxt, name)(), urls).load_markets()
    return {symbol: {key: entry[key] for key in keys} for symbol, entry in markets.items()}


@command
async def contract_streams(urls: dict[str, str], wanted: int) -> Any:
    """Liquidations, mark prices and books of both futures markets."""
    found: dict[str, Any] = {}
    for name, symbol in (("binanceusdm", "BTC/USDT:USDT"), ("binancecoinm", "BTC/USD:BTC")):
        async with pointed(getattr(ccxt.pro, name)(), urls) as exchange:
            await exchange.load_markets()
            market = "um" if name == "binanceusdm" else "cm"
            watching = (
                _watched(exchange.watch_liquidations, symbol, wanted),
                _watched(exchange.watch_mark_price, symbol, wanted),
                _books(exchange, symbol, wanted),
            )
            kinds = ("liquidations", "marks", "books")
            for kind, rows in zip(kinds, await asyncio.gather(*watching), strict=True):
                found[f"{market} {kind}"] = rows
    return found


async def _watched(watch: Any, symbol: str, wanted: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < wanted:
        news = await watch(symbol)
        found += news if isinstance(news, list) else [news]
    return found


async def _books(exchange: Any, symbol: str, wanted: int) -> list[Any]:
    """Update ids and the best ten levels of each side.

    On COIN-M the library joins snapshot and updates by the rule of spot, which fails if ids were
    skipped between them; it says to call again.
    """
    found: list[Any] = []
    while len(found) < wanted:
        try:
            book = await exchange.watch_order_book(symbol)
        except ccxt.ChecksumError:
            continue
        # the library changes levels in place
        best = [[list(level) for level in book[side][:10]] for side in ("bids", "asks")]
        found.append([book["nonce"], *best])
    return found


if __name__ == "__main__":
    run()
