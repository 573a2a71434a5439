"""The control API under `/sim`, with a real client."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from simulator.clock import MINUTE_US
from simulator.config import SimulatorConfig
from simulator.faults.plan import parse_plan
from simulator.server import Exchange

CONFIG = SimulatorConfig(clock_start=datetime(2025, 1, 4, 12, tzinfo=UTC), speed=0)
PATHS = {"spot": "/api/v3/depth", "um": "/fapi/v1/depth"}


@pytest.mark.parametrize(
    "query",
    [{"symbol": "NOSUCH"}, {"symbol": "BTCUSDT", "interval": "7m"}, {"market": "cm", "symbol": "X"},
     {}, {"symbol": "BTCUSDT", "limit": 3}],
)  # fmt: skip
def test_bad_requests_to_the_oracle_get_an_explanation(
    client: httpx.Client, query: dict[str, Any]
) -> None:
    answer = client.get("/sim/klines", params=query)
    assert answer.status_code == 400
    assert answer.json()["msg"]


def test_replay_state_without_a_replay_is_404(client: httpx.Client) -> None:
    assert client.get("/sim/replay").status_code == 404


async def test_faults_are_added_listed_and_removed() -> None:
    async with Exchange(CONFIG) as exchange, httpx.AsyncClient() as client:
        url = f"{exchange.control_url}/sim/faults"
        plan = [
            {"kind": "drop", "at": "+1h", "id": "later"},
            {"kind": "stall", "market": "spot", "duration_s": 1e6},
        ]
        assert (await client.post(url, json=plan)).json() == {"ids": ["later", "f1"]}
        states = {entry["id"]: entry["state"] for entry in (await client.get(url)).json()}
        assert states == {"later": "scheduled", "f1": "active"}
        exported = parse_plan((await client.get(f"{url}/plan")).content)
        assert [fault.id for fault in exported] == ["later", "f1"]
        assert not any(fault.is_offset for fault in exported)
        assert exported[0].at_us - exported[1].at_us == 60 * MINUTE_US

        again = await client.post(url, json=[{"kind": "cut"}, plan[0]])
        assert again.status_code == 400
        assert "'later' is in use" in again.json()["msg"]
        wrong = await client.post(url, json=[{"kind": "cut"}, {"kind": "drop", "share": 7}])
        assert wrong.status_code == 400
        assert "body, entry 2 (drop): share is 7" in wrong.json()["msg"]
        assert len((await client.get(url)).json()) == 2, "all or none"
        assert (await client.post(url, content=b"[{")).status_code == 400

        assert (await client.delete(f"{url}/later")).json() == {"removed": "later"}
        assert (await client.delete(f"{url}/nothing")).status_code == 404
        states = {entry["id"]: entry["state"] for entry in (await client.get(url)).json()}
        assert states == {"later": "removed", "f1": "active"}


# --- the oracle's order book


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
def test_bad_requests_for_a_book_get_an_explanation(
    client: httpx.Client, query: dict[str, Any]
) -> None:
    answer = client.get("/sim/depth", params=query)
    assert answer.status_code == 400
    assert answer.json()["msg"]
