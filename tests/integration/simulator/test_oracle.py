"""The oracle's order book over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

STANDING = SimulatorConfig(clock_start=datetime(2025, 1, 4, 12, tzinfo=UTC), speed=0)
PATHS = {"spot": "/api/v3/depth", "um": "/fapi/v1/depth"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        ExchangeThread(STANDING) as exchange,
        httpx.Client(base_url=exchange.control_url, timeout=30) as opened,
    ):
        yield opened


@pytest.mark.parametrize("market", PATHS)
def test_rest_depth_is_the_top_of_the_current_book(client: httpx.Client, market: str) -> None:
    query = {"symbol": "BTCUSDT", "limit": 1_000}
    shown = client.get(PATHS[market], params=query).json()
    true = client.get("/sim/depth", params={"market": market, "symbol": "BTCUSDT"}).json()
    assert len(true["bids"]) > 1_000
    for side in ("bids", "asks"):
        assert true[side][:1_000] == shown[side]
    assert true["lastUpdateId"] == shown["lastUpdateId"]


def test_earlier_book_is_available_by_its_update_id(client: httpx.Client) -> None:
    query: dict[str, Any] = {"symbol": "BTCUSDT"}
    latest = client.get("/sim/depth", params=query).json()
    some_id = latest["lastUpdateId"] - 1_000
    earlier = client.get("/sim/depth", params=query | {"updateId": some_id}).json()
    assert some_id <= earlier["lastUpdateId"] < latest["lastUpdateId"]
    again = client.get("/sim/depth", params=query | {"updateId": earlier["lastUpdateId"]}).json()
    assert again == earlier
    assert earlier["bids"] != latest["bids"]


@pytest.mark.parametrize(
    "query",
    [{}, {"symbol": "NOSUCH"}, {"symbol": "BTCUSDT", "market": "cm"},
     {"symbol": "BTCUSDT", "updateId": "x"}, {"symbol": "BTCUSDT", "updateId": 10**18}],
)  # fmt: skip
def test_bad_requests_for_a_book_say_what_is_wrong(
    client: httpx.Client, query: dict[str, Any]
) -> None:
    answer = client.get("/sim/depth", params=query)
    assert answer.status_code == 400
    assert answer.json()["msg"]
