"""Kept trades by REST, from the tables of raw capture."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from include.store.postgres.pools import connect
from include.store.trades.captured import AGG_TRADES, TRADES, write_raw
from tests.integration.serving.http.api_client import T0, api_client

NUMBERS = [number for number in range(1, 1_200) if number != 700]


def store_trades(url: str) -> None:
    price, quantity = Decimal("1.10"), Decimal("1E-8")
    with connect(url, application_name="test") as connection:
        write_raw(
            connection,
            AGG_TRADES,
            [
                AGG_TRADES.line(("BTCUSDT", n, price, quantity, 2 * n, 2 * n + 1, T0 + n, True))
                for n in NUMBERS
            ],
        )
        write_raw(
            connection, TRADES, [TRADES.line(("BTCUSDT", 5, price, quantity, None, T0, False))]
        )


async def test_trades_are_read_by_id_page_by_page(stored_url: str) -> None:
    store_trades(stored_url)
    async with api_client(stored_url) as client:
        asked: dict[str, Any] = {
            "symbol": "BTCUSDT", "from_id": 650, "to_id": 1_150, "limit": 200,
        }  # fmt: skip
        found: list[dict[str, Any]] = []
        while True:
            page = (await client.get("/api/v1/trades", params=asked)).raise_for_status().json()
            found += page["trades"]
            if page["next_cursor"] is None:
                break
            asked["cursor"] = page["next_cursor"]
        assert [one["id"] for one in found] == [n for n in NUMBERS if 650 <= n <= 1_150]
        assert found[0] == {
            "symbol": "BTCUSDT", "id": 650, "price": "1.10", "quantity": "0.00000001",
            "time": "2023-11-14T22:14:00.000650Z", "is_buyer_maker": True,
            "first_trade_id": 1_300, "last_trade_id": 1_301,
        }  # fmt: skip
        assert page["kept"] == {"first_id": 1, "last_id": 1_199}
        single = await client.get("/api/v1/trades?symbol=BTCUSDT&from_id=0&kind=trades")
        assert [one["id"] for one in single.json()["trades"]] == [5]


async def test_symbol_without_stored_trades_says_how_to_capture_them(stored_url: str) -> None:
    store_trades(stored_url)
    async with api_client(stored_url) as client:
        answer = await client.get("/api/v1/trades?symbol=ETHUSDT.P&from_id=1")
        assert answer.status_code == 404
        assert "CAPTURE=agg_trades" in answer.json()["detail"]
        gone = await client.get("/api/v1/trades?symbol=BTCUSDT&from_id=5000&to_id=5001")
        assert gone.status_code == 404
        assert "has 1 (2023-11-14) to 1199 (2023-11-14)" in gone.json()["detail"]
