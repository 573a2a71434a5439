"""Minutes that PostgreSQL had acknowledged, and lacks when it is back, come by REST."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from include.domain.timeframes import to_us
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer import app
from streamer.candles.events import AFTER_DATABASE_OUTAGE
from streamer.storage import failover_check as look_back
from streamer.symbols.startup import StreamStart, find_start
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    damage,
    is_verified,
    minutes_of,
    settings_for,
    streaming,
    wait_for_rows,
)
from tests.integration.streamer.storage.own_server import own_server

SYMBOL = "BTCUSDT"
ENOUGH_MINUTES = 8
END_SESSIONS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'candelabra-streamer'"
)
LOSE_NEWEST = (
    "DELETE FROM market.candles_1m WHERE open_time IN"
    " (SELECT open_time FROM market.candles_1m ORDER BY open_time DESC LIMIT %s)"
    " RETURNING open_time"
)
CLOSED = "SELECT count(*) FROM ops.gaps WHERE cause = %s AND repaired_at IS NOT NULL"


async def test_minutes_missing_after_a_failover_are_requested(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_back, "CHECK_DELAY_S", 2.0)
    monkeypatch.setattr(look_back, "POLL_S", 0.05)
    config = SimulatorConfig(speed=60, spot_symbols=(SYMBOL,), um_symbols=())
    async with Exchange(config) as exchange:
        async with streaming(settings_for(exchange, database_url), SYMBOL):
            rows = await wait_for_rows(
                database_url, lambda rows: len(minutes_of(rows, SYMBOL)) >= ENOUGH_MINUTES
            )
            lost, unsure = minutes_of(rows, SYMBOL)[1:3]
            damage(database_url, SYMBOL, lost, unsure)
            with psycopg.connect(database_url) as connection:
                (cut,) = connection.execute(END_SESSIONS).fetchone() or (0,)
            assert cut >= 1
            rows = await wait_for_rows(
                database_url, lambda rows: is_verified(rows, SYMBOL, lost, unsure)
            )
            await assert_equal_to_the_exchange(exchange, rows, [SYMBOL])
        with psycopg.connect(database_url) as connection:
            (closed,) = connection.execute(CLOSED, (AFTER_DATABASE_OUTAGE,)).fetchone() or (0,)
        assert closed >= 1


@pytest.mark.long
async def test_minutes_lost_in_a_failover_during_the_start_are_requested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start has read rows; the server of the first write lacks the newest of them."""
    monkeypatch.setattr(look_back, "CHECK_DELAY_S", 2.0)
    monkeypatch.setattr(look_back, "POLL_S", 0.05)
    config = SimulatorConfig(speed=60, spot_symbols=(SYMBOL,), um_symbols=())
    with own_server() as server:
        async with Exchange(config) as exchange:
            settings = settings_for(exchange, server.url)
            async with streaming(settings, SYMBOL):
                rows = await wait_for_rows(
                    server.url, lambda rows: len(minutes_of(rows, SYMBOL)) >= ENOUGH_MINUTES
                )
            lost: list[int] = []
            is_over = asyncio.Event()

            async def find_start_and_fail_over(*args: Any) -> StreamStart:
                start = await find_start(*args)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start_again)
                lost.extend(lose_newest_rows(server.url, ENOUGH_MINUTES // 2))
                is_over.set()
                return start

            monkeypatch.setattr(app, "find_start", find_start_and_fail_over)
            async with streaming(settings, SYMBOL):
                await asyncio.wait_for(is_over.wait(), 60)
                rows = await wait_for_rows(
                    server.url, lambda rows: is_verified(rows, SYMBOL, *lost)
                )
                await assert_equal_to_the_exchange(exchange, rows, [SYMBOL])


def lose_newest_rows(database_url: str, count: int) -> list[int]:
    """Delete the newest rows, as a standby lacks them that takes over; return their open times."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(LOSE_NEWEST, (count,)).fetchall()
    assert len(rows) == count
    return [to_us(open_time) for (open_time,) in rows]
