"""Raw capture of symbols that are delisted, and of names that another instrument has by now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from include.domain.timeframes import MINUTE_US, minute_of
from include.jobs.instruments import sync_instruments
from include.jobs.klines.repair import repair_minutes
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from simulator.wire.payloads import agg_trade_rows
from streamer.capture.repair import expected_trades, former_symbols, trailing_trades
from tests.integration.streamer.capture.queries import AGG_TRADES, TRADES, wait_until
from tests.integration.streamer.harness import settings_for, streaming


@pytest.mark.long
async def test_last_trades_of_a_delisted_symbol_are_fetched(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    config = SimulatorConfig(speed=20, spot_symbols=("BTCUSDT", "ETHUSDT"))
    async with Exchange(config) as exchange:
        settings = settings_for(
            exchange, database_url, candelabra_home=tmp_path, symbols_refresh_s=0.2
        )
        tables = ((AGG_TRADES, "aggTrades", "a"), (TRADES, "historicalTrades", "id"))
        symbols = ("BTCUSDT", "ETHUSDT")

        async def grown(symbol: str, rows: int) -> bool:
            found = [len(await rows_of(query, symbol)) for query, _, _ in tables]
            return min(found) > rows

        async def last_ids(symbol: str) -> list[int]:
            """Once it no longer trades."""
            while exchange.markets["spot"].history(symbol).is_trading(exchange.clock.now_us()):
                await asyncio.sleep(0.05)
            rows = exchange.markets["spot"].agg_trades(
                symbol, view_us=exchange.clock.now_us(), limit=1
            )
            (row,) = agg_trade_rows(rows, unit_us=1)
            return [row["a"], row["l"]]

        async def is_complete(symbol: str) -> bool:
            last = await last_ids(symbol)
            stored = [[row[0] for row in await rows_of(query, symbol)] for query, _, _ in tables]
            return all(
                ids == list(range(ids[0], end + 1)) for ids, end in zip(stored, last, strict=True)
            )

        async with streaming(settings, *symbols, capture=("agg_trades", "trades")) as streamer:
            await wait_until(lambda: grown("BTCUSDT", 50))
            await wait_until(lambda: grown("ETHUSDT", 50))
            # No frame shows its end while it is delisted.
            for entry in (
                {"kind": "drop", "symbols": "ETHUSDT", "share": 1, "duration_s": 3_600},
                {"kind": "delisting", "symbols": "ETHUSDT", "at": "+60s"},
            ):
                exchange.faults.add({"market": "spot", **entry})
            await wait_until(lambda: is_complete("ETHUSDT"))
            assert streamer._capture.tails.filled_rows > 0
            await wait_until(lambda: grown("BTCUSDT", 200))
        # Another one is delisted while no streamer runs.
        exchange.faults.add(
            {"kind": "delisting", "market": "spot", "symbols": "BTCUSDT", "at": "+60s"}
        )
        await last_ids("BTCUSDT")
        async with streaming(settings, *symbols, capture=("agg_trades", "trades")):
            await wait_until(lambda: is_complete("BTCUSDT"))
        assert await rows_of("SELECT * FROM ops.gaps WHERE dataset <> 'candles_1m'") == []


async def test_last_trades_of_a_symbol_that_no_longer_trades_are_fetched(
    database_url: str,
    rows_of: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (expected_trades, former_symbols):
        monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.2)
    monkeypatch.setattr(trailing_trades, "REST_DELAY_S", 0.2)
    async with Exchange(SimulatorConfig(speed=60, spot_symbols=("BTCUSDT", "ETHUSDT"))) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        history = exchange.markets["spot"].history("ETHUSDT")

        async def ids() -> list[int]:
            return [row[0] for row in await rows_of(AGG_TRADES, "ETHUSDT")]

        async def grown() -> bool:
            return len(await ids()) > 50

        async with streaming(settings, "BTCUSDT", "ETHUSDT", capture=("agg_trades",)):
            await wait_until(grown)
        stopped_us = exchange.clock.now_us()
        exchange.faults.add(
            {"kind": "delisting", "market": "spot", "symbols": "ETHUSDT", "at": "+180s"}
        )
        while history.is_trading(exchange.clock.now_us() - 3 * MINUTE_US):
            await asyncio.sleep(0.05)
        # A killed process was the last to know of it. Its candles are complete, by a job.
        await asyncio.to_thread(sync_instruments, settings=settings)
        await asyncio.to_thread(
            repair_minutes,
            settings=settings,
            symbol="ETHUSDT",
            start_us=minute_of(stopped_us),
            end_us=minute_of((history.calendar.sessions[-1].stop_us or 0) - 1),
        )
        (row,) = agg_trade_rows(
            exchange.markets["spot"].agg_trades(
                "ETHUSDT", view_us=exchange.clock.now_us(), limit=1
            ),
            unit_us=1,
        )
        assert row["a"] > (await ids())[-1]

        async def is_complete() -> bool:
            found = await ids()
            return found == list(range(found[0], row["a"] + 1))

        async with streaming(settings, "BTCUSDT", capture=("agg_trades",)):
            await wait_until(is_complete)
        assert await rows_of("SELECT * FROM ops.gaps WHERE dataset <> 'candles_1m'") == []


@pytest.mark.long
async def test_reused_ticker_mixes_no_ids_and_records_its_loss(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=60, spot_symbols=("BTCUSDT", "ETHUSDT"))) as exchange:
        settings = settings_for(
            exchange, database_url, candelabra_home=tmp_path, symbols_refresh_s=0.2
        )

        async def ids() -> list[int]:
            query = "SELECT agg_trade_id FROM market.agg_trades WHERE symbol = 'ETHUSDT' ORDER BY "
            return [row[0] for row in await rows_of(query + "trade_time, agg_trade_id")]

        async def grown() -> bool:
            return len(await ids()) > 100

        gaps = "SELECT symbol, cause, detail FROM ops.gaps WHERE dataset = 'agg_trades'"

        async def has_restarted() -> bool:
            found = await ids()
            return sum(one < before for before, one in pairwise(found)) == 1 and found[-1] < 3_000

        async with streaming(settings, "BTCUSDT", "ETHUSDT", capture=("agg_trades",)):
            await wait_until(grown)
        # Its last trades and the change of instruments happen while no process captures.
        exchange.faults.add(
            {
                "kind": "ticker_reuse", "market": "spot", "symbols": "ETHUSDT", "at": "+60s",
                "pause_s": 120,
            }
        )  # fmt: skip

        async def is_another() -> bool:
            calendar = exchange.markets["spot"].history("ETHUSDT").calendar
            begins = [listing.start_us for listing in calendar.listings()]
            return len(begins) == 2 and begins[1] < exchange.clock.now_us()

        await wait_until(is_another)
        for _ in range(2):  # of the second start the table itself has both instruments
            async with streaming(
                settings, "BTCUSDT", "ETHUSDT", capture=("agg_trades",)
            ) as streamer:
                await wait_until(has_restarted)

                async def is_checked(capture: Any = streamer._capture) -> bool:
                    return (
                        capture._resumption.is_done("ETHUSDT")
                        and not capture.missing_ranges.waiting_ids
                    )

                await wait_until(is_checked)
                await wait_until(lambda: rows_of(gaps))
        found = await ids()
        (restart,) = [n for n, (before, one) in enumerate(pairwise(found), 1) if one < before]
        for part in (found[:restart], found[restart:]):
            assert part == list(range(part[0], part[-1] + 1))
        ((symbol, cause, stretches),) = await rows_of(gaps)
        assert (symbol, cause) == ("ETHUSDT", "the ticker was given to another instrument")
        assert list(stretches.values()) == [None]  # the number of ids in between is unknown
