"""Trades and best prices from a simulated exchange to readers, of a streamer and beyond it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from serving.process import serve
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.serving.grpc.test_market_data import (
    free_port,
    grpc_address,
)
from tests.integration.streamer.harness import settings_for, streaming

LEAST = 30


async def test_trades_reach_readers_of_the_streamer_and_of_a_server_process(
    database_url: str,
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, grpc_port=0, api_port=free_port())
        stop = asyncio.Event()
        async with streaming(settings, "BTCUSDT", "ETHUSDT.P") as streamer:
            address = await grpc_address(streamer)
            ours = settings_for(exchange, database_url, grpc_port=0, api_port=free_port())
            serving = asyncio.create_task(serve(ours, address, stop))
            near, far = f"127.0.0.1:{settings.api_port}", f"127.0.0.1:{ours.api_port}"
            async with httpx.AsyncClient(timeout=30) as client:
                await until_streamed(client, near)
                await until_streamed(client, far, serving)
                async with (
                    connect(f"ws://{near}/api/v1/ws") as first,
                    connect(f"ws://{far}/api/v1/ws") as second,
                ):
                    told = await asyncio.gather(received(first), received(second))
                for host in (near, far):
                    answer = await client.get(f"http://{host}/api/v1/symbols/BTCUSDT/book")
                    assert answer.status_code == 200, answer.text
                    book = answer.json()
                    assert float(book["bid_price"]) < float(book["ask_price"])
                    assert book["received_time"].startswith("20")
                await compared(client, exchange, told)
            stop.set()
            await asyncio.wait_for(serving, 10)
        assert not streamer.telemetry.ticks.trades.wanted


async def until_streamed(client: httpx.AsyncClient, host: str, *tasks: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        while True:
            for task in tasks:
                if task.done():
                    task.result()
            try:
                answer = await client.get(f"http://{host}/api/v1/prices")
            except httpx.TransportError:
                answer = None
            if answer is not None and {"BTCUSDT", "ETHUSDT.P"} <= {
                one["symbol"] for one in answer.json().get("prices", [])
            }:
                return
            await asyncio.sleep(0.05)


async def received(socket: ClientConnection) -> dict[str, list[dict[str, Any]]]:
    """Some trades of each symbol, and best prices of both."""
    for channel in ("trades", "book"):
        await socket.send(
            json.dumps(
                {"type": "subscribe", "channel": channel, "symbols": ["BTCUSDT", "ETHUSDT.P"]}
            )
        )
    found: dict[str, list[dict[str, Any]]] = {"BTCUSDT": [], "ETHUSDT.P": []}
    quoted: set[str] = set()
    async with asyncio.timeout(60):
        while len(quoted) < 2 or any(len(trades) < LEAST for trades in found.values()):
            message = json.loads(await socket.recv())
            assert message["type"] != "missed", message
            for one in message["data"] if message["type"] == "trades" else []:
                found[one["symbol"]].append(one)
            if message["type"] == "book":
                quoted |= {one["symbol"] for one in message["data"]}
    return found


async def compared(
    client: httpx.AsyncClient, exchange: Exchange, told: list[dict[str, list[dict[str, Any]]]]
) -> None:
    """No trade is left out, and each is the exchange's."""
    for found in told:
        for symbol, trades in found.items():
            ids = [one["id"] for one in trades]
            assert ids == list(range(ids[0], ids[0] + len(ids))), symbol
            base, path = (
                (exchange.spot_rest_url, "/api/v3/aggTrades")
                if symbol == "BTCUSDT"
                else (exchange.um_rest_url, "/fapi/v1/aggTrades")
            )
            asked = {"symbol": symbol.removesuffix(".P"), "fromId": ids[0], "limit": LEAST}
            theirs: list[dict[str, Any]] = []
            async with asyncio.timeout(30):
                while len(theirs) < LEAST:  # REST may be behind the streams
                    answer = await client.get(base + path, params=asked)
                    theirs = answer.raise_for_status().json()
            for one, their in zip(trades, theirs, strict=False):
                assert (one["price"], one["quantity"]) == (their["p"], their["q"])
                assert (one["id"], one["time"], one["is_buyer_maker"]) == (
                    their["a"], their["T"], their["m"],
                )  # fmt: skip
                assert (one["first_trade_id"], one["last_trade_id"]) == (their["f"], their["l"])
