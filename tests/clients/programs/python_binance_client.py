"""python-binance: its paging of klines and aggTrades, sockets, depth cache."""

import asyncio
from decimal import Decimal
from typing import Any

from binance import (
    AsyncClient,
    BinanceSocketManager,
    Client,
    DepthCacheManager,
    FuturesDepthCacheManager,
)
from binance.enums import FuturesType, HistoricalKlinesType
from binance.exceptions import BinanceAPIException
from program import (
    AGG_TRADE_KEYS,
    BOOK_KEYS,
    DEEPEST,
    KLINE_KEYS,
    MINI_KEYS,
    WAIT_S,
    BookRecord,
    command,
    end_connections,
    run,
)

KLINES_TYPES = {"spot": HistoricalKlinesType.SPOT, "um": HistoricalKlinesType.FUTURES}


def point_at(urls: dict[str, str]) -> None:
    """The library's base URLs are class attributes."""
    for client in (Client, AsyncClient):
        client.API_URL = urls["spot_rest_url"] + "/api"
        client.FUTURES_URL = urls["um_rest_url"] + "/fapi"
        client.FUTURES_COIN_URL = urls["cm_rest_url"] + "/dapi"
        client.FUTURES_DATA_URL = urls["um_rest_url"] + "/futures/data"
        client.FUTURES_COIN_DATA_URL = urls["cm_rest_url"] + "/futures/data"
    BinanceSocketManager.STREAM_URL = urls["spot_ws_url"] + "/"
    BinanceSocketManager.FSTREAM_URL = urls["um_ws_url"] + "/"
    BinanceSocketManager.DSTREAM_URL = urls["cm_ws_url"] + "/"


@command
def klines(
    urls: dict[str, str], market: str, symbol: str, interval: str, start_ms: int, end_ms: int
) -> Any:
    point_at(urls)
    return Client().get_historical_klines(
        symbol, interval, start_ms, end_ms, klines_type=KLINES_TYPES[market]
    )


def _aggregates(client: Client, market: str, symbol: str, start_ms: int, end_ms: int) -> Any:
    hour = {"symbol": symbol, "startTime": start_ms, "endTime": end_ms, "limit": 1}
    if market == "spot":
        (first,) = client.get_aggregate_trades(**hour)
        # the iterator begins after the given id
        rows = client.aggregate_trade_iter(symbol, last_id=first["a"] - 1)
    else:
        (first,) = client.futures_aggregate_trades(**hour)
        rows = _futures_pages(client, symbol, first["a"])
    found = []
    for row in rows:
        if row["T"] >= end_ms:
            break
        found.append([row[key] for key in AGG_TRADE_KEYS])
    return found


def _futures_pages(client: Client, symbol: str, from_id: int) -> Any:
    while page := client.futures_aggregate_trades(symbol=symbol, fromId=from_id, limit=1_000):
        yield from page
        from_id = page[-1]["a"] + 1


@command
def trades(urls: dict[str, str], market: str, symbol: str, start_ms: int, end_ms: int) -> Any:
    """All aggTrades of a span and all fills of it, both page by page by their ids."""
    point_at(urls)
    client = Client(api_key="any")  # USD-M gives historicalTrades to holders of a key alone
    aggregates = _aggregates(client, market, symbol, start_ms, end_ms)
    ask = client.get_historical_trades if market == "spot" else client.futures_historical_trades
    fills: list[Any] = []
    next_id = aggregates[0][3]
    while not fills or fills[-1][3] < end_ms:
        page = ask(symbol=symbol, fromId=next_id, limit=500)
        fills += [[row["id"], row["price"], row["qty"], row["time"]] for row in page]
        next_id = page[-1]["id"] + 1
    return {"aggregates": aggregates, "fills": [row for row in fills if row[3] < end_ms]}


@command
def listings(urls: dict[str, str]) -> Any:
    point_at(urls)
    client = Client()
    found = {}
    spot = [client.get_symbol_info(entry["symbol"]) for entry in _symbols(client)]
    for market, entries in (("spot", spot), ("um", client.futures_exchange_info()["symbols"])):
        for entry in entries:
            filters = {item["filterType"]: item for item in entry["filters"]}
            found[f"{market} {entry['symbol']}"] = [
                entry["baseAsset"],
                entry["quoteAsset"],
                filters["PRICE_FILTER"]["tickSize"],
                filters["LOT_SIZE"]["stepSize"],
            ]
    return found


def _symbols(client: Client) -> Any:
    return client.get_exchange_info()["symbols"]


@command
def quotes(urls: dict[str, str]) -> Any:
    """Best bid and ask with their quantities, and the last price, of all symbols."""
    point_at(urls)
    client = Client()
    tables = {
        "spot": (client.get_orderbook_tickers(), client.get_all_tickers()),
        "um": (client.futures_orderbook_ticker(), client.futures_symbol_ticker()),
    }
    found = {}
    for market, (books, prices) in tables.items():
        last = {row["symbol"]: row["price"] for row in prices}
        for row in books:
            best = [row[name] for name in ("bidPrice", "bidQty", "askPrice", "askQty")]
            found[f"{market} {row['symbol']}"] = [*best, last[row["symbol"]]]
    return found


@command
def errors(urls: dict[str, str]) -> Any:
    point_at(urls)
    client = Client()
    seen = {
        "invalid symbol": _refused(client, client.get_klines, symbol="NOPEUSDT", interval="1m"),
        "invalid interval": _refused(client, client.get_klines, symbol="BTCUSDT", interval="7m"),
        "futures limit": _refused(
            client, client.futures_klines, symbol="BTCUSDT", interval="1m", limit=5_000
        ),
    }
    used = []
    for _ in range(2):
        client.get_klines(symbol="BTCUSDT", interval="1m", limit=1)
        used.append(int(client.response.headers["X-MBX-USED-WEIGHT-1M"]))
    seen["weight of klines"] = used[1] - used[0]
    while "refusal" not in seen or seen["refusal"]["status"] == 429:
        answer = _refused(client, client.get_exchange_info, tolerated=True)
        if answer is not None:
            seen.setdefault("too much weight", answer)
            seen["refusal"] = answer
    seen["ban"] = seen.pop("refusal")
    return seen


def _refused(client: Client, ask: Any, *, tolerated: bool = False, **query: Any) -> Any:
    try:
        ask(**query)
    except BinanceAPIException as error:
        retry_after = client.response.headers.get("Retry-After")
        return {
            "class": type(error).__name__,
            "code": error.code,
            "status": error.status_code,
            "retry_after": None if retry_after is None else int(retry_after),
        }
    if not tolerated:
        raise AssertionError(f"not refused: {query}")
    return None


@command
async def streams(urls: dict[str, str], closed: int) -> Any:
    """A combined socket of each market concurrently, until a number of klines has closed."""
    point_at(urls)
    client = await AsyncClient.create()
    answers = await asyncio.gather(*(_streamed(client, market, closed) for market in KLINES_TYPES))
    await client.close_connection()
    return dict(zip(KLINES_TYPES, answers, strict=True))


def _combined(client: AsyncClient, market: str, names: list[str]) -> Any:
    sockets = BinanceSocketManager(client, max_queue_size=100_000)
    if market == "spot":
        return sockets.multiplex_socket(names)
    return sockets.futures_multiplex_socket(names)


async def _streamed(client: AsyncClient, market: str, closed: int) -> Any:
    names = ["btcusdt@aggTrade", "ethusdt@aggTrade", "btcusdt@kline_1m"]
    found: dict[str, list[Any]] = {name: [] for name in names}
    async with _combined(client, market, names) as socket:
        while sum(row["x"] for row in found["btcusdt@kline_1m"]) < closed:
            message = await socket.recv()
            data = message["data"]
            found[message["stream"]].append(data.get("k", data))
    return {
        "trades": {
            symbol: [[row[key] for key in AGG_TRADE_KEYS] for row in found[f"{symbol}@aggTrade"]]
            for symbol in ("btcusdt", "ethusdt")
        },
        "klines": [
            [row[key] for key in KLINE_KEYS] for row in found["btcusdt@kline_1m"] if row["x"]
        ],
    }


@command
async def rotations(urls: dict[str, str], ends: list[str]) -> Any:
    """Combined sockets that are dropped, announced to end, and reach their life."""
    point_at(urls)
    client = await AsyncClient.create()
    answers = await asyncio.gather(
        *(_rotated(client, urls, market, ends) for market in KLINES_TYPES)
    )
    await client.close_connection()
    return dict(zip(KLINES_TYPES, answers, strict=True))


async def _rotated(client: AsyncClient, urls: dict[str, str], market: str, ends: list[str]) -> Any:
    found: list[Any] = []
    notices: list[str] = []
    starts = []
    async with _combined(client, market, ["btcusdt@aggTrade"]) as socket:

        async def more(*, until_end: bool) -> None:
            ended, wanted = len(notices), len(found) + 30
            while len(notices) == ended if until_end else len(found) < wanted:
                message = await socket.recv()
                if message.get("e") == "error":
                    notices.append(message["type"])
                elif message["stream"] != "!serverShutdown":
                    found.append([message["data"][key] for key in AGG_TRADE_KEYS])

        await more(until_end=False)
        for end in ends:
            await end_connections(urls, market, end)
            await more(until_end=True)
            starts.append(len(found))
            await more(until_end=False)
    return {"trades": found, "starts": starts, "notices": notices}


@command
async def tops(urls: dict[str, str], wanted: int) -> Any:
    """Book tickers and mini tickers of each market."""
    point_at(urls)
    client = await AsyncClient.create()
    answers = await asyncio.gather(*(_topped(client, market, wanted) for market in KLINES_TYPES))
    await client.close_connection()
    return dict(zip(KLINES_TYPES, answers, strict=True))


async def _topped(client: AsyncClient, market: str, wanted: int) -> Any:
    sockets = BinanceSocketManager(client, max_queue_size=100_000)
    if market == "spot":
        book, mini = (sockets.symbol_book_ticker_socket("BTCUSDT"),
                      sockets.symbol_miniticker_socket("BTCUSDT"))  # fmt: skip
    else:
        book = sockets.symbol_ticker_futures_socket("BTCUSDT")  # which is its name for bookTicker
        mini = sockets.futures_multiplex_socket(["btcusdt@miniTicker"])
    found: dict[str, list[Any]] = {"book": [], "mini": []}
    async with book, mini:
        for name, socket, keys in (("book", book, BOOK_KEYS), ("mini", mini, MINI_KEYS)):
            while len(found[name]) < wanted:
                message = await socket.recv()
                data = message.get("data", message)
                found[name].append([data[key] for key in keys])
    return found


@command
async def books(urls: dict[str, str], updates: int) -> Any:
    """The depth cache of spot; the one of futures is no local book, it holds the last frame."""
    point_at(urls)
    client = await AsyncClient.create()
    cache = DepthCacheManager(
        client, "BTCUSDT", refresh_interval=0, limit=DEEPEST["spot"], ws_interval=100,
        conv_type=Decimal, bm=BinanceSocketManager(client, max_queue_size=100_000),
    )  # fmt: skip
    async with cache:
        book = await cache.recv()
        record = BookRecord(updates, book.get_bids()[-1][0], book.get_asks()[-1][0])
        while not record.is_full:
            book = await cache.recv()
            # the id is private to the library; it is only read
            last_id = cache._last_update_id
            record.note(
                record.updates + 1, last_id, lambda book=book: (book.get_bids(), book.get_asks())
            )
    await client.close_connection()
    return {"spot": record.result()}


@command
def contracts(urls: dict[str, str], calls: list[list[Any]]) -> Any:
    """The answers of methods about futures: [name, parameters] each."""
    point_at(urls)
    client = Client(api_key="any")
    return [getattr(client, name)(**params) for name, params in calls]


@command
async def contract_streams(urls: dict[str, str], wanted: int) -> Any:
    """Frames of sockets of both futures markets, and the depth cache of USD-M beside its socket."""
    point_at(urls)
    client = await AsyncClient.create()
    sockets = BinanceSocketManager(client, max_queue_size=100_000)
    usd, coin = FuturesType.USD_M, FuturesType.COIN_M
    opened = {
        "um liquidations": sockets.futures_multiplex_socket(["btcusdt@forceOrder"], usd),
        "cm liquidations": sockets.futures_multiplex_socket(["btcusd_perp@forceOrder"], coin),
        "um marks": sockets.symbol_mark_price_socket("BTCUSDT", fast=True, futures_type=usd),
        "cm marks": sockets.symbol_mark_price_socket("BTCUSD_PERP", fast=True, futures_type=coin),
        "cm pair": sockets.symbol_mark_price_socket("BTCUSD", fast=True, futures_type=coin),
        "cm index": sockets.index_price_socket("BTCUSD", fast=True),
        "cm klines": sockets.futures_multiplex_socket(
            ["btcusd_perp@markPriceKline_1m", "btcusd@indexPriceKline_1m"], coin
        ),
        "um depth": sockets.futures_depth_socket("BTCUSDT", futures_type=usd),
        "cm depth": sockets.futures_depth_socket("BTCUSD_PERP", futures_type=coin),
    }
    # one manager has one socket for a stream
    own = BinanceSocketManager(client, max_queue_size=100_000)
    cache = FuturesDepthCacheManager(client, "BTCUSDT", refresh_interval=0, bm=own)
    found = dict(
        zip(
            [*opened, "um cache"],
            await asyncio.gather(
                *(_received(socket, wanted) for socket in opened.values()),
                _cached(cache, wanted),
            ),
            strict=True,
        )
    )
    await client.close_connection()
    return found


async def _received(socket: Any, wanted: int) -> list[Any]:
    found: list[Any] = []
    async with socket:
        while len(found) < wanted:
            message = await asyncio.wait_for(socket.recv(), WAIT_S)
            found.append(message.get("data", message))
    return found


async def _cached(manager: FuturesDepthCacheManager, wanted: int) -> list[Any]:
    """The cache's time, which is the frame's, its bids and its asks."""
    found: list[Any] = []
    async with manager:
        while len(found) < wanted:
            cache = await asyncio.wait_for(manager.recv(), WAIT_S)
            found.append([cache.update_time, cache._bids, cache._asks])
    return found


if __name__ == "__main__":
    run()
