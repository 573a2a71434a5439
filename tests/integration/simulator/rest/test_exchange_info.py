"""Contents and filters of exchangeInfo."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from simulator.config import SimulatorConfig

CONFIG = SimulatorConfig(
    clock_start=datetime(2025, 1, 4, 12, tzinfo=UTC),
    speed=0,
    spot_symbols=("ETHBTC", "COSUSDT"),
    um_symbols=("KEEPUSDT",),
)
INFO = "/api/v3/exchangeInfo"


def _symbols(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(INFO, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["symbols"]
    return found


def test_permissions_and_statuses_filter_the_symbols(client: httpx.Client) -> None:
    assert len(_symbols(client)) == 2
    assert len(_symbols(client, permissions="SPOT")) == 2
    assert len(_symbols(client, permissions='["MARGIN","SPOT"]')) == 2
    assert _symbols(client, permissions="LEVERAGED") == []
    assert len(_symbols(client, symbolStatus="TRADING")) == 2
    assert _symbols(client, symbolStatus="BREAK") == []


def test_permission_sets_can_be_omitted(client: httpx.Client) -> None:
    assert [entry["permissionSets"] for entry in _symbols(client)] == [[["SPOT"]]] * 2
    bare = _symbols(client, showPermissionSets="false")
    assert [entry["permissionSets"] for entry in bare] == [[]] * 2


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"symbol": "ETHBTC", "permissions": "SPOT"}, -1128),
        ({"symbols": '["ETHBTC"]', "symbolStatus": "TRADING"}, -1128),
        ({"symbolStatus": "ASLEEP"}, -1130),
        ({"permissions": "ALL"}, -1130),
        ({"permissions": '["SPOT"'}, -1100),
        ({"symbol": "NOSUCH"}, -1121),
    ],
)
def test_conflicting_or_unknown_parameters_are_refused(
    client: httpx.Client, query: dict[str, str], code: int
) -> None:
    answer = client.get(INFO, params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_parameter_that_is_sent_twice_is_refused(client: httpx.Client) -> None:
    answer = client.get(f"{INFO}?symbol=ETHBTC&symbol=COSUSDT")
    assert (answer.status_code, answer.json()["code"]) == (400, -1101)


def test_rate_limits_include_orders_and_raw_requests(client: httpx.Client) -> None:
    spot = {one["rateLimitType"] for one in client.get(INFO).json()["rateLimits"]}
    futures = client.get("/fapi/v1/exchangeInfo").json()
    assert spot == {"REQUEST_WEIGHT", "ORDERS", "RAW_REQUESTS"}
    assert {one["rateLimitType"] for one in futures["rateLimits"]} == {"REQUEST_WEIGHT", "ORDERS"}
    assert futures["futuresType"] == "U_MARGINED"
    assert [asset["asset"] for asset in futures["assets"]] == ["USDT"]


def test_futures_require_a_key_for_historical_trades(client: httpx.Client) -> None:
    path = "/fapi/v1/historicalTrades"
    query = {"symbol": "KEEPUSDT", "limit": "5"}
    refused = client.get(path, params=query)
    assert (refused.status_code, refused.json()["code"]) == (401, -2014)
    answer = client.get(path, params=query, headers={"X-MBX-APIKEY": "any"})
    assert len(answer.json()) == 5
    beyond = query | {"limit": "501"}
    assert client.get(path, params=beyond, headers={"X-MBX-APIKEY": "any"}).status_code == 400
    spot = client.get("/api/v3/historicalTrades", params={"symbol": "ETHBTC"})
    assert spot.status_code == 200


def test_futures_refuse_a_span_that_ends_before_it_starts(client: httpx.Client) -> None:
    query = {"symbol": "KEEPUSDT", "interval": "1m", "startTime": 2_000, "endTime": 1_000}
    assert client.get("/fapi/v1/klines", params=query).json()["code"] == -1023
    spot = query | {"symbol": "ETHBTC"}
    assert client.get("/api/v3/klines", params=spot).json() == []


def test_ui_klines_are_klines(client: httpx.Client) -> None:
    query = {"symbol": "ETHBTC", "interval": "1m", "limit": 10}
    assert (
        client.get("/api/v3/uiKlines", params=query).content
        == client.get("/api/v3/klines", params=query).content
    )
    assert client.get("/fapi/v1/uiKlines", params=query).status_code == 404
