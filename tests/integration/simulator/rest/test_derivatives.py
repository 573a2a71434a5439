"""Derivative series over HTTP: paths, headers, the shared numbers of requests, the oracle."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

CONFIG = SimulatorConfig(
    seed=7,
    speed=0,
    spot_symbols=("BTCUSDT",),
    um_symbols=("BTCUSDT",),
    start=datetime(2026, 2, 1, tzinfo=UTC),
    clock_start=datetime(2026, 2, 3, 12, 0, 30, tzinfo=UTC),
)


def test_statistics_have_paths_without_a_version(client: httpx.Client) -> None:
    query = {"symbol": "BTCUSDT", "period": "5m"}
    found = client.get("/futures/data/openInterestHist", params=query)
    assert found.status_code == 200
    assert len(found.json()) == 30
    assert found.headers["x-mbx-used-weight-1m"].isdigit()
    assert client.get("/fapi/v1/openInterestHist", params=query).status_code == 404
    old = client.get("/futures/data/openInterestHist", params=query | {"startTime": 1})
    assert old.status_code == 400
    assert old.json() == {"code": -1130, "msg": "parameter 'startTime' is invalid."}


def test_requests_beyond_the_shared_number_get_429() -> None:
    with (
        ExchangeThread(CONFIG) as exchange,
        httpx.Client(base_url=exchange.um_rest_url, timeout=60) as client,
    ):
        for number in range(500):
            name = "fundingInfo" if number % 2 else "fundingRate"
            assert client.get(f"/fapi/v1/{name}", params={"limit": 1}).status_code == 200
        refused = client.get("/fapi/v1/fundingInfo")
        assert (refused.status_code, refused.json()["code"]) == (429, -1003)
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/fapi/v1/premiumIndex").status_code == 200


def test_oracle_lists_liquidations(client: httpx.Client) -> None:
    query = {"market": "um", "symbol": "BTCUSDT"}
    end = int(CONFIG.clock_start.timestamp()) * 1_000 if CONFIG.clock_start else 0
    rows = client.get("/sim/liquidations", params=query | {"startTime": end - 3_600_000}).json()
    assert len(rows) > 10
    assert all(end - 3_600_000 <= row["T"] < end for row in rows)
    seconds = [row["T"] // 1_000 for row in rows]
    assert seconds == sorted(set(seconds))
    wrong = client.get("/sim/liquidations", params={"market": "spot", "symbol": "BTCUSDT"})
    assert wrong.status_code == 400
    assert "spot has no liquidations" in wrong.json()["msg"]
