"""Faults of REST, with a real client."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from simulator.config import SimulatorConfig
from simulator.rest.faults import (
    AbortConnection,
    AddVoidRows,
    DelayAnswer,
    DropLastRows,
    KlineLag,
    MalformBody,
    RefuseRequest,
    RestRule,
    TradeLag,
    TruncateBody,
)
from simulator.server import ExchangeThread

KLINES = "/api/v3/klines"
QUERY = {"symbol": "ETHBTC", "interval": "1m", "limit": "50"}
CONFIG = SimulatorConfig(
    start=datetime(2025, 1, 3, tzinfo=UTC),
    clock_start=datetime(2025, 1, 4, 12, 0, 30, tzinfo=UTC),
    speed=0,
    spot_symbols=("COSUSDT", "ETHBTC"),
    um_symbols=("KEEPUSDT",),
)


def _break(exchange: ExchangeThread, effect: Any, **where: Any) -> int:
    rule_id: int = exchange.rest_faults.add(RestRule(effect=effect, **where))
    return rule_id


@pytest.mark.parametrize(
    ("effect", "status", "code", "retry_after"),
    [
        (RefuseRequest(status=500), 500, -1001, None),
        (RefuseRequest(status=503), 503, -1008, None),
        (RefuseRequest(status=403), 403, -1000, None),
        (RefuseRequest(status=429), 429, -1003, "60"),
        (RefuseRequest(status=429, retry_after_s=3), 429, -1003, "3"),
        (RefuseRequest(status=418), 418, -1003, "120"),
        (RefuseRequest(status=400, code=-1121, message="Invalid symbol."), 400, -1121, None),
    ],
)
def test_requests_are_refused_with_the_exchanges_own_body(
    exchange: ExchangeThread,
    client: httpx.Client,
    effect: RefuseRequest,
    status: int,
    code: int,
    retry_after: str | None,
) -> None:
    _break(exchange, effect, endpoint="klines")
    answer = client.get(KLINES, params=QUERY)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("retry-after") == retry_after
    assert int(answer.headers["x-mbx-used-weight-1m"]) > 0
    assert client.get("/api/v3/ping").status_code == 200


def test_gateway_can_refuse_with_its_own_page(
    exchange: ExchangeThread, client: httpx.Client
) -> None:
    _break(exchange, RefuseRequest(status=502, body="<html>Bad Gateway</html>"))
    answer = client.get("/api/v3/ping")
    assert (answer.status_code, answer.text) == (502, "<html>Bad Gateway</html>")
    assert answer.headers["content-type"].startswith("text/html")


def test_rule_ends_after_its_hits_and_matches_only_its_symbol(
    exchange: ExchangeThread, client: httpx.Client
) -> None:
    rule_id = _break(exchange, RefuseRequest(status=503), symbol="ETH*", times=2)
    other = client.get(KLINES, params=QUERY | {"symbol": "COSUSDT"})
    statuses = [client.get(KLINES, params=QUERY).status_code for _ in range(4)]
    assert (other.status_code, statuses) == (200, [503, 503, 200, 200])
    assert exchange.rest_faults.remove(rule_id) == 2


def test_slow_answer_does_not_delay_others(exchange: ExchangeThread, client: httpx.Client) -> None:
    _break(exchange, DelayAnswer(seconds=0.4), endpoint="klines")
    begun = time.monotonic()
    assert client.get("/api/v3/ping").status_code == 200
    at_once = time.monotonic() - begun
    assert client.get(KLINES, params=QUERY).status_code == 200
    assert time.monotonic() - begun - at_once >= 0.4 > at_once


@pytest.mark.parametrize("keep", [0, 50])
def test_connection_is_aborted_within_or_before_the_answer(
    exchange: ExchangeThread, client: httpx.Client, keep: int
) -> None:
    _break(exchange, AbortConnection(keep_percent=keep), endpoint="klines", times=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        client.get(KLINES, params=QUERY)
    assert client.get(KLINES, params=QUERY).status_code == 200


def test_truncated_or_html_body_is_not_json(exchange: ExchangeThread, client: httpx.Client) -> None:
    whole = client.get(KLINES, params=QUERY).content
    rule_id = _break(exchange, TruncateBody(keep_percent=50))
    answer = client.get(KLINES, params=QUERY)
    assert answer.status_code == 200
    assert answer.content == whole[: len(whole) // 2]
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    exchange.rest_faults.remove(rule_id)
    _break(exchange, MalformBody(body="<html>"))
    assert client.get(KLINES, params=QUERY).text == "<html>"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (KLINES, QUERY),
        (KLINES, QUERY | {"interval": "5m"}),
        ("/api/v3/aggTrades", {"symbol": "ETHBTC"}),
        ("/fapi/v1/klines", {"symbol": "KEEPUSDT", "interval": "1m"}),
    ],
)
def test_stale_page_lacks_its_last_rows(
    exchange: ExchangeThread, client: httpx.Client, path: str, query: dict[str, str]
) -> None:
    whole = client.get(path, params=query).json()
    _break(exchange, DropLastRows(rows=2))
    assert client.get(path, params=query).json() == whole[:-2]
    assert client.get("/api/v3/ping").json() == {}


def test_klines_and_trades_lag_as_configured(
    exchange: ExchangeThread, client: httpx.Client
) -> None:
    now_ms = exchange.clock.now_us() // 1_000
    trades = client.get("/api/v3/aggTrades", params={"symbol": "ETHBTC"}).json()
    assert trades[-1]["T"] > now_ms - 30_000
    rule_id = _break(exchange, KlineLag(lag_us=90_000_000), market="spot")
    assert client.get(KLINES, params=QUERY).json()[-1][0] == now_ms - 90_000
    assert (
        client.get("/fapi/v1/klines", params=QUERY | {"symbol": "KEEPUSDT"}).json()[-1][0]
        == now_ms // 60_000 * 60_000
    )
    oracle = client.get("/sim/klines", params={"symbol": "ETHBTC"}).json()
    assert oracle[-1][0] == now_ms // 60_000 * 60_000
    assert exchange.rest_faults.remove(rule_id) == 1
    _break(exchange, TradeLag(lag_us=60_000_000))
    lagging = client.get("/api/v3/aggTrades", params={"symbol": "ETHBTC"}).json()
    assert now_ms - 120_000 < lagging[-1]["T"] <= now_ms - 60_000


@pytest.mark.parametrize("limit", [20, 21])
def test_void_rows_precede_real_ones_and_hide_none_from_a_paging_client(
    exchange: ExchangeThread, client: httpx.Client, limit: int
) -> None:
    path, query = "/api/v3/aggTrades", {"symbol": "ETHBTC", "limit": str(limit)}
    true = client.get(path, params=query).json()
    _break(exchange, AddVoidRows(rows=3))
    found: list[dict[str, Any]] = []
    voids = 0
    while not found or found[-1]["a"] < true[-1]["a"]:
        next_id = found[-1]["a"] + 1 if found else true[0]["a"]
        page = client.get(path, params=query | {"fromId": str(next_id)}).json()
        assert len(page) <= limit
        assert page[-1]["p"] != "0"
        voids += sum((row["p"], row["q"], row["f"], row["l"]) == ("0", "0", -1, -1) for row in page)
        found += [row for row in page if row["p"] != "0"]
    assert found == true
    assert voids >= 3


def test_void_rows_never_make_a_page_longer_than_its_limit(
    exchange: ExchangeThread, client: httpx.Client
) -> None:
    path, query = "/api/v3/aggTrades", {"symbol": "ETHBTC"}
    first = client.get(path, params=query | {"limit": "1000"}).json()[0]
    rest = query | {"fromId": str(first["a"])}
    _break(exchange, AddVoidRows(rows=3))
    assert client.get(path, params=rest | {"limit": "1"}).json() == [first]
    pair = client.get(path, params=rest | {"limit": "2"}).json()
    assert [row["a"] for row in pair] == [first["a"], first["a"]]
    assert (pair[0]["p"], pair[1]) == ("0", first)
    for limit in ("1000", "1001"):  # spot clamps values above the maximum
        assert len(client.get(path, params=query | {"limit": limit}).json()) == 1_000
