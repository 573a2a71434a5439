"""REST fails while raw capture requests missing trades."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.harness import settings_for, streaming

SYMBOLS = ("BTCUSDT", "BTCUSDT.P")
FAULTS: list[dict[str, Any]] = [{"id": "void", "kind": "rest_void", "rows": 5}]
# Of several ids each: a page of one row has no void one.
DROPPED_TRADES = {"id": "holes", "kind": "drop", "streams": "*@aggTrade", "share": 0.6}
MORE_ROWS = 50
WAIT_S = 120  # a busy machine takes several times as long as an idle one
QUERY = (
    "SELECT agg_trade_id, price, quantity, first_trade_id, last_trade_id "
    "FROM market.agg_trades WHERE symbol = %s ORDER BY agg_trade_id"
)

Row = tuple[Any, ...]


def stored(database_url: str, symbol: str) -> list[Row]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(QUERY, (symbol,)).fetchall()


def served(exchange: Exchange, symbol: str, first_id: int, last_id: int) -> list[Row]:
    """The exchange's trades with these ids."""
    is_um = symbol.endswith(".P")
    base = f"{exchange.um_rest_url}/fapi/v1" if is_um else f"{exchange.spot_rest_url}/api/v3"
    found: list[Row] = []
    while not found or found[-1][0] < last_id:
        asked = {
            "symbol": symbol.removesuffix(".P"),
            "fromId": found[-1][0] + 1 if found else first_id,
            "limit": 1_000,
        }
        answer = httpx.get(f"{base}/aggTrades", params=asked, timeout=20).raise_for_status()
        found += [
            (one["a"], Decimal(one["p"]), Decimal(one["q"]), one["f"], one["l"])
            for one in answer.json()
        ]
    return [row for row in found if row[0] <= last_id]


@pytest.mark.asyncio
async def test_void_rows_of_rest_are_not_stored_and_hide_no_trade(
    database_url: str, tmp_path: Path
) -> None:
    config = SimulatorConfig(speed=20, spot_symbols=("BTCUSDT",), um_symbols=("BTCUSDT",))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        async with streaming(settings, *SYMBOLS, capture=("agg_trades",)) as streamer:
            before = await whole_rows(database_url, dict.fromkeys(SYMBOLS, 0))
            exchange.faults.add([DROPPED_TRADES, *FAULTS])
            queue = streamer._capture.missing_ranges
            async with asyncio.timeout(WAIT_S):
                while queue.filled_rows < MORE_ROWS or not all(hits(exchange).values()):
                    await asyncio.sleep(0.1)
            exchange.faults.remove("holes")
            last_ids = {
                name: max(before[name][-1][0] + MORE_ROWS, stored(database_url, name)[-1][0])
                for name in SYMBOLS
            }
            rows = await whole_rows(database_url, last_ids)
        exchange.faults.remove("void")
        for name in SYMBOLS:
            first_id, last_id = rows[name][0][0], rows[name][-1][0]
            theirs = await asyncio.to_thread(served, exchange, name, first_id, last_id)
            assert rows[name] == theirs
        assert all(hits(exchange).values())


async def whole_rows(database_url: str, last_ids: dict[str, int]) -> dict[str, list[Row]]:
    """Rows up to these ids, or up to the newest for id 0, once no id between them is missing.

    Newer rows do not count: on a busy machine some of them may always be missing.
    """
    async with asyncio.timeout(WAIT_S):
        while True:
            rows = {
                name: [
                    row
                    for row in await asyncio.to_thread(stored, database_url, name)
                    if not last_id or row[0] <= last_id
                ]
                for name, last_id in last_ids.items()
            }
            if all(is_whole(rows[name], last_id) for name, last_id in last_ids.items()):
                return rows
            await asyncio.sleep(0.1)


def is_whole(rows: list[Row], last_id: int) -> bool:
    ids = [row[0] for row in rows]
    return bool(ids) and ids[-1] >= last_id and ids == list(range(ids[0], ids[-1] + 1))


def hits(exchange: Exchange) -> dict[str, int]:
    return {one["id"]: one["hits"] for one in exchange.faults.listed()}
