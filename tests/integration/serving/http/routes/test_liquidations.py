"""Captured liquidations by REST, by time, as a sample."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from include.domain.timeframes import SECOND_US
from include.store.postgres.pools import connect
from include.store.trades.captured import LIQUIDATIONS, write_raw
from include.store.trades.liquidations import Liquidation
from tests.integration.serving.http.api_client import T0, api_client

ONE = Liquidation(
    "ETHUSDT.P", T0, T0 + 5_000, T0 + 9_001, "SELL", "LIMIT", "IOC", Decimal("9910.0"),
    Decimal("9900.5"), Decimal("0.014"), Decimal("1E-8"), Decimal("0.014"), "FILLED",
)  # fmt: skip
ALL = [replace(ONE, order_us=T0 + n * 3_600 * SECOND_US) for n in range(60)]


def store(url: str) -> None:
    with connect(url, application_name="test") as connection:
        write_raw(connection, LIQUIDATIONS, [LIQUIDATIONS.line([one]) for one in reversed(ALL)])


def asked(first: int, end: int, **more: Any) -> dict[str, Any]:
    return {
        "symbol": "ETHUSDT.P", "from": ALL[first].order_us // 1_000,
        "to": ALL[end].order_us // 1_000, **more,
    }  # fmt: skip


async def test_liquidations_are_read_by_time_page_by_page(stored_url: str) -> None:
    store(stored_url)
    async with api_client(stored_url) as client:
        found: list[dict[str, Any]] = []
        query = asked(5, 55, limit=20)
        while True:
            answer = (await client.get("/api/v1/liquidations", params=query)).raise_for_status()
            page = answer.json()
            assert page["is_sample"] is True
            found += page["liquidations"]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert [one["id"] for one in found] == [str(one.id) for one in ALL[5:55]]
        first = (await client.get("/api/v1/liquidations", params=asked(0, 1))).json()
        assert first["liquidations"] == [
            {
                "symbol": "ETHUSDT.P", "id": str(ONE.id), "order_time": "2023-11-14T22:14:00Z",
                "event_time": "2023-11-14T22:14:00.005000Z",
                "received_at": "2023-11-14T22:14:00.009001Z", "side": "SELL",
                "order_type": "LIMIT", "time_in_force": "IOC", "price": "9910.0",
                "average_price": "9900.5", "quantity": "0.014",
                "last_filled_quantity": "0.00000001", "accumulated_quantity": "0.014",
                "order_status": "FILLED",
            }
        ]  # fmt: skip


async def test_spot_and_empty_ranges_have_no_liquidations(stored_url: str) -> None:
    store(stored_url)
    async with api_client(stored_url) as client:
        for query in (asked(1, 1), asked(0, 9) | {"symbol": "BTCUSDT"}):
            answer = (await client.get("/api/v1/liquidations", params=query)).raise_for_status()
            assert answer.json() == {"liquidations": [], "is_sample": True, "next_cursor": None}
        refused = await client.get("/api/v1/liquidations", params=asked(2, 1))
        assert refused.status_code == 400
        refused = await client.get("/api/v1/liquidations", params=asked(0, 1, cursor="x"))
        assert refused.status_code == 400
