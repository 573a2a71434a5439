"""Futures through the libraries: series, statistics and dated contracts of USD-M and COIN-M."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.clock import SECOND_US
from simulator.market.derivatives.price_klines import PriceName
from simulator.market.intervals import parse_interval
from simulator.server import ExchangeThread
from simulator.wire.derivatives import price_kline_row, price_text
from tests.clients.exchanges import (
    MINUTE_MS,
    NOON_MS,
    ROUTES,
    contracts_config,
    control_answer,
    true_agg_trades,
    true_klines,
)

Client = Callable[..., Any]

HOUR_MS = 60 * MINUTE_MS
SYMBOLS = {"um": "BTCUSDT", "cm": "BTCUSD_PERP"}
PAIRS = {"um": "BTCUSDT", "cm": "BTCUSD"}
DATED = {"um": "BTCUSDT_250328", "cm": "BTCUSD_250328"}
NAMES = {"um": "binanceusdm", "cm": "binancecoinm"}
UNIFIED = {"um": "BTC/USDT:USDT", "cm": "BTC/USD:BTC"}
SPEED = 60

of_python_binance = pytest.mark.parametrize("library", ["python_binance"], indirect=True)
of_ccxt = pytest.mark.parametrize("library", ["ccxt"], indirect=True)
each_market = pytest.mark.parametrize("market", ["um", "cm"])


def rest(exchange: ExchangeThread, market: str, name: str, **query: Any) -> Any:
    """The simulator's own answer."""
    root = "" if name.startswith("/") else f"{ROUTES[market]}/"
    return control_answer(exchange, root + name, **query)


# --- python-binance

SHARED = {
    "exchange_info": ("exchangeInfo", {}),
    "order_book": ("depth", {"symbol": 0, "limit": 100}),
    "recent_trades": ("trades", {"symbol": 0, "limit": 50}),
    "aggregate_trades": ("aggTrades", {"symbol": 0, "limit": 50}),
    "klines": ("klines", {"symbol": 0, "interval": "1m", "limit": 10}),
    "mark_price_klines": ("markPriceKlines", {"symbol": 0, "interval": "1h", "limit": 5}),
    "index_price_klines": ("indexPriceKlines", {"pair": 1, "interval": "1h", "limit": 5}),
    "premium_index_klines": ("premiumIndexKlines", {"symbol": 0, "interval": "1h", "limit": 5}),
    "mark_price": ("premiumIndex", {"symbol": 0}),
    "funding_rate": ("fundingRate", {"symbol": 0, "limit": 20}),
    "ticker": ("ticker/24hr", {"symbol": 2}),
    "symbol_ticker": ("ticker/price", {"symbol": 2}),
    "orderbook_ticker": ("ticker/bookTicker", {"symbol": 2}),
    "open_interest": ("openInterest", {"symbol": 0}),
    "v1_get_funding_info": ("fundingInfo", {}),
    "top_longshort_account_ratio": ("/futures/data/topLongShortAccountRatio", {"of": 0}),
    "top_longshort_position_ratio": ("/futures/data/topLongShortPositionRatio", {"of": 0}),
    "global_longshort_ratio": ("/futures/data/globalLongShortAccountRatio", {"of": 0}),
    "open_interest_hist": ("/futures/data/openInterestHist", {"of": 1}),
    "basis": ("/futures/data/basis", {"of": 2}),
}
OWN = {
    "um": {
        "continuous_klines": ("continuousKlines", {"pair": 1, "of": 3}),
        "taker_longshort_ratio": ("/futures/data/takerlongshortRatio", {"of": 0}),
        "delivery_price": ("/futures/data/delivery-price", {"pair": 1}),
    },
    "cm": {
        "continous_klines": ("continuousKlines", {"pair": 1, "of": 3}),
        "taker_buy_sell_volume": ("/futures/data/takerBuySellVol", {"of": 1}),
    },
}
"""Methods after `futures_` or `futures_coin_`: endpoint and parameters, with places for names."""


def parameters(market: str, template: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a method, with the names of the market."""
    names = (SYMBOLS[market], PAIRS[market], DATED[market])
    query = {
        key: names[value] if key in ("symbol", "pair") else value
        for key, value in template.items()
        if key != "of"
    }
    match template.get("of"):
        case 0:  # a symbol on USD-M, a pair on COIN-M
            named = {"symbol": names[0]} if market == "um" else {"pair": names[1]}
            return named | {"period": "5m", "limit": 12}
        case 1:
            named = {"symbol": names[0]}
            if market == "cm":
                named = {"pair": names[1], "contractType": "ALL"}
            return named | {"period": "5m", "limit": 12}
        case 2:
            return {"pair": names[1], "contractType": "CURRENT_QUARTER", "period": "1h"}
        case 3:
            return query | {"contractType": "NEXT_QUARTER", "interval": "15m", "limit": 7}
    return query


@of_python_binance
@each_market
def test_methods_of_python_binance_return_the_answers_of_rest(
    client: Client, contracts: ExchangeThread, market: str
) -> None:
    prefix = "futures_" if market == "um" else "futures_coin_"
    table = SHARED | OWN[market]
    calls = [[prefix + name, parameters(market, template)] for name, (_, template) in table.items()]
    found = client(contracts, "contracts", calls=calls)
    for (name, query), (path, _), answer in zip(calls, table.values(), found, strict=True):
        own = rest(contracts, market, path, **query)
        assert answer == own, name
        assert answer or name.endswith("funding_info"), name


@of_python_binance
def test_sockets_of_python_binance_have_the_values_of_the_oracle(client: Client) -> None:
    with ExchangeThread(contracts_config(speed=SPEED)) as exchange:
        found = client(exchange, "contract_streams", wanted=20)
        for market, symbol in SYMBOLS.items():
            assert_liquidations(
                exchange, market, [row["o"] for row in found[f"{market} liquidations"]]
            )
            for frame in found[f"{market} marks"]:
                assert_mark(exchange, market, symbol, frame["E"], frame["p"], frame["i"])
                assert frame["s"] == symbol
            for frame in found[f"{market} depth"]:
                assert_top(exchange, market, frame["u"], frame["b"], frame["a"])
        for frame in found["cm pair"]:
            assert [one["s"] for one in frame][:2] == [SYMBOLS["cm"], DATED["cm"]]
            for one in frame:
                assert_mark(exchange, "cm", one["s"], one["E"], one["p"], one["i"])
        for frame in found["cm index"]:
            assert_mark(exchange, "cm", SYMBOLS["cm"], frame["E"], None, frame["p"])
        for frame in found["cm klines"]:
            assert_price_kline(exchange, frame)
        frames = {frame["E"]: [frame["b"], frame["a"]] for frame in found["um depth"]}
        cached = {row[0]: row[1:] for row in found["um cache"]}
        both = frames.keys() & cached.keys()
        assert both
        assert {time: frames[time] for time in both} == {time: cached[time] for time in both}


# --- what the oracle says


def assert_liquidations(exchange: ExchangeThread, market: str, rows: list[Any]) -> None:
    """Rows are the liquidations of a time, none missing between them."""
    own = control_answer(
        exchange, "/sim/liquidations", market=market, symbol=SYMBOLS[market],
        startTime=rows[0]["T"], endTime=rows[-1]["T"],
    )  # fmt: skip
    assert rows == own


def assert_mark(
    exchange: ExchangeThread, market: str, symbol: str, time_ms: int, mark: Any, index: Any
) -> None:
    """Texts of mark and index price are those of the second of a frame."""
    series = exchange.markets[market].derivatives(symbol)
    true = series.mark_price(time_ms * 1_000 // SECOND_US * SECOND_US)
    assert mark in (None, price_text(true.mark))
    assert index == price_text(true.index_price)


def numbers(levels: list[Any]) -> list[list[Decimal]]:
    """Prices and quantities, which ccxt has as floats."""
    return [[Decimal(str(number)).normalize() for number in level] for level in levels]


def assert_top(
    exchange: ExchangeThread, market: str, update_id: int, bids: list[Any], asks: list[Any]
) -> None:
    """Ten levels a side equal the oracle's book at an update id."""
    own = control_answer(
        exchange, "/sim/depth", market=market, symbol=SYMBOLS[market], updateId=update_id
    )
    for side, levels in (("bids", bids), ("asks", asks)):
        assert len(levels) == 10
        assert numbers(levels) == numbers(own[side][:10])


def assert_price_kline(exchange: ExchangeThread, frame: dict[str, Any]) -> None:
    """A kline frame has the values up to its second."""
    kline = frame["k"]
    name: PriceName = "mark" if frame["e"] == "markPrice_kline" else "index"
    end_us = kline["T"] * 1_000 if kline["x"] else frame["E"] * 1_000 // SECOND_US * SECOND_US
    open_us = kline["t"] * 1_000
    (true,) = exchange.markets["cm"].derivatives(SYMBOLS["cm"]).klines(
        name, parse_interval(kline["i"]), open_us, open_us, view_us=end_us
    )  # fmt: skip
    assert [kline[key] for key in ("t", "o", "h", "l", "c")] == price_kline_row(true)[:5]


# --- ccxt


@of_ccxt
@pytest.mark.parametrize("name", ["binance", "binanceusdm", "binancecoinm"])
def test_ccxt_lists_perpetual_and_dated_contracts(
    client: Client, contracts: ExchangeThread, name: str
) -> None:
    markets = client(contracts, "contract_markets", name=name)
    for market, suffix in (("um", "/USDT:USDT"), ("cm", "/USD:BTC")):
        if name == NAMES["cm" if market == "um" else "um"]:
            assert all(entry["linear" if market == "um" else "inverse"] is not True
                       for entry in markets.values())  # fmt: skip
            continue
        info = rest(contracts, market, "exchangeInfo")["symbols"]
        own = [
            entry for entry in markets.values() if entry["inverse" if market == "cm" else "linear"]
        ]
        assert {entry["id"] for entry in own} == {row["symbol"] for row in info}
        dated = markets[f"BTC{suffix}-250328"]
        (row,) = [row for row in info if row["symbol"] == DATED[market]]
        assert (dated["id"], dated["type"]) == (DATED[market], "future")
        assert dated["expiry"] == row["deliveryDate"]
        assert dated["contractSize"] == ("100" if market == "cm" else "1")
        assert markets[f"BTC{suffix}"]["type"] == "swap"


@of_ccxt
@each_market
def test_unified_series_equal_rest(client: Client, contracts: ExchangeThread, market: str) -> None:
    symbol, pair, unified = SYMBOLS[market], PAIRS[market], UNIFIED[market]
    since = NOON_MS - 40 * HOUR_MS
    calls = [
        ["fetch_ohlcv", [unified, "1h", None, 30], {"price": "mark"}],
        ["fetch_ohlcv", [unified, "1h", None, 30], {"price": "index"}],
        ["fetch_ohlcv", [unified, "1h", None, 30], {"price": "premiumIndex"}],
        ["fetch_funding_rate_history", [unified, since, 100], {}],
        ["fetch_funding_rate", [unified], {}],
        ["fetch_funding_rates", [None], {}],
        ["fetch_funding_intervals", [None], {}],
        ["fetch_open_interest", [unified], {}],
        ["fetch_open_interest_history", [unified, "5m", since, 20], {}],
        ["fetch_open_interest_history", [f"{unified}-250328", "5m", None, 20], {}],
        ["fetch_long_short_ratio_history", [unified, "1h", None, 20], {}],
        ["fetch_order_book", [unified, 100], {}],
        ["fetch_tickers", [None], {}],
    ]
    found = client(contracts, "contracts", name=NAMES[market], calls=calls)
    klines, by_symbol, by_pair = found[:3], {"symbol": symbol}, {"pair": pair}
    endpoints = (("mark", by_symbol), ("index", by_pair), ("premiumIndex", by_symbol))
    for rows, (price, named) in zip(klines, endpoints, strict=True):
        name = "premiumIndexKlines" if price == "premiumIndex" else f"{price}PriceKlines"
        own = rest(contracts, market, name, **named, interval="1h", limit=30)
        assert [row[:5] for row in rows] == [row[:5] for row in own]

    settled = rest(contracts, market, "fundingRate", symbol=symbol, startTime=since)
    assert len(settled) >= 5
    assert [[row["timestamp"], row["fundingRate"]] for row in found[3]] == [
        [row["fundingTime"], row["fundingRate"]] for row in settled
    ]
    current = rest(contracts, market, "premiumIndex")
    marks = {row["symbol"]: row for row in current}
    keys = ("markPrice", "indexPrice", "estimatedSettlePrice")
    for row in (found[4], *found[5].values()):
        own = marks[row["info"]["symbol"]]
        assert [row[key] for key in keys] == [own[key] for key in keys]
        assert row["fundingRate"] == (own["lastFundingRate"] or None)
        assert row["fundingTimestamp"] == own["nextFundingTime"]
    infos = rest(contracts, market, "fundingInfo")
    assert {row["info"]["symbol"]: row["interval"] for row in found[6].values()} == {
        row["symbol"]: f"{row['fundingIntervalHours']}h" for row in infos
    }
    assert (
        found[7]["openInterestAmount"]
        == (rest(contracts, market, "openInterest", symbol=symbol)["openInterest"])
    )
    for rows, name, kind in (
        (found[8], symbol, "PERPETUAL"), (found[9], DATED[market], "CURRENT_QUARTER"),
    ):  # fmt: skip
        named = {"symbol": name} if market == "um" else by_pair | {"contractType": kind}
        times = {"startTime": rows[0]["timestamp"], "limit": 20}
        own = rest(contracts, market, "/futures/data/openInterestHist", **named, period="5m",
                   **times)  # fmt: skip
        assert [[row["timestamp"], row["openInterestAmount"], row["openInterestValue"]]
                for row in rows] == [
            [row["timestamp"], row["sumOpenInterest"], row["sumOpenInterestValue"]] for row in own
        ]  # fmt: skip
        assert len(rows) == 20
    own = rest(contracts, market, "/futures/data/globalLongShortAccountRatio", period="1h",
               limit=20, **(by_symbol if market == "um" else by_pair))  # fmt: skip
    assert [[row["timestamp"], row["longShortRatio"]] for row in found[10]] == [
        [row["timestamp"], row["longShortRatio"]] for row in own
    ]
    book = rest(contracts, market, "depth", symbol=symbol, limit=100)
    assert found[11]["nonce"] == book["lastUpdateId"]
    assert numbers(found[11]["bids"]) == numbers(book["bids"])
    assert numbers(found[11]["asks"]) == numbers(book["asks"])
    tickers = {row["symbol"]: row for row in rest(contracts, market, "ticker/24hr")}
    assert {row["info"]["symbol"] for row in found[12].values()} == set(tickers)
    for row in found[12].values():
        own = tickers[row["info"]["symbol"]]
        assert [row[key] for key in ("last", "high", "low", "open")] == [
            own[key] for key in ("lastPrice", "highPrice", "lowPrice", "openPrice")
        ]


@of_ccxt
def test_freqtrade_s_calls_equal_rest(client: Client, contracts: ExchangeThread) -> None:
    """What `freqtrade download-data --trading-mode futures` asks for a pair, page by page.

    freqtrade itself is not installed: one of its dependencies has no wheel.
    """
    symbol, unified, since = "KEEPUSDT", "KEEP/USDT:USDT", NOON_MS - 3_000 * MINUTE_MS
    calls = [
        ["fetch_ohlcv", [unified, "1m", since, 1_000], {}],
        ["fetch_ohlcv", [unified, "1h", since, 1_000], {"price": "mark"}],
        ["fetch_funding_rate_history", [unified, since, 1_000], {}],
    ]
    candles, marks, rates = client(contracts, "contracts", name="binanceusdm", calls=calls)
    true = true_klines(contracts, "um", symbol, since, since + 999 * MINUTE_MS)
    assert candles == [row[:6] for row in true]
    own = rest(contracts, "um", "markPriceKlines", symbol=symbol, interval="1h", startTime=since)
    assert [row[:5] for row in marks] == [row[:5] for row in own]
    own = rest(contracts, "um", "fundingRate", symbol=symbol, startTime=since, limit=1_000)
    assert [[row["timestamp"], row["fundingRate"], row["symbol"]] for row in rates] == [
        [row["fundingTime"], row["fundingRate"], unified] for row in own
    ]
    assert len(rates) >= 6


@of_ccxt
def test_streams_of_ccxt_have_the_values_of_the_oracle(client: Client) -> None:
    with ExchangeThread(contracts_config(speed=SPEED)) as exchange:
        found = client(exchange, "contract_streams", wanted=5)
        for market, symbol in SYMBOLS.items():
            liquidations = found[f"{market} liquidations"]
            assert_liquidations(exchange, market, [row["info"] for row in liquidations])
            for row in liquidations:
                info = row["info"]
                assert [row["price"], row["contracts"], row["side"], row["timestamp"]] == [
                    info["ap"], info["l"], info["S"].lower(), info["T"],
                ]  # fmt: skip
            for row in found[f"{market} marks"]:
                marked = (row["markPrice"], row["indexPrice"])
                assert_mark(exchange, market, symbol, row["timestamp"], *marked)
            for update_id, bids, asks in found[f"{market} books"]:
                assert_top(exchange, market, update_id, bids, asks)


# --- cryptofeed


@pytest.mark.parametrize("library", ["cryptofeed"], indirect=True)
def test_callbacks_of_cryptofeed_get_the_values_of_the_oracle(
    client: Client, tmp_path: Path
) -> None:
    with ExchangeThread(contracts_config(speed=SPEED, tls=tmp_path)) as exchange:
        found = client(exchange, "contract_streams", wanted=10)
        for market, symbol in SYMBOLS.items():
            trades = found[f"{market} trades"]
            true = true_agg_trades(
                exchange, market, symbol, int(trades[0]["id"]), int(trades[-1]["id"])
            )
            ids = [int(row["id"]) for row in trades]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            for row in trades:
                key, price, quantity, *_, time_ms, is_sell = true[int(row["id"])]
                assert [row["id"], row["price"], row["amount"]] == [str(key), price, quantity]
                assert row["side"] == ("sell" if is_sell else "buy")
                assert round(row["timestamp"] * 1_000) == time_ms
            for row in found[f"{market} candles"]:
                start_ms = round(row["start"] * 1_000)
                (own,) = true_klines(exchange, market, symbol, start_ms, start_ms)
                keys = ("open", "high", "low", "close", "volume")
                assert [row[key] for key in keys] == own[1:6]
                assert row["trades"] == own[8]
            for row in found[f"{market} funding"]:
                time_ms = round(row["timestamp"] * 1_000)
                assert_mark(exchange, market, symbol, time_ms, row["mark_price"], row["raw"]["i"])
                series = exchange.markets[market].derivatives(symbol)
                own = series.mark_price(time_ms * 1_000 // SECOND_US * SECOND_US)
                assert Decimal(row["rate"]) == Decimal(own.funding_rate).scaleb(-8)
                assert round(row["next_funding_time"] * 1_000_000) == own.next_funding_us
            history = rest(
                exchange, market, "/futures/data/openInterestHist",
                **parameters(market, {"of": 1}) | {"contractType": "PERPETUAL", "limit": 500},
            )  # fmt: skip
            amounts = {row["timestamp"]: Decimal(row["sumOpenInterest"]) for row in history}
            for row in found[f"{market} open_interest"]:
                time_ms = round(row["timestamp"] * 1_000)
                step_ms = 5 * MINUTE_MS
                assert Decimal(row["open_interest"]) == amounts[time_ms // step_ms * step_ms]
            liquidations = found[f"{market} liquidations"]
            assert_liquidations(exchange, market, [row["raw"]["o"] for row in liquidations])
            for row in liquidations:
                order = row["raw"]["o"]
                assert [row["price"], row["quantity"], row["side"]] == [
                    order["p"], order["q"], order["S"].lower(),
                ]  # fmt: skip
            for update_id, bids, asks in found[f"{market} l2_book"]:
                assert_top(exchange, market, update_id, bids, asks)
