"""Ids missing at a stop are fetched after it, however late the next start is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.capture.queries import AGG_TRADES, wait_until
from tests.integration.streamer.harness import settings_for, streaming

EVENING = datetime(2025, 11, 21, 23, 40, tzinfo=UTC)
SYMBOL = "BTCUSDT"


@pytest.mark.long
async def test_ids_refused_until_a_stop_are_fetched_after_a_start_on_another_day(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    config = SimulatorConfig(speed=60, clock_start=EVENING, spot_symbols=(SYMBOL,), um_symbols=())
    midnight_us = to_us(EVENING) // DAY_US * DAY_US + DAY_US
    async with Exchange(config) as exchange:
        settings = settings_for(
            exchange, database_url, candelabra_home=tmp_path, fill_lookback_minutes=1
        )

        async def stored() -> bool:
            return len(await rows_of(AGG_TRADES, SYMBOL)) > 20

        async with streaming(settings, SYMBOL, capture=("agg_trades",)) as streamer:
            await wait_until(stored)
            exchange.faults.add(
                [
                    {"id": "refused", "kind": "rest_error", "status": 403,
                     "endpoints": "aggTrades"},
                    {"id": "missing_ranges", "kind": "drop", "streams": "*@aggTrade", "share": 0.6},
                ]
            )  # fmt: skip

            async def missing() -> bool:
                return streamer._capture.missing_ranges.waiting_ids > 20

            await wait_until(missing)
            exchange.faults.remove("missing_ranges")
            written = streamer._capture.writer.written

            async def went_on() -> bool:
                return written["agg_trades"] > before

            before = written["agg_trades"]
            await wait_until(went_on)
        assert (
            max(
                missing_range.to_us
                for _, _, missing_range in streamer._capture.missing_ranges.missing
            )
            < midnight_us
        )

        async def another_day() -> bool:
            return exchange.clock.now_us() > midnight_us + 2 * MINUTE_US

        await wait_until(another_day)
        exchange.faults.remove("refused")
        async with streaming(settings, SYMBOL, capture=("agg_trades",)):

            async def is_complete() -> bool:
                rows = await rows_of(AGG_TRADES, SYMBOL)
                ids = [row[0] for row in rows]
                is_whole = ids == list(range(ids[0], ids[-1] + 1))
                return is_whole and to_us(rows[-1][5]) > midnight_us + 2 * MINUTE_US

            await wait_until(is_complete)
        assert await rows_of("SELECT * FROM ops.gaps WHERE dataset <> 'candles_1m'") == []
