"""A streamer without a scheduler keeps ``market.instruments`` current."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.harness import settings_for, streaming

FAST = SimulatorConfig(speed=20)


async def registered(database_url: str) -> set[tuple[Any, ...]]:
    connecting = psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with await connecting as connection:
        rows = await connection.execute(
            "SELECT symbol, status FROM market.instruments WHERE listed_to IS NULL"
        )
        return set(await rows.fetchall())


async def wait_until_registered(database_url: str, symbol: str) -> set[tuple[Any, ...]]:
    async with asyncio.timeout(60):
        while symbol not in {name for name, _ in await registered(database_url)}:
            await asyncio.sleep(0.1)
    return await registered(database_url)


async def test_start_registers_the_whole_market(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "BTCUSDT"):
            found = await wait_until_registered(database_url, "ETHBTC")
    assert ("BTCUSDT", "TRADING") in found
    assert not any(symbol.endswith(".P") for symbol, _ in found)


async def test_new_listing_is_registered_immediately(database_url: str) -> None:
    config = SimulatorConfig(speed=20, spot_symbols=("BTCUSDT", "ETHUSDT"))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, symbols_refresh_s=0.2)
        async with streaming(settings, "*USDT"):
            await wait_until_registered(database_url, "ETHUSDT")
            exchange.faults.add(
                [{"kind": "new_listing", "market": "spot", "symbols": "NEWUSDT", "at": "+10s"}]
            )
            await wait_until_registered(database_url, "NEWUSDT")
