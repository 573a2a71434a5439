"""Faults that are there before the streamer is."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.domain.timeframes import MINUTE_US, minute_of
from include.jobs.klines.repair import repair_minutes
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.faults.matrix_streams import START
from tests.integration.faults.staging import (
    Rows,
    assert_equal,
    captured_log,
    events_of,
    minutes_of,
    oracle,
    outages_of,
    read_rows,
)
from tests.integration.streamer.harness import settings_for, streaming

ROOT = Path(__file__).parents[4]
CLOCK_START = datetime(2026, 11, 20, 6, 0, 30, tzinfo=UTC)
TRIES = 7  # a request is tried five times before the start is put off

FAULTS: list[dict[str, Any]] = [
    {"kind": "rest_error", "market": "spot", "endpoints": "exchangeInfo", "times": TRIES},
    {"kind": "rest_malformed", "market": "spot", "endpoints": "time", "times": TRIES},
    {"kind": "rest_cut", "market": "um", "endpoints": "exchangeInfo", "times": TRIES},
    {"kind": "slow_rest", "market": "um", "endpoints": "time", "delay_s": 1.2, "times": 1},
    {"kind": "refuse", "duration_s": 300},
]
CHANGES: list[dict[str, Any]] = [
    {"kind": "delisting", "market": "spot", "symbols": "OPUSDT", "at": "+5s"},
    {"kind": "halt", "market": "spot", "symbols": "PEPEUSDT", "at": "+5s", "duration_s": 7_200},
    {"kind": "ticker_reuse", "market": "spot", "symbols": "ETCUSDT", "at": "+5s", "pause_s": 60},
    {"kind": "new_listing", "market": "spot", "symbols": "NEWUSDT", "at": "+5s"},
]
BEHIND = {
    "kind": "rest_stale", "id": "behind", "market": "spot", "symbols": "NEWUSDT",
    "endpoints": "klines", "rows": 1_000, "times": 2,
}  # fmt: skip
"""The first servers to answer have no trade of it."""


async def until(holds: Any, what: str) -> None:
    try:
        async with asyncio.timeout(40):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what} did not hold in 40 s") from None


@pytest.mark.long
@pytest.mark.asyncio
async def test_start_waits_until_the_exchange_answers(database_url: str) -> None:
    config = SimulatorConfig(speed=40, spot_symbols=("BTCUSDT",), um_symbols=("BTCUSDT",))
    symbols = ("BTCUSDT", "BTCUSDT.P")
    with captured_log() as log:
        async with Exchange(config) as exchange:
            exchange.faults.add(FAULTS)
            settings = settings_for(exchange, database_url, http_timeout_s=1)
            rows: Rows = {}

            def is_right() -> bool:
                rows.clear()
                rows.update(read_rows(database_url))
                return all(
                    sum(row["status"] == "verified" for (n, _), row in rows.items() if n == name)
                    >= 2
                    for name in symbols
                )

            async with streaming(settings, *symbols):
                await until(is_right, "two minutes of each symbol")
            for name in symbols:
                first, *_, last = minutes_of(rows, name)
                assert_equal(exchange, rows, name, first, last + MINUTE_US)
            assert all(one["hits"] for one in exchange.faults.listed())
    for fault in FAULTS:
        assert set(START[fault["kind"]].events) <= set(events_of(log)), fault
    postponed = [one for one in log if one["event"] == "start_postponed"]
    assert [one["what"] for one in postponed] == ["exchange_info", "server_time", "exchange_info"]
    assert "503" in postponed[0]["error"]
    assert "other than JSON" in postponed[1]["error"]
    assert "no answer" in postponed[2]["error"]


@pytest.mark.asyncio
async def test_blocked_region_ends_the_start_with_a_message(database_url: str) -> None:
    cell = START["rest_error"]
    async with Exchange(SimulatorConfig(spot_symbols=("BTCUSDT",), um_symbols=())) as exchange:
        exchange.faults.add({"kind": "rest_error", "status": 451})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", "stream", "--symbols", "BTCUSDT",
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "BINANCE_WS_URL": exchange.spot_ws_url,
                "BINANCE_REST_URL": exchange.spot_rest_url,
                "PYTHONPATH": str(ROOT),
            },
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                said = (await process.communicate())[1].decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == cell.exit_code, said
    assert cell.says is not None
    assert cell.says in said
    assert "Traceback" not in said


@pytest.mark.long
@pytest.mark.asyncio
async def test_stopped_relisted_and_new_symbols_start_correctly(
    database_url: str,
) -> None:
    gone, halted, again, new = (str(change["symbols"]) for change in CHANGES)
    config = SimulatorConfig(
        spot_symbols=("BTCUSDT", gone, halted, again), um_symbols=(), clock_start=CLOCK_START,
        speed=60,
    )  # fmt: skip
    with captured_log() as log:
        async with Exchange(config) as exchange:
            settings = settings_for(exchange, database_url)
            began_us = minute_of(exchange.clock.now_us()) - 10 * MINUTE_US
            for name in (gone, halted, again):
                await asyncio.to_thread(
                    repair_minutes, settings=settings, symbol=name,
                    start_us=began_us, end_us=began_us + 5 * MINUTE_US,
                )  # fmt: skip
            exchange.faults.add([*CHANGES, BEHIND])
            before_us = minute_of(exchange.clock.now_us()) + 9 * MINUTE_US
            await until(lambda: exchange.clock.now_us() >= before_us, "the market has changed")
            rows: Rows = {}

            until_us = before_us + MINUTE_US

            def is_right() -> bool:
                rows.clear()
                rows.update(read_rows(database_url))
                return (
                    len(minutes_of(rows, new)) >= 2
                    and minutes_of(rows, again)[-1] > before_us
                    and bool(outages_of(database_url, again))
                    and all(row["status"] == "verified" for row in rows.values())
                    and all(
                        oracle(exchange, name, began_us, until_us).keys()
                        <= {*minutes_of(rows, name)}
                        for name in (gone, halted, again)
                    )
                )

            async with streaming(settings, "BTCUSDT", gone, halted, again, new):
                await until(is_right, "all symbols as the exchange has them")
            for name in (gone, halted, again):
                assert_equal(exchange, rows, name, began_us, until_us)
            first, *_, last = minutes_of(rows, new)
            assert first == minute_of(exchange.markets["spot"].history(new).start_us)
            assert [one["hits"] for one in exchange.faults.listed() if one["id"] == "behind"] == [2]
            assert_equal(exchange, rows, new, first, last + MINUTE_US)
            async with streaming(settings, "*USDT") as streamer:
                await until(lambda: streamer.telemetry.feeds, "the start")
                streamed = {one.symbol for one in streamer._aggregators}
            # symbols that stopped had recent rows: their last minutes may be missing
            assert streamed == {"BTCUSDT", gone, halted, again, new}
    for kind, name in (("delisting", gone), ("halt", halted), ("ticker_reuse", again)):
        assert set(START[kind].events) <= set(events_of(log, symbol=name)), kind
