"""Captured liquidations equal those that the exchange sent; what was missed is in the ledger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from websockets.asyncio.client import connect

from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import to_us
from simulator.config import SimulatorConfig
from simulator.server import Exchange, ExchangeThread
from streamer.capture.app import CUT
from tests.integration.streamer.capture.queries import wait_until
from tests.integration.streamer.capture.test_kills import Streamer, running
from tests.integration.streamer.capture.test_kills import wait_until as wait_for
from tests.integration.streamer.harness import settings_for, streaming

Values = tuple[Any, ...]

STORED = """
    SELECT
        order_time, side, order_type, time_in_force, price, average_price, quantity,
        last_filled_quantity, accumulated_quantity, order_status, received_at
    FROM market.liquidations WHERE symbol = %s ORDER BY order_time
"""
GAPS = """
    SELECT cause, from_time, to_time FROM ops.gaps
    WHERE symbol = %s AND dataset = 'liquidations'
"""
COUNT = "SELECT count(*) FROM market.liquidations WHERE symbol = %s"


def oracle(control_url: str, symbol: str, first_us: int, last_us: int) -> list[Values]:
    """The liquidations that the exchange has sent of a symbol."""
    answer = httpx.get(
        f"{control_url}/sim/liquidations",
        params={
            "market": market_of(symbol).value,
            "symbol": exchange_symbol_of(symbol),
            "startTime": first_us // 1_000,
            "endTime": last_us // 1_000,
        },
        timeout=60,
    )
    answer.raise_for_status()
    return [
        (
            one["T"] * 1_000, one["S"], one["o"], one["f"],
            *(Decimal(one[key]) for key in ("p", "ap", "q", "l", "z")), one["X"],
        )
        for one in answer.json()
    ]  # fmt: skip


def missing(rows: list[Values], sent: list[Values]) -> list[tuple[datetime, datetime]]:
    """Between which receipts liquidations are missing; the stored ones must be the exchange's."""
    stored = [(to_us(row[0]), *row[1:-1]) for row in rows]
    assert len(stored) == len(set(stored))
    assert set(stored) <= set(sent)
    known = set(stored)
    spans = []
    for one in sent:
        if one not in known:
            before = max(row[-1] for row in rows if to_us(row[0]) < one[0])
            after = min(row[-1] for row in rows if to_us(row[0]) > one[0])
            spans.append((before, after))
    return spans


def assert_covered(spans: list[tuple[datetime, datetime]], gaps: list[Values]) -> None:
    """Each missing liquidation arrived, or would have, within a gap."""
    for before, after in spans:
        assert any(start < after and before < end for _, start, end in gaps), (before, after, gaps)


@pytest.mark.long
async def test_captured_liquidations_equal_those_of_the_exchange(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    symbols = ("BTCUSDT", "BTCUSDT.P", "BTCUSD_PERP")
    async with Exchange(SimulatorConfig(speed=60)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)

        async def reach(least: int) -> None:
            async def enough() -> bool:
                return all([(await rows_of(COUNT, one))[0][0] >= least for one in symbols[1:]])

            await wait_until(enough)

        async with streaming(settings, *symbols, capture=("liquidations",)):
            await reach(10)
            for name in ("um", "cm"):
                exchange.stream_servers[name].cut()
            await reach(20)

            async def cut_is_recorded() -> bool:
                return all(
                    [CUT in {row[0] for row in await rows_of(GAPS, one)} for one in symbols[1:]]
                )

            await wait_until(cut_is_recorded)
        for symbol in symbols[1:]:
            rows = await rows_of(STORED, symbol)
            sent = await sent_by(exchange, symbol, rows)
            spans = missing(rows, sent)
            assert len(spans) < 10
            gaps = await rows_of(GAPS, symbol)
            assert_covered(spans, gaps)
        assert await rows_of(GAPS, "BTCUSDT") == []
        assert (await rows_of(COUNT, "BTCUSDT"))[0][0] == 0


async def sent_by(exchange: Exchange, symbol: str, rows: list[Values]) -> list[Values]:
    return await asyncio.to_thread(
        oracle, exchange.control_url, symbol, to_us(rows[0][0]), to_us(rows[-1][0])
    )


async def test_rest_and_websocket_deliver_the_same_liquidations(
    database_url: str, tmp_path: Path
) -> None:
    symbol = "BTCUSDT.P"
    async with Exchange(SimulatorConfig(speed=60)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path, grpc=False)
        async with streaming(settings, symbol, capture=("liquidations",)) as streamer:
            async with asyncio.timeout(60):
                while not (url := streamer.telemetry.api_url):
                    await asyncio.sleep(0.05)
            address = url.replace("http", "ws", 1)
            heard: list[dict[str, Any]] = []
            async with (
                asyncio.timeout(90),
                connect(f"{address}/api/v1/ws") as socket,
                httpx.AsyncClient(base_url=url) as client,
            ):
                wish = {"type": "subscribe", "channel": "liquidations", "symbol": symbol}
                refused = True
                while refused:  # until the symbol is streamed
                    await socket.send(json.dumps(wish))
                    refused = json.loads(await socket.recv())["type"] == "error"
                    await asyncio.sleep(0.2)
                while len(heard) < 5:
                    message = json.loads(await socket.recv())
                    if message["type"] == "liquidations":
                        assert message["is_sample"] is True
                        heard += message["data"]
                query = {
                    "symbol": symbol, "from": heard[0]["order_time"],
                    "to": heard[-1]["order_time"] + 1,
                }  # fmt: skip
                read: list[dict[str, Any]] = []
                while len(read) < len(heard):  # until the last one is stored
                    answer = await client.get("/api/v1/liquidations", params=query)
                    read = answer.raise_for_status().json()["liquidations"]
                    await asyncio.sleep(0.1)
    times = ("order_time", "event_time")
    for one in read:
        one |= {name: to_us(datetime.fromisoformat(one[name])) // 1_000 for name in times}
    own = {"received_at"}  # two connections
    assert [{k: v for k, v in one.items() if k not in own} for one in read] == [
        {k: v for k, v in one.items() if k not in own} for one in heard
    ]


@pytest.mark.long
def test_twin_streamers_store_each_liquidation_once_despite_kills_and_disconnects(
    database_url: str, tmp_path: Path
) -> None:
    symbols = ("BTCUSDT.P", "ETHUSDT.P")

    def asked(query: str, symbol: str) -> list[Values]:
        with psycopg.connect(database_url) as connection:
            return connection.execute(query, (symbol,)).fetchall()

    def grow(streamer: Streamer, by: int = 8) -> None:
        before = [asked(COUNT, one)[0][0] for one in symbols]

        def has_grown() -> bool:
            now = [asked(COUNT, one)[0][0] for one in symbols]
            return all(new >= old + by for old, new in zip(before, now, strict=True))

        wait_for(has_grown, streamer)

    homes = [tmp_path / name for name in "ab"]
    for home in homes:
        home.mkdir()
    options = {"symbols": ",".join((*symbols, "BTCUSDT")), "capture": "liquidations"}
    with ExchangeThread(SimulatorConfig(speed=60)) as exchange:
        with (
            running(exchange, database_url, homes[0], **options) as first,
            running(exchange, database_url, homes[1], **options) as second,
        ):
            grow(first)
            httpx.post(f"{exchange.control_url}/sim/cut?market=um").raise_for_status()
            grow(second)
            first.kill()
            grow(second)
            first.start()
            grow(first)
            second.kill()
            grow(first)
            first.kill()
            time.sleep(2)  # nobody captures
            first.start()
            second.start()
            grow(first, 20)
            for streamer in (first, second):
                streamer.end()
        for symbol in symbols:
            rows = asked(STORED, symbol)
            sent = oracle(exchange.control_url, symbol, to_us(rows[0][0]), to_us(rows[-1][0]))
            spans = missing(rows, sent)
            assert len(rows) > 40
            assert spans  # while nobody captured
            assert_covered(spans, asked(GAPS, symbol))
