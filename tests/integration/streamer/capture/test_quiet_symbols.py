"""The candles of a symbol reveal a lost last trade."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.capture.repair import expected_trades as evidence
from streamer.capture.repair import trailing_trades as tails
from tests.integration.streamer.capture.queries import AGG_TRADES, TRADES, wait_until
from tests.integration.streamer.harness import settings_for, streaming


async def test_lost_trades_of_a_quiet_symbol_are_fetched(
    database_url: str,
    rows_of: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence, "POLL_INTERVAL_S", 0.2)
    monkeypatch.setattr(tails, "REST_DELAY_S", 0.2)
    async with Exchange(SimulatorConfig(speed=60, spot_symbols=("BTCUSDT", "ETHUSDT"))) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)

        async def last_ids() -> list[int]:
            return [
                max(row[0] for row in await rows_of(q, "ETHUSDT")) for q in (AGG_TRADES, TRADES)
            ]

        async def grown() -> bool:
            found = [await rows_of(query, "ETHUSDT") for query in (AGG_TRADES, TRADES)]
            return min(map(len, found)) > 50

        capture = ("agg_trades", "trades")
        async with streaming(settings, "BTCUSDT", "ETHUSDT", capture=capture) as streamer:
            await wait_until(grown)
            # From here on it has no frames, as if the last trade for hours was lost.
            exchange.faults.add(
                {
                    "kind": "drop", "market": "spot", "symbols": "ETHUSDT", "share": 1,
                    "duration_s": 36_000,
                }
            )  # fmt: skip
            before = await last_ids()

            async def reaches_further() -> bool:
                # Rows that arrived and were not stored yet are dropped too.
                return streamer._capture.tails.filled_rows > 0 and all(
                    one > other + 20 for one, other in zip(await last_ids(), before, strict=True)
                )

            await wait_until(reaches_further)
        for query in (AGG_TRADES, TRADES):
            ids = [row[0] for row in await rows_of(query, "ETHUSDT")]
            assert ids == list(range(ids[0], ids[-1] + 1))
