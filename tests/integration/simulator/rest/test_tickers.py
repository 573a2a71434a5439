"""Prices, statistics and books by REST, compared with their trades."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

CONFIG = SimulatorConfig(
    start=datetime(2025, 1, 2, tzinfo=UTC),
    clock_start=datetime(2025, 1, 4, 12, 0, 30, 123_456, tzinfo=UTC),
    speed=0,
    rest_trade_lag_ms=0,
    rest_kline_lag_ms=0,
    spot_symbols=("ETHBTC", "COSUSDT", "BTCUSDT"),
    um_symbols=("KEEPUSDT", "BTCUSDT"),
)
NOW_MS = 1_735_992_030_123
PREFIXES = ("/api/v3", "/fapi/v1")


def _get(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _code(client: httpx.Client, path: str, **query: Any) -> int:
    answer = client.get(path, params=query)
    assert answer.status_code == 400
    return int(answer.json()["code"])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_price_is_the_last_trades(client: httpx.Client, prefix: str) -> None:
    (last,) = _get(client, f"{prefix}/aggTrades", symbol="BTCUSDT", limit=1)
    row = _get(client, f"{prefix}/ticker/price", symbol="BTCUSDT")
    assert row == {"symbol": "BTCUSDT", "price": last["p"]} | (
        {} if prefix == "/api/v3" else {"time": last["T"]}
    )
    every = _get(client, f"{prefix}/ticker/price")
    assert row in every
    assert len(every) > 1


def test_second_version_of_futures_prices_is_served_too(client: httpx.Client) -> None:
    query = {"symbol": "KEEPUSDT"}
    assert _get(client, "/fapi/v2/ticker/price", **query) == _get(
        client, "/fapi/v1/ticker/price", **query
    )


@pytest.mark.parametrize("prefix", PREFIXES)
def test_book_ticker_surrounds_the_last_price(client: httpx.Client, prefix: str) -> None:
    row = _get(client, f"{prefix}/ticker/bookTicker", symbol="BTCUSDT")
    price = Decimal(_get(client, f"{prefix}/ticker/price", symbol="BTCUSDT")["price"])
    assert Decimal(row["bidPrice"]) < Decimal(row["askPrice"])
    assert Decimal(row["bidPrice"]) <= price <= Decimal(row["askPrice"])
    assert Decimal(row["bidQty"]) > 0 < Decimal(row["askQty"])
    assert ("time" in row) == (prefix == "/fapi/v1")
    assert {one["symbol"] for one in _get(client, f"{prefix}/ticker/bookTicker")} >= {"BTCUSDT"}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_statistics_of_a_day_follow_from_its_trades_and_the_book(
    exchange: ExchangeThread, client: httpx.Client, prefix: str
) -> None:
    symbol = "ETHBTC" if prefix == "/api/v3" else "KEEPUSDT"
    market = exchange.markets["spot" if prefix == "/api/v3" else "um"]
    row = _get(client, f"{prefix}/ticker/24hr", symbol=symbol)
    assert row["closeTime"] == NOW_MS // 1_000 * 1_000
    since_minute_ms = 0 if prefix == "/api/v3" else 30_000  # futures windows open on the minute
    assert row["closeTime"] - row["openTime"] == 86_400_000 + since_minute_ms
    history = market.history(symbol)
    first = history.agg_id_from(row["openTime"] * 1_000)
    trades = history.orders_by_id(first, history.agg_id_from(row["closeTime"] * 1_000 + 1))
    show = history.instrument.format_price
    assert row["openPrice"] == show(int(trades.price[0]))
    assert row["lastPrice"] == show(int(trades.price[-1]))
    assert row["highPrice"] == show(int(trades.price.max()))
    assert row["lowPrice"] == show(int(trades.price.min()))
    assert row["volume"] == history.instrument.format_quantity(int(trades.quantity.sum()))
    assert row["quoteVolume"] == history.instrument.format_quote(int(trades.quote.sum()))
    assert row["count"] == int(trades.fills.sum())
    assert (row["firstId"], row["lastId"]) == (trades.first_id[0], trades.last_id[-1])
    assert Decimal(row["priceChange"]) == Decimal(row["lastPrice"]) - Decimal(row["openPrice"])
    mean = Decimal(row["quoteVolume"]) / Decimal(row["volume"])
    assert abs(mean - Decimal(row["weightedAvgPrice"])) < Decimal("0.0001")
    if prefix == "/api/v3":
        before = history.orders_by_id(first - 1, first)
        assert row["prevClosePrice"] == show(int(before.price[0]))
        best = _get(client, "/api/v3/ticker/bookTicker", symbol=symbol)
        assert {name: row[name] for name in best} == best
        trades = _get(client, "/api/v3/historicalTrades", symbol=symbol, fromId=row["lastId"])
        assert trades[0]["qty"] == row["lastQty"]


def test_premium_index_has_mark_price_and_funding(client: httpx.Client) -> None:
    row = _get(client, "/fapi/v1/premiumIndex", symbol="BTCUSDT")
    price = Decimal(_get(client, "/fapi/v1/ticker/price", symbol="BTCUSDT")["price"])
    assert abs(Decimal(row["markPrice"]) / price - 1) < Decimal("0.01")
    assert abs(Decimal(row["markPrice"]) / Decimal(row["indexPrice"]) - 1) <= Decimal("0.0005")
    assert row["time"] < row["nextFundingTime"] <= row["time"] + 8 * 3_600_000
    assert row["nextFundingTime"] % (8 * 3_600_000) == 0
    assert row in _get(client, "/fapi/v1/premiumIndex")


def test_mini_statistics_have_fewer_fields(client: httpx.Client) -> None:
    full = _get(client, "/api/v3/ticker/24hr", symbol="ETHBTC")
    mini = _get(client, "/api/v3/ticker/24hr", symbol="ETHBTC", type="MINI")
    assert set(mini) < set(full)
    assert {name: full[name] for name in mini} == mini
    assert "weightedAvgPrice" not in mini
    assert _code(client, "/api/v3/ticker/24hr", symbol="ETHBTC", type="SHORT") == -1130


@pytest.mark.parametrize(("size", "minutes"), [("1m", 1), ("59m", 59), ("23h", 1_380)])
def test_window_covers_its_minutes_up_to_now(client: httpx.Client, size: str, minutes: int) -> None:
    row = _get(client, "/api/v3/ticker", symbol="ETHBTC", windowSize=size)
    assert row["closeTime"] == NOW_MS
    assert row["openTime"] == NOW_MS // 60_000 * 60_000 - minutes * 60_000
    klines = _get(client, "/sim/klines", symbol="ETHBTC", startTime=row["openTime"])
    assert len(klines) == minutes + 1
    assert row["count"] == sum(bar[8] for bar in klines)
    assert Decimal(row["quoteVolume"]) == sum(Decimal(bar[7]) for bar in klines)
    mini = _get(client, "/api/v3/ticker", symbols='["ETHBTC"]', windowSize=size, type="MINI")
    assert mini == [{name: row[name] for name in mini[0]}]


@pytest.mark.parametrize("size", ["0m", "60m", "24h", "8d", "1w", "h", "1"])
def test_other_windows_are_refused(client: httpx.Client, size: str) -> None:
    assert _code(client, "/api/v3/ticker", symbol="ETHBTC", windowSize=size) == -1130


def test_average_price_is_quote_over_volume_of_five_minutes(client: httpx.Client) -> None:
    row = _get(client, "/api/v3/avgPrice", symbol="ETHBTC")
    trades = _get(client, "/api/v3/aggTrades", symbol="ETHBTC", limit=1_000,
                  startTime=NOW_MS // 60_000 * 60_000 - 5 * 60_000, endTime=NOW_MS)  # fmt: skip
    prices = [Decimal(trade["p"]) for trade in trades]
    assert row["mins"] == 5
    assert row["closeTime"] == trades[-1]["T"]
    assert min(prices) <= Decimal(row["price"]) <= max(prices)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("limit", [5, 100, 1_000])
def test_book_has_its_best_levels_and_an_update_id(
    client: httpx.Client, prefix: str, limit: int
) -> None:
    row = _get(client, f"{prefix}/depth", symbol="BTCUSDT", limit=limit)
    bids = [Decimal(price) for price, _ in row["bids"]]
    asks = [Decimal(price) for price, _ in row["asks"]]
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert bids[0] < asks[0]
    assert len(bids) <= limit
    assert len(bids) == len(asks) == limit or limit == 1_000
    assert all(Decimal(quantity) > 0 for _, quantity in row["bids"] + row["asks"])
    if prefix == "/fapi/v1":
        assert list(row) == ["lastUpdateId", "E", "T", "bids", "asks"]
        assert row["T"] <= row["E"] == NOW_MS
    else:
        assert list(row) == ["lastUpdateId", "bids", "asks"]


def test_book_of_few_levels_is_the_top_of_a_book_of_many(client: httpx.Client) -> None:
    few = _get(client, "/api/v3/depth", symbol="ETHBTC", limit=20)
    many = _get(client, "/api/v3/depth", symbol="ETHBTC", limit=5_000)
    assert few["lastUpdateId"] == many["lastUpdateId"]
    assert few["bids"] == many["bids"][:20]
    assert few["asks"] == many["asks"][:20]
    assert len(_get(client, "/api/v3/depth", symbol="ETHBTC")["bids"]) == 100


@pytest.mark.parametrize(("market", "prefix"), [("spot", "/api/v3"), ("um", "/fapi/v1")])
def test_oracle_knows_all_levels_at_an_update_id(
    client: httpx.Client, market: str, prefix: str
) -> None:
    book = _get(client, f"{prefix}/depth", symbol="BTCUSDT", limit=1_000)
    query = {"market": market, "symbol": "BTCUSDT"}
    whole = _get(client, "/sim/depth", **query, updateId=book["lastUpdateId"])
    assert whole["lastUpdateId"] == book["lastUpdateId"]
    assert whole["bids"][:1_000] == book["bids"]
    assert whole["asks"][:1_000] == book["asks"]
    assert _get(client, "/sim/depth", **query) == whole
    before = _get(client, "/sim/depth", **query, updateId=book["lastUpdateId"] - 5_000)
    assert before["lastUpdateId"] < whole["lastUpdateId"]
    assert before["bids"] != whole["bids"]


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/api/v3/depth", {}, -1102),
        ("/api/v3/depth", {"symbol": "NOSUCH"}, -1121),
        ("/api/v3/depth", {"symbol": "ETHBTC", "limit": 0}, -1130),
        ("/api/v3/depth", {"symbol": "ETHBTC", "symbolStatus": "HALT"}, -1220),
        ("/fapi/v1/depth", {"symbol": "KEEPUSDT", "limit": 7}, -1130),
        ("/api/v3/ticker/price", {"symbol": "ETHBTC", "symbols": '["ETHBTC"]'}, -1128),
        ("/api/v3/ticker/price", {"symbols": '["NOSUCH"]'}, -1121),
        ("/api/v3/avgPrice", {}, -1102),
    ],
)
def test_bad_requests_get_the_exchanges_error_code(
    client: httpx.Client, path: str, query: dict[str, Any], code: int
) -> None:
    assert _code(client, path, **query) == code


def test_limit_of_symbols_selects_tickers(client: httpx.Client) -> None:
    rows = _get(client, "/api/v3/ticker/price", symbols='["ETHBTC","COSUSDT"]')
    assert [row["symbol"] for row in rows] == ["ETHBTC", "COSUSDT"]
    assert _get(client, "/api/v3/ticker/price", symbolStatus="HALT") == []
