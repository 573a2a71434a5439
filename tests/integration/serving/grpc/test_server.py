"""The server as strangers find it: health, reflection, TLS; and what it answers to nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import DAY_US, MINUTE_US
from include.errors import PermanentError
from include.store.candles.minutes import merge_candidates
from include.store.instruments import write_instruments
from include.store.postgres.pools import connect
from serving.bars.live_bars import LiveBars
from serving.grpc import server as grpc_server
from serving.grpc.market_data import MAX_PAGE, MarketData
from serving.grpc.server import grpc_serving
from serving.protobuf.bars import time_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from serving.read_pool import ReadPool
from streamer.hub.subscription import Batch, CandleUpdate

T0 = 1_700_000_040_000_000
NOW_US = T0 + 600 * MINUTE_US
ROWS = 5


class Quiet:
    """One state, and then nothing."""

    def __init__(self) -> None:
        self.told = False

    async def receive(self) -> Batch | None:
        if self.told:
            await asyncio.Event().wait()
        self.told = True
        return Batch([CandleUpdate(silent_candle("BTCUSDT", NOW_US, Decimal(1)), False)], {})

    def unsubscribe(self) -> None:
        pass


@asynccontextmanager
async def serving(database_url: str, **options: Any) -> AsyncIterator[str]:
    history = ReadPool(database_url)
    history.open()
    live_bars = LiveBars(Quiet, lambda _symbol, _newest: ((), (), ()))
    listening = asyncio.create_task(live_bars.run())
    service = MarketData(live_bars, history, streamed=lambda: ["BTCUSDT"], now_us=lambda: NOW_US)
    try:
        async with grpc_serving(service, **{"host": "127.0.0.1", "port": 0} | options) as address:
            yield address
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        history.close()


@pytest.fixture
def stored_url(database_url: str) -> str:
    """A database with a few minutes of one symbol."""
    instrument = Instrument(
        "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
    )
    with connect(database_url, application_name="test") as connection:
        write_instruments(connection, [instrument], T0)
        merge_candidates(
            connection,
            [
                CandleCandidate(
                    silent_candle("BTCUSDT", T0 + index * MINUTE_US, Decimal(index + 1)),
                    Status.VERIFIED,
                    Source.REST,
                    evidence_at_us=NOW_US,
                )
                for index in range(ROWS)
            ],
        )
    return database_url


async def test_client_without_our_code_discovers_and_calls_the_service(stored_url: str) -> None:
    """Like grpcurl: the client imports none of our code."""
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        pool = DescriptorPool()
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        names = ["google/protobuf/timestamp.proto"]

        async def asked(**request: str) -> Any:
            call = stub.ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=10
            )
            return await call.read()

        services_told = (await asked(list_services="")).list_services_response.service
        assert {one.name for one in services_told} == {
            "candelabra.v1.MarketData",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        files = (
            await asked(file_containing_symbol="candelabra.v1.MarketData")
        ).file_descriptor_response.file_descriptor_proto
        for name in names:
            found = (await asked(file_by_filename=name)).file_descriptor_response
            for raw in found.file_descriptor_proto:
                pool.Add(descriptor_pb2.FileDescriptorProto.FromString(raw))
        for raw in files:
            one = descriptor_pb2.FileDescriptorProto.FromString(raw)
            if one.name not in names:
                pool.Add(one)
        method = pool.FindServiceByName("candelabra.v1.MarketData").FindMethodByName("ListCandles")
        request = GetMessageClass(method.input_type)(symbol="BTCUSDT")
        answer = await channel.unary_unary(
            "/candelabra.v1.MarketData/ListCandles",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )(request, timeout=10)
        assert [one.close for one in answer.candles] == ["1", "2", "3", "4", "5"]


async def test_health_uses_the_standard_service(stored_url: str) -> None:
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "candelabra.v1.MarketData"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_pages_follow_one_another_without_overlap(stored_url: str) -> None:
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        stub = services.MarketDataStub(channel)
        found: list[str] = []
        token = ""
        for _ in range(ROWS):
            answer = await stub.ListCandles(
                pb.ListCandlesRequest(
                    symbol="BTCUSDT", page_size=2, page_token=token, from_time=time_of(T0)
                ),
                timeout=10,
            )
            found += [one.close for one in answer.candles]
            if not (token := answer.next_page_token):
                break
        assert found == ["1", "2", "3", "4", "5"]


async def test_instruments_are_listed(stored_url: str) -> None:
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        stub = services.MarketDataStub(channel)
        answer = await stub.ListInstruments(pb.ListInstrumentsRequest(market="spot"), timeout=10)
        assert [one.symbol for one in answer.instruments] == ["BTCUSDT"]
        answer = await stub.ListInstruments(pb.ListInstrumentsRequest(market="um"), timeout=10)
        assert not answer.instruments


def stamp(moment_us: int) -> Timestamp:
    return time_of(moment_us)


WRONG = [
    ("ListCandles", pb.ListCandlesRequest(), "INVALID_ARGUMENT", "symbol is empty"),
    ("ListCandles", pb.ListCandlesRequest(symbol="BTCUSD"), "NOT_FOUND", "did you mean BTCUSDT"),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="'; DROP TABLE market.candles_1m; --"),
        "NOT_FOUND",
        "no symbol",
    ),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSDT", timeframe="7m"),
        "INVALID_ARGUMENT",
        "known are 1m, 3m",
    ),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSDT", page_size=MAX_PAGE + 1),
        "INVALID_ARGUMENT",
        "should be 1 to 10,000",
    ),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSDT", page_size=-1),
        "INVALID_ARGUMENT",
        "should be 1 to 10,000",
    ),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSDT", from_time=stamp(T0), to_time=stamp(T0 - 1)),
        "INVALID_ARGUMENT",
        "lies before from_time",
    ),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSDT", from_time=Timestamp(seconds=1 << 60)),
        "INVALID_ARGUMENT",
        "years 1 to 9999",
    ),
    (
        "ListCandles",
        pb.ListCandlesRequest(symbol="BTCUSDT", page_token="../../etc/passwd"),
        "INVALID_ARGUMENT",
        "page_token",
    ),
    ("ListInstruments", pb.ListInstrumentsRequest(market="x"), "INVALID_ARGUMENT", "spot or um"),
    (
        "StreamCandles",
        pb.StreamCandlesRequest(symbols=["ETHUSDT"]),
        "NOT_FOUND",
        "'ETHUSDT' is not streamed",
    ),
    ("StreamCandles", pb.StreamCandlesRequest(symbols=["x" * 999]), "NOT_FOUND", "of 999 char"),
    (
        "StreamCandles",
        pb.StreamCandlesRequest(symbols=["BTCUSDT"] * 5_001),
        "INVALID_ARGUMENT",
        "5,000 at most",
    ),
    (
        "StreamCandles",
        pb.StreamCandlesRequest(timeframes=["1m", "2m"]),
        "INVALID_ARGUMENT",
        "unknown timeframe '2m'",
    ),
    (
        "StreamCandles",
        pb.StreamCandlesRequest(resume_from=stamp(NOW_US - 2 * DAY_US)),
        "INVALID_ARGUMENT",
        "within the day before",
    ),
    *(
        ("StreamCandles", pb.StreamCandlesRequest(resume_from=wrong), "INVALID_ARGUMENT", text)
        for wrong, text in (
            (Timestamp(seconds=10**15), "years 1 to 9999"),
            (Timestamp(seconds=-(10**15)), "years 1 to 9999"),
            (Timestamp(nanos=-3), "within the day before"),
        )
    ),
    (
        "StreamCandles",
        pb.StreamCandlesRequest(timeframes=["5m"], resume_from=stamp(NOW_US)),
        "INVALID_ARGUMENT",
        "timeframe 1m only",
    ),
]


async def test_invalid_requests_are_refused_with_the_allowed_values(stored_url: str) -> None:
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        stub = services.MarketDataStub(channel)
        for name, request, code, text in WRONG:
            call = getattr(stub, name)(request, timeout=10)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await (call.read() if name == "StreamCandles" else call)
            assert refused.value.code().name == code, request
            assert text in refused.value.details(), request


async def test_oversized_requests_and_excess_calls_are_refused(
    stored_url: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(grpc_server, "MAX_CALLS", 1)
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        stream = services.MarketDataStub(channel).StreamCandles
        with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
            await stream(pb.StreamCandlesRequest(symbols=["x" * (1 << 20)]), timeout=10).read()
        call = stream(pb.StreamCandlesRequest(), timeout=10)
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
            await stream(pb.StreamCandlesRequest(), timeout=10).read()


async def test_client_with_too_many_calls_is_refused_until_it_ends_one(stored_url: str) -> None:
    refused: list[str] = []
    limit = {"calls_per_client": 2, "on_refused": lambda: refused.append("one")}
    async with serving(stored_url, **limit) as address, AsyncExitStack() as stack:
        # Each connection is the same client.
        stubs = [
            services.MarketDataStub(
                await stack.enter_async_context(
                    grpc.aio.insecure_channel(
                        address, options=[("grpc.use_local_subchannel_pool", 1)]
                    )
                )
            )
            for _ in range(3)
        ]
        calls = [one.StreamCandles(pb.StreamCandlesRequest(), timeout=30) for one in stubs[:2]]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError, match="more than 2 concurrent calls") as failure:
            await stubs[2].StreamCandles(pb.StreamCandlesRequest(), timeout=10).read()
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError, match="more than 2 concurrent calls"):
            await stubs[2].ListInstruments(pb.ListInstrumentsRequest(), timeout=10)
        assert len(refused) == 2
        calls[0].cancel()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert await stubs[2].ListInstruments(pb.ListInstrumentsRequest(), timeout=10)
                    break
                await asyncio.sleep(0.01)
        calls[1].cancel()


async def test_health_is_streamed(stored_url: str) -> None:
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=10
        )
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
        call.cancel()


async def test_resumed_minutes_come_from_the_table(stored_url: str) -> None:
    async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
        stub = services.MarketDataStub(channel)
        call = stub.StreamCandles(
            pb.StreamCandlesRequest(resume_from=stamp(T0 + 2 * MINUTE_US)), timeout=10
        )
        first = await call.read()
        assert [one.candle.close for one in first.updates] == ["3", "4", "5"]
        second = await call.read()
        assert second.is_snapshot_end
        call.cancel()


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(some.binary(max_size=200), some.sampled_from(["ListCandles", "ListInstruments"]))
def test_any_bytes_are_answered_or_refused(stored_url: str, body: bytes, name: str) -> None:
    async def ask() -> None:
        async with serving(stored_url) as address, grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(f"/candelabra.v1.MarketData/{name}")
            answered = await asyncio.gather(call(body, timeout=10), return_exceptions=True)
            if isinstance(refused := answered[0], BaseException):
                assert isinstance(refused, grpc.aio.AioRpcError)
                assert refused.code().name in {"INVALID_ARGUMENT", "NOT_FOUND"}

    asyncio.run(ask())


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_garbage_for_reflection_is_refused_without_a_log_line(
    database_url: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    async with serving(database_url) as address, grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(f"/{name}")(iter([b"\xff\xff"]), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code().name == "INVALID_ARGUMENT"
    assert refused.value.details() == "the bytes are not a message of this call"
    assert [one for one in caplog.records if one.name.startswith("grpc")] == []


async def test_unavailable_database_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # no server listens there
        url = f"postgresql://nobody@127.0.0.1:{taken.getsockname()[1]}/none?connect_timeout=2"
        async with serving(url) as address, grpc.aio.insecure_channel(address) as channel:
            stub = services.MarketDataStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ListCandles(pb.ListCandlesRequest(symbol="BTCUSDT"), timeout=30)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "nobody" not in refused.value.details()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


async def test_server_with_a_certificate_accepts_only_tls(stored_url: str, tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    async with serving(stored_url, certificate=cert_file, key=key_file) as address:
        trusted = grpc.ssl_channel_credentials(cert_file.read_bytes())
        async with grpc.aio.secure_channel(address, trusted) as channel:
            stub = services.MarketDataStub(channel)
            answer = await stub.ListCandles(pb.ListCandlesRequest(symbol="BTCUSDT"), timeout=10)
            assert len(answer.candles) == ROWS
        async with grpc.aio.insecure_channel(address) as channel:
            stub = services.MarketDataStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ListCandles(pb.ListCandlesRequest(symbol="BTCUSDT"), timeout=10)


async def test_startup_error_names_its_setting(stored_url: str, tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options, text in (
            ({"port": port}, f"GRPC_PORT={port}"),
            ({"certificate": cert_file}, "GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE go together"),
            ({"certificate": tmp_path / "none.pem", "key": key_file}, "none.pem"),
        ):
            with pytest.raises(PermanentError, match=text):
                async with serving(stored_url, **options):
                    pass
