"""REST and the dump site, with a real client."""

import hashlib
import io
import re
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from simulator.clock import MINUTE_US, SECOND_US, to_us
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

MOMENT = datetime(2025, 1, 4, 12, 0, 0, 300_000, tzinfo=UTC)
NOW_MS = to_us(MOMENT) // 1_000
MINUTE_MS = 60_000
CONFIG = SimulatorConfig(
    start=datetime(2024, 12, 30, tzinfo=UTC), clock_start=MOMENT, speed=0,
    spot_weight_limit=1_000_000, um_weight_limit=1_000_000, generated_spot=3,
)  # fmt: skip


def _get(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_time_is_the_clocks_in_either_unit(client: httpx.Client) -> None:
    assert _get(client, "/api/v3/ping") == {}
    assert _get(client, "/api/v3/time") == {"serverTime": NOW_MS}
    assert _get(client, "/fapi/v1/time") == {"serverTime": NOW_MS}
    answer = client.get("/api/v3/time", headers={"X-MBX-TIME-UNIT": "MICROSECOND"})
    assert answer.json() == {"serverTime": to_us(MOMENT)}
    assert _get(client, "/sim/clock")["spot"]["now_us"] == to_us(MOMENT)


def test_spot_exchange_info_has_filters_and_limits(client: httpx.Client) -> None:
    info = _get(client, "/api/v3/exchangeInfo")
    assert {"BTCUSDT", "ETHBTC", "SIM0001USDT"} <= {entry["symbol"] for entry in info["symbols"]}
    limits = {limit["rateLimitType"]: limit for limit in info["rateLimits"]}
    assert limits["REQUEST_WEIGHT"]["limit"] == 1_000_000
    (entry,) = _get(client, "/api/v3/exchangeInfo", symbol="ETHBTC")["symbols"]
    filters = {item["filterType"]: item for item in entry["filters"]}
    tick = Decimal(filters["PRICE_FILTER"]["tickSize"])
    step = Decimal(filters["LOT_SIZE"]["stepSize"])
    assert (tick * step).normalize().as_tuple().exponent == -9
    assert (entry["status"], entry["baseAsset"], entry["quoteAsset"]) == ("TRADING", "ETH", "BTC")
    both = _get(client, "/api/v3/exchangeInfo", symbols='["ETHBTC","BTCUSDT"]')["symbols"]
    assert {item["symbol"] for item in both} == {"ETHBTC", "BTCUSDT"}


def test_futures_exchange_info_has_contract_and_listing(client: httpx.Client) -> None:
    (entry,) = _get(client, "/fapi/v1/exchangeInfo", symbol="KEEPUSDT")["symbols"]
    assert entry["contractType"] == "PERPETUAL"
    assert entry["onboardDate"] == to_us(datetime(2024, 12, 30, tzinfo=UTC)) // 1_000


def test_prices_and_quantities_match_the_filters(client: httpx.Client) -> None:
    for prefix in ("/api/v3", "/fapi/v1"):
        for entry in _get(client, f"{prefix}/exchangeInfo")["symbols"]:
            filters = {item["filterType"]: item for item in entry["filters"]}
            for trade in _get(client, f"{prefix}/aggTrades", symbol=entry["symbol"], limit=20):
                assert Decimal(trade["p"]) % Decimal(filters["PRICE_FILTER"]["tickSize"]) == 0
                assert Decimal(trade["q"]) % Decimal(filters["LOT_SIZE"]["stepSize"]) == 0


def test_latest_klines_omit_the_youngest_trades(client: httpx.Client) -> None:
    rest = _get(client, "/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=2)
    oracle = _get(client, "/sim/klines", symbol="BTCUSDT", startTime=NOW_MS - 3 * MINUTE_MS)
    closed = to_us(MOMENT) // MINUTE_US * 60_000 - MINUTE_MS
    assert oracle[-2][0] == closed
    # the lag reaches 0.5 s back past the close, so the minute that just closed is the last one
    assert rest[-1][0] == closed
    assert rest[-2] == oracle[-3]
    assert rest[-1][8] <= oracle[-2][8]


def test_lagging_kline_misses_the_trades_after_the_view() -> None:
    config = SimulatorConfig(clock_start=MOMENT, speed=0, rest_kline_lag_ms=20_000)
    with ExchangeThread(config) as running, httpx.Client(base_url=running.spot_rest_url) as http:
        (row,) = _get(http, "/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1)
        oracle = _get(http, "/sim/klines", symbol="BTCUSDT", startTime=row[0], endTime=row[0])[0]
        assert row[0] + 60_000 < NOW_MS  # closed
        assert row[8] < oracle[8]
        assert (row[0], row[1]) == (oracle[0], oracle[1])


@pytest.mark.parametrize("market", ["spot", "um"])
@pytest.mark.parametrize("interval", ["3m", "1h", "1d", "3d", "1w", "1M"])
def test_longer_klines_equal_the_oracle(client: httpx.Client, market: str, interval: str) -> None:
    prefix = "/api/v3" if market == "spot" else "/fapi/v1"
    until = NOW_MS - 2 * 86_400_000
    rest = _get(client, f"{prefix}/klines", symbol="BTCUSDT", interval=interval, endTime=until)
    oracle = _get(
        client, "/sim/klines", symbol="BTCUSDT", interval=interval, endTime=until, market=market
    )
    assert [row[0] for row in rest] == [row[0] for row in oracle[-500:]]
    over = [row for row in rest if row[6] < NOW_MS - 1_000]  # open klines lag
    assert over == oracle[-len(rest) :][: len(over)]
    assert len(over) >= len(rest) - 1


def test_klines_in_microseconds_and_of_another_zone(client: httpx.Client) -> None:
    query = {"symbol": "ETHBTC", "interval": "1d", "limit": 1, "timeZone": "8"}
    answer = client.get("/api/v3/klines", params=query, headers={"x-mbx-time-unit": "microsecond"})
    (row,) = answer.json()
    assert row[0] == to_us(datetime(2025, 1, 3, 16, tzinfo=UTC))
    assert row[6] == row[0] + 86_400 * SECOND_US - 1
    in_us = _get(client, "/api/v3/klines", symbol="ETHBTC", interval="1m",
                 startTime=row[0], limit=2)  # fmt: skip
    in_ms = _get(client, "/api/v3/klines", symbol="ETHBTC", interval="1m",
                 startTime=row[0] // 1_000, limit=2)  # fmt: skip
    assert in_us == in_ms
    assert in_us[0][0] == row[0] // 1_000


def test_agg_trades_page_by_id_and_trades_fill_their_ranges(client: httpx.Client) -> None:
    latest = _get(client, "/api/v3/aggTrades", symbol="ETHBTC", limit=100)
    paged = _get(client, "/api/v3/aggTrades", symbol="ETHBTC", fromId=latest[10]["a"], limit=20)
    assert paged == latest[10:30]
    timed = _get(client, "/api/v3/aggTrades", symbol="ETHBTC", startTime=latest[40]["T"],
                 endTime=latest[60]["T"])  # fmt: skip
    assert [row["a"] for row in timed] == [
        row["a"] for row in latest if latest[40]["T"] <= row["T"] <= latest[60]["T"]
    ]
    first = latest[50]["f"]
    trades = _get(client, "/api/v3/historicalTrades", symbol="ETHBTC", fromId=first, limit=30)
    assert [trade["id"] for trade in trades] == list(range(first, first + 30))
    by_id = {trade["id"]: trade for trade in trades}
    for row in latest[50:]:
        if row["l"] in by_id:
            fills = [by_id[number] for number in range(row["f"], row["l"] + 1)]
            assert sum(Decimal(fill["qty"]) for fill in fills) == Decimal(row["q"])
            assert {fill["price"] for fill in fills} == {row["p"]}
    assert len(_get(client, "/api/v3/trades", symbol="ETHBTC", limit=7)) == 7


def test_rounded_quotes_are_rounded_fill_by_fill(client: httpx.Client) -> None:
    trades = _get(client, "/api/v3/historicalTrades", symbol="ETHBTC", limit=1_000)
    exact = [Decimal(trade["price"]) * Decimal(trade["qty"]) for trade in trades]
    shown = [Decimal(trade["quoteQty"]) for trade in trades]
    errors = [true - shown_price for shown_price, true in zip(shown, exact, strict=True)]
    assert 0 <= min(errors) <= max(errors) < Decimal("0.00000001")  # digits are cut off
    assert sum(error > 0 for error in errors) > 500
    minutes: dict[int, list[int]] = {}
    for number, trade in enumerate(trades):
        minutes.setdefault(trade["time"] // MINUTE_MS * MINUTE_MS, []).append(number)
    for minute in list(minutes)[1:-1]:
        (row,) = _get(client, "/sim/klines", symbol="ETHBTC", startTime=minute, endTime=minute)
        assert Decimal(row[7]) == sum(shown[number] for number in minutes[minute])


def test_tickers_rank_symbols_by_their_volume(client: httpx.Client) -> None:
    tickers = {t["symbol"]: t for t in _get(client, "/api/v3/ticker/24hr")}
    assert Decimal(tickers["BTCUSDT"]["quoteVolume"]) > Decimal(tickers["COSUSDT"]["quoteVolume"])
    assert _get(client, "/fapi/v1/ticker/24hr", symbol="BTCUSDT")["symbol"] == "BTCUSDT"


ERRORS = [
    ("/api/v3/klines", {"interval": "1m"}, -1102),
    ("/api/v3/klines", {"symbol": "BTCUSDT"}, -1102),
    ("/api/v3/klines", {"symbol": "", "interval": "1m"}, -1105),
    ("/api/v3/klines", {"symbol": "NOSUCH", "interval": "1m"}, -1121),
    ("/api/v3/klines", {"symbol": "btc usdt", "interval": "1m"}, -1100),
    ("/api/v3/klines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
    ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1s"}, -1120),
    ("/api/v3/klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": "soon"}, -1100),
    ("/api/v3/klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 0}, -1130),
    ("/api/v3/klines", {"symbol": "BTCUSDT", "interval": "1m", "timeZone": "15"}, -1130),
    ("/api/v3/klines", {"symbol": "BTCUSDT", "interval": "1m", "begin": 1}, -1104),
    ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 1501}, -1130),
    ("/api/v3/aggTrades", {"symbol": "BTCUSDT", "fromId": 1, "startTime": 2}, -1128),
    ("/api/v3/aggTrades", {"symbol": "BTCUSDT", "fromId": -1}, -1100),
    ("/api/v3/aggTrades", {"symbol": "BTCUSDT", "limit": -1}, -1100),
    ("/api/v3/historicalTrades", {"symbol": "BTCUSDT", "fromId": -1}, -1100),
    ("/fapi/v1/aggTrades", {"symbol": "BTCUSDT", "fromId": -1}, -1100),
    ("/api/v3/exchangeInfo", {"symbol": "BTCUSDT", "symbols": '["ETHBTC"]'}, -1128),
    ("/api/v3/exchangeInfo", {"symbols": "BTCUSDT"}, -1100),
    ("/fapi/v1/aggTrades", {"symbol": "BTCUSDT", "fromId": 1}, -4166),
    ("/fapi/v1/aggTrades",
     {"symbol": "BTCUSDT", "startTime": NOW_MS - 3_600_001, "endTime": NOW_MS}, -1127),
]  # fmt: skip


@pytest.mark.parametrize(("path", "query", "code"), ERRORS)
def test_bad_requests_get_the_exchanges_error_code(
    client: httpx.Client, path: str, query: dict[str, Any], code: int
) -> None:
    answer = client.get(path, params=query)
    assert answer.status_code == 400
    body = answer.json()
    assert body["code"] == code
    assert body["msg"]
    assert int(answer.headers["x-mbx-used-weight-1m"]) > 0


def test_futures_agg_trades_of_exactly_one_hour_are_served(client: httpx.Client) -> None:
    hour = {"startTime": NOW_MS - 3_600_000, "endTime": NOW_MS, "limit": 1}
    (row,) = _get(client, "/fapi/v1/aggTrades", symbol="BTCUSDT", **hour)
    assert NOW_MS - 3_600_000 <= row["T"] < NOW_MS


def test_unknown_time_unit_is_refused(client: httpx.Client) -> None:
    answer = client.get("/api/v3/time", headers={"X-MBX-TIME-UNIT": "HOUR"})
    assert (answer.status_code, answer.json()["code"]) == (400, -1194)


def test_spot_limits_are_clamped_and_futures_serve_up_to_1500(client: httpx.Client) -> None:
    assert (
        len(_get(client, "/api/v3/klines", symbol="COSUSDT", interval="1m", limit=5_000)) == 1_000
    )
    assert (
        len(_get(client, "/fapi/v1/klines", symbol="KEEPUSDT", interval="1m", limit=1_500)) == 1_500
    )
    assert len(_get(client, "/api/v3/klines", symbol="COSUSDT", interval="1m")) == 500


WEIGHTS = [
    ("/api/v3/ping", {}, 1),
    ("/api/v3/exchangeInfo", {}, 20),
    ("/api/v3/klines", {"symbol": "COSUSDT", "interval": "1m", "limit": 1_000}, 2),
    ("/api/v3/aggTrades", {"symbol": "COSUSDT"}, 4),
    ("/api/v3/historicalTrades", {"symbol": "COSUSDT"}, 25),
    ("/api/v3/ticker/24hr", {"symbol": "COSUSDT"}, 2),
    ("/api/v3/ticker/24hr", {}, 80),
    ("/fapi/v1/klines", {"symbol": "KEEPUSDT", "interval": "1m", "limit": 100}, 1),
    ("/fapi/v1/klines", {"symbol": "KEEPUSDT", "interval": "1m"}, 2),
    ("/fapi/v1/klines", {"symbol": "KEEPUSDT", "interval": "1m", "limit": 501}, 5),
    ("/fapi/v1/klines", {"symbol": "KEEPUSDT", "interval": "1m", "limit": 1_001}, 10),
    ("/fapi/v1/klines", {"symbol": "NOSUCH", "interval": "1m", "limit": 1_001}, 10),
    ("/fapi/v1/aggTrades", {"symbol": "KEEPUSDT"}, 20),
    ("/fapi/v1/ticker/24hr", {}, 40),
]


@pytest.mark.parametrize(("path", "query", "weight"), WEIGHTS)
def test_requests_cost_the_exchanges_weight(
    client: httpx.Client, path: str, query: dict[str, Any], weight: int
) -> None:
    prefix = "/api/v3" if path.startswith("/api") else "/fapi/v1"
    before = int(client.get(f"{prefix}/ping").headers["x-mbx-used-weight-1m"])
    after = int(client.get(path, params=query).headers["x-mbx-used-weight-1m"])
    assert after - before == weight


def test_too_much_weight_gets_429_then_418_with_retry_after() -> None:
    config = SimulatorConfig(clock_start=MOMENT, speed=0.001, spot_weight_limit=10)
    with ExchangeThread(config) as running, httpx.Client(base_url=running.spot_rest_url) as http:
        query = {"symbol": "COSUSDT", "interval": "1m"}
        statuses = [http.get("/api/v3/klines", params=query).status_code for _ in range(5)]
        assert statuses == [200] * 5
        refused = http.get("/api/v3/klines", params=query)
        assert (refused.status_code, refused.json()["code"]) == (429, -1003)
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["x-mbx-used-weight-1m"] == "12"
        answers = [http.get("/api/v3/ping") for _ in range(25)]
        assert answers[-1].status_code == 418
        assert "banned until" in answers[-1].json()["msg"]
        assert http.get("/fapi/v1/ping").status_code == 200  # each address has its own budget


def test_dumps_are_listed_and_fetched_like_the_real_site(client: httpx.Client) -> None:
    prefix = "data/futures/um/daily/klines/BTCUSDT/1h/"
    listing = client.get("/", params={"delimiter": "/", "prefix": prefix})
    assert listing.headers["content-type"] == "application/xml"
    same = client.get("/data.binance.vision", params={"delimiter": "/", "prefix": prefix})
    assert same.content == listing.content
    keys = [key for key in re.findall("<Key>(.*?)</Key>", listing.text) if key.endswith(".zip")]
    assert [key[-14:-4] for key in keys] == [
        "2024-12-30", "2024-12-31", "2025-01-01", "2025-01-02", "2025-01-03",
    ]  # fmt: skip
    content = client.get(f"/{keys[-1]}")
    checksum = client.get(f"/{keys[-1]}.CHECKSUM").text
    name = keys[-1].rpartition("/")[2]
    assert checksum == f"{hashlib.sha256(content.content).hexdigest()}  {name}"
    with zipfile.ZipFile(io.BytesIO(content.content)) as archive:
        _, *lines = archive.read(archive.namelist()[0]).decode().splitlines()
    start = int(lines[0].split(",")[0])
    rest = _get(
        client, "/fapi/v1/klines", symbol="BTCUSDT", interval="1h", startTime=start, limit=24
    )
    assert [line.split(",") for line in lines] == [[str(v) for v in row] for row in rest]


@pytest.mark.parametrize(
    "name", ["BTCUSDT-1m-2025-01-04.zip", "BTCUSDT-1m-2025-01-04.zip.CHECKSUM"]
)
def test_day_that_is_not_over_is_not_found(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/data/spot/daily/klines/BTCUSDT/1m/{name}")
    assert answer.status_code == 404
    assert "<Code>NoSuchKey</Code>" in answer.text


@pytest.mark.parametrize("path", ["/api/v3/nothing", "/api/v1/klines", "/fapi/v1/nothing"])
def test_unknown_path_is_answered_with_a_page(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith("<!DOCTYPE html>")
    assert "x-mbx-used-weight-1m" not in answer.headers


def test_web_pages_of_other_origins_may_read_rest(client: httpx.Client) -> None:
    for path in ("/api/v3/time", "/fapi/v1/time", "/api/v3/klines", "/api/v3/nothing"):
        headers = client.get(path).headers
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert "access-control-allow-origin" not in client.get("/sim/clock").headers


FAR = (1, 99_999_999_999_999, 10**18, 1 << 62)


@pytest.mark.parametrize("prefix", ["/api/v3", "/fapi/v1"])
@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("klines?interval=1m", ("startTime", "endTime")),
        ("klines?interval=1M", ("startTime", "endTime")),
        ("aggTrades?limit=5", ("startTime", "endTime", "fromId")),
        ("historicalTrades?limit=5", ("fromId",)),
    ],
)
def test_far_times_and_ids_are_answered_like_others(
    client: httpx.Client, prefix: str, path: str, names: tuple[str, ...]
) -> None:
    """Clients often send nanoseconds instead of µs."""
    for name in names:
        for value in FAR:
            url = f"{prefix}/{path}&symbol=BTCUSDT&{name}={value}"
            answer = client.get(url, headers={"X-MBX-APIKEY": "any"})
            assert answer.status_code in (200, 400), (name, value, answer.text)
            if answer.status_code == 200 and name == "startTime" and value > 1:
                assert answer.json() == []
