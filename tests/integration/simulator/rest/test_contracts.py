"""REST and streams of COIN-M and of dated contracts: names, units, lists, pages, deliveries."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from simulator.clock import DAY_US, to_us
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

NOW = datetime(2026, 3, 27, 12, tzinfo=UTC)  # four hours after a delivery
NOW_MS = to_us(NOW) // 1_000
DELIVERY_MS = NOW_MS - 4 * 3_600_000
DAY_MS = DAY_US // 1_000
CONFIG = SimulatorConfig(
    clock_start=NOW,
    start=datetime(2025, 12, 1, tzinfo=UTC),
    speed=0,
    spot_symbols=(),
    um_symbols=("BTCUSDT", "BTCUSDT_QUARTER"),
    cm_symbols=("BTCUSD_PERP", "ETHUSD_PERP", "BTCUSD_QUARTER"),
)


def _get(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _refused(client: httpx.Client, path: str, **query: Any) -> int:
    answer = client.get(path, params=query)
    assert answer.status_code == 400, answer.text
    code: int = answer.json()["code"]
    return code


def test_exchange_info_lists_contracts_with_type_status_and_size(client: httpx.Client) -> None:
    info = _get(client, "/dapi/v1/exchangeInfo")
    assert list(info) == ["timezone", "serverTime", "rateLimits", "exchangeFilters", "symbols"]
    found = {
        one["symbol"]: (one["contractType"], one["contractStatus"], one["contractSize"])
        for one in info["symbols"]
    }
    assert found == {
        "BTCUSD_PERP": ("PERPETUAL", "TRADING", 100),
        "ETHUSD_PERP": ("PERPETUAL", "TRADING", 10),
        "BTCUSD_260327": ("CURRENT_QUARTER DELIVERING", "DELIVERED", 100),
        "BTCUSD_260626": ("CURRENT_QUARTER", "TRADING", 100),
        "BTCUSD_260925": ("NEXT_QUARTER", "TRADING", 100),
    }
    by_symbol = {one["symbol"]: one for one in info["symbols"]}
    assert by_symbol["BTCUSD_PERP"]["deliveryDate"] == 4_133_404_800_000
    assert by_symbol["BTCUSD_260327"]["deliveryDate"] == DELIVERY_MS
    assert by_symbol["BTCUSD_260925"]["onboardDate"] == DELIVERY_MS
    um = _get(client, "/fapi/v1/exchangeInfo")["symbols"]
    assert {one["symbol"]: (one["pair"], one["contractType"], one["status"]) for one in um} == {
        "BTCUSDT": ("BTCUSDT", "PERPETUAL", "TRADING"),
        "BTCUSDT_260327": ("BTCUSDT", "CURRENT_QUARTER DELIVERING", "DELIVERED"),
        "BTCUSDT_260626": ("BTCUSDT", "CURRENT_QUARTER", "TRADING"),
        "BTCUSDT_260925": ("BTCUSDT", "NEXT_QUARTER", "TRADING"),
    }


def test_klines_end_with_the_delivery_and_start_with_the_listing(client: httpx.Client) -> None:
    rows = _get(client, "/fapi/v1/klines", symbol="BTCUSDT_260327", interval="1h", limit=3)
    assert [row[0] for row in rows] == [DELIVERY_MS - n * 3_600_000 for n in (3, 2, 1)]
    rows = _get(client, "/dapi/v1/klines", symbol="BTCUSD_260925", interval="1h")
    assert [row[0] for row in rows] == [DELIVERY_MS + n * 3_600_000 for n in range(4)]
    trades = _get(client, "/dapi/v1/aggTrades", symbol="BTCUSD_260327", limit=1)
    assert DELIVERY_MS - 600_000 < trades[0]["T"] < DELIVERY_MS


def test_klines_hold_contracts_and_base_amounts(client: httpx.Client) -> None:
    start = NOW_MS - 120_000
    span = {"startTime": start, "endTime": start + 59_999}
    (row,) = _get(client, "/dapi/v1/klines", symbol="BTCUSD_PERP", interval="1m", **span)
    trades = _get(client, "/dapi/v1/aggTrades", symbol="BTCUSD_PERP", limit=1_000, **span)
    assert row[5] == str(sum(int(one["q"]) for one in trades))
    exact = sum(Decimal(one["q"]) * 100 / Decimal(one["p"]) for one in trades)
    assert Decimal(row[7]) == exact.quantize(Decimal("1e-8"))
    bought = sum(Decimal(one["q"]) * 100 / Decimal(one["p"]) for one in trades if not one["m"])
    assert Decimal(row[10]) == bought.quantize(Decimal("1e-8"))
    (last,) = _get(client, "/dapi/v1/trades", symbol="BTCUSD_PERP", limit=1)
    assert list(last) == ["id", "price", "qty", "baseQty", "time", "isBuyerMaker"]
    amount = Decimal(last["qty"]) * 100 / Decimal(last["price"])
    assert Decimal(last["baseQty"]) == amount.quantize(Decimal("1e-8"))


def test_page_of_klines_counts_from_the_end(client: httpx.Client) -> None:
    start = NOW_MS - 10 * 3_600_000
    query = {"symbol": "BTCUSD_PERP", "interval": "1h", "limit": 3}
    rows = _get(client, "/dapi/v1/klines", **query, startTime=start, endTime=NOW_MS - 1)
    assert [row[0] for row in rows] == [NOW_MS - n * 3_600_000 for n in (3, 2, 1)]
    rows = _get(client, "/dapi/v1/klines", **query, startTime=start)
    assert rows[-1][0] == NOW_MS - 3_600_000  # REST lags
    rows = _get(client, "/dapi/v1/klines", **query | {"limit": 20}, startTime=start)
    assert (rows[0][0], len(rows)) == (start, 10)
    far = {"startTime": NOW_MS - 201 * DAY_MS, "endTime": NOW_MS}
    assert _refused(client, "/dapi/v1/klines", **query, **far) == -1127
    assert _refused(client, "/dapi/v1/klines", **query | {"limit": 1_501}) == -1130


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("ticker/24hr", ["symbol", "pair", "priceChange", "baseVolume"]),
        ("ticker/price", ["symbol", "ps", "price", "time"]),
        ("ticker/bookTicker", ["symbol", "pair", "bidPrice", "time"]),
        ("premiumIndex", ["symbol", "pair", "markPrice", "lastFundingRate"]),
    ],
)
def test_lists_are_by_symbol_or_pair(client: httpx.Client, path: str, fields: list[str]) -> None:
    (one,) = _get(client, f"/dapi/v1/{path}", symbol="ETHUSD_PERP")
    assert [name for name in one if name in fields] == fields
    names = {row["symbol"] for row in _get(client, f"/dapi/v1/{path}", pair="BTCUSD")}
    assert names == {"BTCUSD_PERP", "BTCUSD_260327", "BTCUSD_260626", "BTCUSD_260925"}
    assert len(_get(client, f"/dapi/v1/{path}")) == 5
    assert _refused(client, f"/dapi/v1/{path}", symbol="ETHUSD_PERP", pair="ETHUSD") == -1128
    assert _refused(client, f"/dapi/v1/{path}", pair="XUSD") == -4087


def test_dated_contract_has_no_funding(client: httpx.Client) -> None:
    (one,) = _get(client, "/dapi/v1/premiumIndex", symbol="BTCUSD_260626")
    assert (one["lastFundingRate"], one["interestRate"], one["nextFundingTime"]) == ("", "", 0)
    assert Decimal(one["markPrice"]) > Decimal(one["indexPrice"]) * Decimal("1.01")


def test_depth_names_symbol_and_pair(client: httpx.Client) -> None:
    depth = _get(client, "/dapi/v1/depth", symbol="BTCUSD_PERP", limit=5)
    assert list(depth) == ["lastUpdateId", "E", "T", "symbol", "pair", "bids", "asks"]


@pytest.mark.parametrize(("root", "pair"), [("/fapi", "BTCUSDT"), ("/dapi", "BTCUSD")])
def test_continuous_klines_follow_the_contracts(client: httpx.Client, root: str, pair: str) -> None:
    def series(kind: str, **query: Any) -> Any:
        return _get(
            client, f"{root}/v1/continuousKlines", pair=pair, contractType=kind, **query
        )  # fmt: skip

    perpetual = pair + ("_PERP" if root == "/dapi" else "")
    own = _get(client, f"{root}/v1/klines", symbol=perpetual, interval="5m", limit=4)
    assert series("PERPETUAL", interval="5m", limit=4) == own
    span = {"startTime": DELIVERY_MS - 60_000, "endTime": DELIVERY_MS}
    both = series("CURRENT_QUARTER", interval="1m", **span)
    for row, symbol in zip(both, (f"{pair}_260327", f"{pair}_260626"), strict=True):
        times = {"startTime": row[0], "endTime": row[0]}
        assert [row] == _get(
            client, f"{root}/v1/klines", symbol=symbol, interval="1m", **times
        )  # fmt: skip
    wrong = {"pair": pair, "interval": "1m", "contractType": "WEEKLY"}
    assert _refused(client, f"{root}/v1/continuousKlines", **wrong) == -1130


@pytest.mark.parametrize("pair", ["BTCUSD", "BTCUSDT"])
def test_delivery_price_is_near_the_last_klines(client: httpx.Client, pair: str) -> None:
    found = _get(client, "/futures/data/delivery-price", pair=pair)
    # the contract of December was delivered within the history, too
    assert [one["deliveryTime"] for one in found] == [DELIVERY_MS, 1_766_736_000_000]
    root = "dapi" if pair == "BTCUSD" else "fapi"
    (hour,) = _get(
        client, f"/{root}/v1/klines", symbol=f"{pair}_260327", interval="1h", limit=1
    )  # fmt: skip
    assert float(hour[3]) * 0.999 < found[0]["deliveryPrice"] < float(hour[2]) * 1.001
    assert _refused(client, "/futures/data/delivery-price") == -1102
    assert _refused(client, "/futures/data/delivery-price", pair="XUSD") == -4144


@pytest.mark.parametrize(("root", "code"), [("fapi", -4144), ("dapi", -4087)])
def test_unknown_pair_has_the_same_code_everywhere(
    client: httpx.Client, root: str, code: int
) -> None:
    query = {"pair": "XUSD", "interval": "1m", "contractType": "PERPETUAL"}
    for name in ("continuousKlines", "indexPriceKlines"):
        assert _refused(client, f"/{root}/v1/{name}", **query) == code


def test_market_that_lists_the_pair_answers(client: httpx.Client) -> None:
    query = {"contractType": "PERPETUAL", "period": "5m"}
    inverse = _get(client, "/futures/data/basis", pair="BTCUSD", **query)
    linear = _get(client, "/futures/data/basis", pair="BTCUSDT", **query)
    assert (inverse[0]["pair"], linear[0]["pair"]) == ("BTCUSD", "BTCUSDT")
    assert "sumOpenInterest" in _get(
        client, "/futures/data/openInterestHist", pair="BTCUSD", **query
    )[0]  # fmt: skip
    assert "takerBuyVol" in _get(
        client, "/futures/data/takerBuySellVol", pair="BTCUSD", **query
    )[0]  # fmt: skip
    assert _refused(client, "/futures/data/openInterestHist", period="5m") == -1102


@pytest.mark.parametrize("path", ["/dapi/v1/nosuch", "/futures/data/nosuch", "/futures/x"])
def test_unknown_path_is_a_page(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


def test_weights_are_counted_apart(client: httpx.Client) -> None:
    before = client.get("/dapi/v1/ping").headers["x-mbx-used-weight-1m"]
    client.get("/fapi/v1/ping")
    answer = client.get(
        "/dapi/v1/klines", params={"symbol": "ETHUSD_PERP", "interval": "1m", "limit": 1_500}
    )
    assert int(answer.headers["x-mbx-used-weight-1m"]) - int(before) == 10


def test_streams_have_no_routes(running: ExchangeThread) -> None:
    with connect(f"{running.cm_ws_url}/stream?streams=btcusd_perp@aggTrade") as socket:
        socket.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert '"result":["btcusd_perp@aggTrade"]' in str(socket.recv(5))


def test_contract_that_is_delivered_by_a_fault_ends(client: httpx.Client) -> None:
    plan = {"kind": "delisting", "market": "cm", "symbols": ["BTCUSD_260925"], "at": "+0s"}
    answer = client.post("/sim/faults", json=[plan])
    assert answer.status_code == 200, answer.text
    info = _get(client, "/dapi/v1/exchangeInfo")["symbols"]
    (entry,) = (one for one in info if one["symbol"] == "BTCUSD_260925")
    assert (entry["contractStatus"], entry["deliveryDate"]) == ("DELIVERING", NOW_MS)
    found = _get(client, "/futures/data/delivery-price", pair="BTCUSD")
    assert found[0]["deliveryTime"] == NOW_MS
