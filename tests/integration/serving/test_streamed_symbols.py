"""Separate servers follow added and dropped symbols, by gRPC and over NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx

from include.config import Settings
from include.domain.accounts import Role
from include.store.accounts import users as accounts
from include.store.accounts import watchlists
from include.store.postgres.pools import connect
from serving.process import serve
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.serving.grpc.test_market_data import grpc_address
from tests.integration.streamer.harness import settings_for, streaming
from tests.nats_server import nats_server
from tests.ports import steady_port

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
WITHIN_S = 30.0


@asynccontextmanager
async def serving(settings: Settings, address: str) -> AsyncIterator[Settings]:
    """A server before a streamer; before NATS where no address is given."""
    stop = asyncio.Event()
    task = asyncio.create_task(serve(settings, address, stop))
    try:
        yield settings
        assert not task.done()
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


@asynccontextmanager
async def streamed_lists(settings: Settings) -> AsyncIterator[list[set[str]]]:
    """Each change of the streamed symbols, as a gRPC reader receives it."""
    told: list[set[str]] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:

        async def read() -> None:
            call = services.MarketDataStub(channel).StreamCandles(
                pb.StreamCandlesRequest(), wait_for_ready=True
            )
            async for message in call:
                if message.HasField("streamed"):
                    told.append(set(message.streamed.symbols))

        reading = asyncio.create_task(read())
        try:
            yield told
            assert not reading.done()
        finally:
            reading.cancel()
            await asyncio.wait([reading], timeout=5)


async def until_streamed(tellings: list[list[set[str]]], symbols: set[str]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not all(told and told[-1] == symbols for told in tellings):
            await asyncio.sleep(0.05)


async def price_status(settings: Settings, symbol: str) -> int:
    """Symbols of the 24-hour prices, which include streamed ones only."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{settings.api_port}", timeout=30
    ) as client:
        return (await client.get("/api/v1/prices", params={"symbol": symbol})).status_code


async def test_server_processes_follow_the_symbols_of_streamers(
    database_url: str,
) -> None:
    with connect(database_url, application_name="test") as connection:
        accounts.add_user(connection, "anna", HASH, Role.READER)
        found = accounts.password_of(connection, "anna")
        assert found is not None
        anna = found.user_id

    def change(call: Any) -> None:
        with connect(database_url, application_name="test") as connection:
            call(connection, anna, "ETHUSDT")

    config = SimulatorConfig(speed=30, spot_symbols=("BTCUSDT", "ETHUSDT"))
    async with Exchange(config) as exchange, nats_server() as nats:
        settings = settings_for(exchange, database_url, grpc_port=0, api=False, nats_url=nats.url)

        def ours(**changes: Any) -> Settings:
            ports = {"grpc_port": steady_port(), "api_port": steady_port()}
            return settings_for(exchange, database_url, **ports, **changes)

        async with streaming(settings, "BTCUSDT") as streamer:
            address = await grpc_address(streamer)
            async with (
                serving(ours(), address) as by_grpc,
                serving(ours(nats_url=nats.url), "") as by_nats,
                streamed_lists(by_grpc) as first,
                streamed_lists(by_nats) as second,
            ):
                tellings, servers = [first, second], [by_grpc, by_nats]
                await until_streamed(tellings, {"BTCUSDT"})
                change(watchlists.watch)
                await until_streamed(tellings, {"BTCUSDT", "ETHUSDT"})
                for one in servers:
                    assert await price_status(one, "ETHUSDT") == 200
                change(watchlists.unwatch)
                await until_streamed(tellings, {"BTCUSDT"})
                assert await price_status(by_grpc, "ETHUSDT") == 404
                # A candle handled after the heartbeat that dropped its symbol lists the symbol
                # again until the next heartbeat.
                async with asyncio.timeout(WITHIN_S):
                    while await price_status(by_nats, "ETHUSDT") != 404:
                        await asyncio.sleep(0.05)
                assert first == [{"BTCUSDT"}, {"BTCUSDT", "ETHUSDT"}, {"BTCUSDT"}]
