"""A stop that lasts longer than the streamer looks back."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, minute_of, to_us
from include.jobs.klines.repair import repair_gaps
from include.jobs.status import read_status
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    minutes_of,
    settings_for,
    streaming,
    wait_for_rows,
)

SYMBOL = "BTCUSDT"
LOOKBACK = 3
GAPS = "SELECT from_time, to_time, cause, claimed_by FROM ops.gaps WHERE repaired_at IS NULL"


@pytest.mark.long
async def test_minutes_before_the_lookback_are_an_open_gap_until_jobs_repair_it(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=60, spot_symbols=(SYMBOL,), um_symbols=())
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, fill_lookback_minutes=LOOKBACK)
        async with streaming(settings, SYMBOL):
            rows = await wait_for_rows(database_url, lambda rows: bool(minutes_of(rows, SYMBOL)))
        last_us = max(minutes_of(rows, SYMBOL))
        while exchange.clock.now_us() < last_us + 9 * MINUTE_US:
            await asyncio.sleep(0.05)
        restarted_us = exchange.clock.now_us()
        async with streaming(settings, SYMBOL):
            await wait_for_rows(
                database_url, lambda rows: max(minutes_of(rows, SYMBOL)) > restarted_us
            )
            with psycopg.connect(database_url) as connection:
                ((start, end, cause, claimed_by),) = connection.execute(GAPS).fetchall()
            assert (to_us(start), cause, claimed_by) == (
                last_us + MINUTE_US, "not streamed", None,
            )  # fmt: skip
            horizon_us = minute_of(restarted_us) - LOOKBACK * MINUTE_US
            assert horizon_us <= to_us(end) <= horizon_us + 2 * MINUTE_US
        status = await asyncio.to_thread(read_status, settings=settings)
        assert status.health is not None
        assert [one.gaps for one in status.health.symbols] == [1]
        await asyncio.to_thread(repair_gaps, settings=settings, worker="test", older_than_s=0)
        with psycopg.connect(database_url) as connection:
            assert connection.execute(GAPS).fetchall() == []
        rows = await wait_for_rows(
            database_url,
            lambda rows: (
                minutes_of(rows, SYMBOL)
                == list(
                    range(
                        min(minutes_of(rows, SYMBOL)), max(minutes_of(rows, SYMBOL)) + 1, MINUTE_US
                    )
                )
            ),
        )
        await assert_equal_to_the_exchange(exchange, rows, [SYMBOL])
