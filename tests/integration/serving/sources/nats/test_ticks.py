"""Trades and best prices from a streamer over a real NATS server to readers of a server."""

from __future__ import annotations

import asyncio

import httpx
from websockets.asyncio.client import connect

from include.domain.timeframes import SECOND_US
from serving.process import serve
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.serving.test_live_ticks import compared, received, until_streamed
from tests.integration.streamer.harness import settings_for, streaming
from tests.nats_server import nats_server
from tests.ports import steady_port


async def test_trades_of_two_streamers_reach_readers_once(
    database_url: str,
) -> None:
    """Both stream BTCUSDT: its trades are delivered once."""
    async with Exchange(SimulatorConfig(speed=20)) as exchange, nats_server() as nats:
        settings = settings_for(
            exchange, database_url, grpc=False, api=False, nats_url=nats.url, streamer_http_port=0
        )
        api_port = steady_port()
        ours = settings_for(
            exchange, database_url, grpc=False, api_port=api_port, nats_url=nats.url
        )
        stop = asyncio.Event()
        async with (
            streaming(settings, "BTCUSDT") as first,
            streaming(settings, "BTCUSDT", "ETHUSDT.P") as second,
            httpx.AsyncClient(timeout=30) as client,
        ):
            serving = asyncio.create_task(serve(ours, "", stop))
            host = f"127.0.0.1:{api_port}"
            await until_streamed(client, host, serving)
            async with connect(f"ws://{host}/api/v1/ws") as socket:
                told = await received(socket)
            told_us = exchange.clock.now_us()
            async with asyncio.timeout(60):  # the newest rows of REST come a little late
                while exchange.clock.now_us() < told_us + 10 * SECOND_US:
                    await asyncio.sleep(0.05)
            await compared(client, exchange, [told])
            answer = await client.get(f"http://{host}/api/v1/symbols/ETHUSDT.P/book")
            assert answer.status_code == 200, answer.text
            stop.set()
            await asyncio.wait_for(serving, 10)
            async with asyncio.timeout(60):  # no reader wants them
                while first.telemetry.ticks.trades.wanted or second.telemetry.ticks.trades.wanted:
                    await asyncio.sleep(0.1)
