"""Minutes that PostgreSQL had acknowledged, and lacks when it is back, come by REST."""

from __future__ import annotations

import psycopg
import pytest

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.candles.events import AFTER_DATABASE_OUTAGE
from streamer.storage import failover_check as look_back
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    damage,
    is_verified,
    minutes_of,
    settings_for,
    streaming,
    wait_for_rows,
)

SYMBOL = "BTCUSDT"
ENOUGH_MINUTES = 8
END_SESSIONS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'candelabra-streamer'"
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
