"""gRPC where accounts are required: a token or nothing, until the token ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from include.config import load_settings
from include.domain.accounts import Role
from include.errors import PermanentError
from include.store.accounts import users as accounts
from include.store.accounts.credentials import new_token, secret_hash
from include.store.postgres.pools import connect
from serving.process import serve
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from tests.integration.streamer.harness import settings_for, streaming
from tests.ports import steady_port

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
CONFIG = SimulatorConfig(speed=30, spot_symbols=("BTCUSDT", "ETHUSDT"))


def change(url: str, call: Callable[[psycopg.Connection[Any]], Any]) -> Any:
    with connect(url, application_name="test") as connection:
        return call(connection)


@pytest.fixture
def token(database_url: str) -> str:
    """Of an account anna."""
    secret = new_token()
    change(database_url, lambda c: accounts.add_user(c, "anna", HASH, Role.READER))
    add = accounts.add_token
    change(database_url, lambda c: add(c, "anna", "test", secret_hash(secret), days=None))
    return secret


async def until_it_serves(streamer: Streamer) -> tuple[str, str]:
    """Address of gRPC, URL of REST."""
    async with asyncio.timeout(30):
        while not (streamer.telemetry.grpc_address and streamer.telemetry.api_url):
            await asyncio.sleep(0.02)
    return streamer.telemetry.grpc_address, streamer.telemetry.api_url


@asynccontextmanager
async def guarded(database_url: str) -> AsyncIterator[tuple[str, str, Exchange]]:
    """A streamer that requires accounts."""
    async with Exchange(CONFIG) as exchange:
        settings = settings_for(exchange, database_url, grpc_port=0, api_port=0, auth_required=True)
        async with streaming(settings, "BTCUSDT") as streamer:
            yield (*await until_it_serves(streamer), exchange)


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def status_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_every_call_except_probes_needs_a_token(database_url: str, token: str) -> None:
    async with guarded(database_url) as (address, _, _), grpc.aio.insecure_channel(address) as line:
        stub = services.MarketDataStub(line)
        ask = pb.ListInstrumentsRequest()
        for metadata in (
            (),
            bearing("cdl_nonsense"),
            (("authorization", f"Basic {token}"),),
            (("authorization", ""),),
            (("authorization", "Bearer " + "x" * 5_000),),
            (("authorization-bin", b"\xff\x00"),),
        ):
            code = await status_of(stub.ListInstruments(ask, metadata=metadata, timeout=20))
            assert code is grpc.StatusCode.UNAUTHENTICATED, metadata
        streams = (
            stub.StreamCandles(pb.StreamCandlesRequest(), timeout=20),
            stub.StreamTrades(iter([pb.StreamTradesRequest(symbols=["BTCUSDT"])]), timeout=20),
        )
        for stream in streams:
            assert await status_of(stream.read()) is grpc.StatusCode.UNAUTHENTICATED
        asked = reflection_pb2_grpc.ServerReflectionStub(line).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=20
        )
        assert await status_of(asked.read()) is grpc.StatusCode.UNAUTHENTICATED
        newer = line.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert await status_of(newer(iter([b""]), timeout=20).read()) is (
            grpc.StatusCode.UNAUTHENTICATED
        )

        health = await health_pb2_grpc.HealthStub(line).Check(
            health_pb2.HealthCheckRequest(), timeout=20
        )
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        listed = await stub.ListInstruments(ask, metadata=bearing(token), timeout=20)
        assert isinstance(listed, pb.ListInstrumentsResponse)
        trades = stub.StreamTrades(metadata=bearing(token), timeout=60)
        await trades.write(pb.StreamTradesRequest(symbols=["BTCUSDT"]))
        async with asyncio.timeout(30):
            while not (await trades.read()).trades:
                pass
        trades.cancel()


async def test_stream_ends_with_its_token(database_url: str, token: str) -> None:
    async with guarded(database_url) as (address, _, _), grpc.aio.insecure_channel(address) as line:
        stub = services.MarketDataStub(line)
        call = stub.StreamCandles(pb.StreamCandlesRequest(), metadata=bearing(token), timeout=120)
        async with asyncio.timeout(30):
            while not (await call.read()).updates:
                pass
        change(database_url, lambda c: accounts.revoke_token(c, "anna", "test"))

        async def rest() -> None:
            while await call.read() is not grpc.aio.EOF:
                pass

        with pytest.raises(grpc.aio.AioRpcError, match="the token has ended"):
            await asyncio.wait_for(rest(), 30)


async def test_server_process_needs_its_own_token(database_url: str, token: str) -> None:
    async with guarded(database_url) as (address, api, _):
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{api}/api/v1/prices")).status_code == 401
            assert (await client.get(f"{api}/api/v1/health")).status_code == 200
        options = {"database_url": database_url, "grpc_port": 0, "api_port": 0}
        with pytest.raises(PermanentError, match="STREAMER_TOKEN should be a token"):
            async with asyncio.timeout(30):
                await serve(load_settings(**options), address, asyncio.Event())
        port, stop = steady_port(), asyncio.Event()
        ours = load_settings(**{**options, "grpc_port": port}, streamer_token=token)
        serving = asyncio.create_task(serve(ours, address, stop))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as line:
            stub = services.MarketDataStub(line)
            request = pb.StreamCandlesRequest(symbols=["BTCUSDT"])
            async with asyncio.timeout(60):
                while True:  # the symbol is known after the streamer's first message
                    assert not serving.done(), serving
                    call = stub.StreamCandles(request, wait_for_ready=True, timeout=60)
                    try:
                        assert (await call.read()).updates[0].candle.symbol == "BTCUSDT"
                    except grpc.aio.AioRpcError as error:
                        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                        await asyncio.sleep(0.1)
                    else:
                        break
        stop.set()
        async with asyncio.timeout(20):
            await serving
