"""What is served before the marts' first build: bars all the same, and a word about the rest."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from include.domain.timeframes import TIMEFRAMES
from tests.integration.serving.http.api_client import ROWS, T0, api_client

LONG_AGO_MS = T0 // 1_000 - 40 * 10**8


async def test_bars_are_rolled_up_from_minutes_without_marts(stored_url: str) -> None:
    async with api_client(stored_url) as client:

        async def bars(**further: object) -> list[dict[str, Any]]:
            asked = {"symbol": "BTCUSDT", **further}
            answer = await client.get("/api/v1/candles", params=asked)
            found: list[dict[str, Any]] = answer.raise_for_status().json()["candles"]
            return found

        for timeframe in [one for one in TIMEFRAMES if one != "1m"]:
            found = await bars(timeframe=timeframe)
            assert found == await bars(**{"timeframe": timeframe, "from": LONG_AGO_MS}), timeframe
            assert sum(one["minute_count"] for one in found) == ROWS
            assert (found[0]["open"], found[-1]["close"]) == ("1.10", f"{ROWS}.10")
            assert sum(Decimal(one["volume"]) for one in found) == ROWS * Decimal("1e-8")


async def test_endpoints_of_marts_say_that_they_are_not_built(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        for what in ("levels", "indicators", "volume-profile", "footprint"):
            answer = await client.get(f"/api/v1/symbols/BTCUSDT/{what}")
            assert answer.status_code == 503, what
            assert answer.headers["content-type"] == "application/problem+json"
            assert "build_marts" in answer.json()["detail"]
