"""COIN-M and dated contracts, from socket to table, against the simulated exchange."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import psycopg

from include.domain.timeframes import MINUTE_US, minute_of, to_us
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    open_gaps,
    rows_of,
    rows_to,
    settings_for,
    streaming,
    verified_to,
    wait_for_rows,
)

DELIVERY = datetime(2026, 3, 27, 8, tzinfo=UTC)
SYMBOLS = ["BTCUSD_PERP", "BTCUSD_260327", "BTCUSDT_260327.P"]
FAST = SimulatorConfig(
    speed=20,
    start=datetime(2026, 3, 26, tzinfo=UTC),
    clock_start=datetime(2026, 3, 27, 7, 30, 20, tzinfo=UTC),
)


async def test_contracts_of_both_families_equal_the_exchange(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, *SYMBOLS):
            goal_us = minute_of(exchange.clock.now_us()) + 3 * MINUTE_US
            rows = await wait_for_rows(
                database_url, lambda rows: verified_to(rows, goal_us, SYMBOLS)
            )
        rows = rows_to(rows, goal_us)
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)
        assert {row["source"] for row in rows.values()} == {"kline"}


async def test_open_candle_of_coin_m_has_no_quote_volume(database_url: str) -> None:
    async with Exchange(replace(FAST, speed=5)) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "BTCUSD_PERP"):
            connecting = psycopg.AsyncConnection.connect(database_url, autocommit=True)
            async with await connecting as connection, asyncio.timeout(90):
                seen: set[bool] = set()
                while not seen:
                    cursor = await connection.execute(
                        "SELECT quote_volume IS NULL AND taker_buy_quote_volume IS NULL "
                        "FROM market.candles_1m_live WHERE status = 'live' AND trade_count > 0"
                    )
                    seen |= {no_quotes for (no_quotes,) in await cursor.fetchall()}
                    await asyncio.sleep(0.05)
            assert seen == {True}


async def test_delivery_ends_a_contract_without_a_gap(database_url: str) -> None:
    delivery_us = to_us(DELIVERY)
    dated = SYMBOLS[1:]
    config = replace(FAST, clock_start=datetime(2026, 3, 27, 7, 57, 20, tzinfo=UTC))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, symbols_refresh_s=1)
        async with streaming(settings, *SYMBOLS, "BTCUSD_26*"):
            last_us = delivery_us - MINUTE_US
            await wait_for_rows(database_url, lambda rows: verified_to(rows, last_us, dated))
            goal_us = delivery_us + 6 * MINUTE_US
            going_on = ["BTCUSD_PERP"]
            rows = await wait_for_rows(
                database_url, lambda rows: verified_to(rows, goal_us, going_on)
            )
            assert max(at_us for symbol, at_us in rows if symbol in dated) == last_us
            # The next contract is listed at the delivery, and matches a pattern.
            await wait_for_rows(
                database_url, lambda rows: any(symbol == "BTCUSD_260925" for symbol, _ in rows)
            )
        rows = await rows_of(database_url)
        for symbol in dated:
            ours = {key: row for key, row in rows.items() if key[0] == symbol}
            await assert_equal_to_the_exchange(exchange, ours, [symbol])
            assert not open_gaps(database_url, symbol)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM ops.outages").fetchone() == (0,)
        ended = connection.execute(
            "SELECT symbol, listed_to FROM market.instruments WHERE listed_to IS NOT NULL "
            "AND symbol = ANY (%s) ORDER BY symbol",
            (dated,),
        ).fetchall()
    assert ended == [(symbol, DELIVERY) for symbol in sorted(dated)]
