"""The gRPC server: health, reflection, TLS, and a bounded shutdown."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from include.config import GRPC_PORT as DEFAULT_PORT
from include.errors import PermanentError
from serving.auth.service import AuthService
from serving.grpc.authentication import TokenInterceptor
from serving.grpc.call_limit import CallLimitInterceptor
from serving.grpc.market_data import MarketData
from serving.grpc.reflection import enable_reflection
from serving.grpc.tick_streams import NO_MESSAGE
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services

log = structlog.get_logger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["MarketData"].full_name
MAX_CALLS = 1_000
"""Concurrent calls; further callers should retry later."""
CALLS_PER_CLIENT = 500
MAX_REQUEST_BYTES = 1 << 20
KEEPALIVE_MS = 30_000
"""A peer that answers no ping for this and the timeout below counts as gone."""
KEEPALIVE_TIMEOUT_MS = 10_000
"""Set twice below: gRPC 1.85 waits a minute for any ping and ignores the keepalive timeout
(``keepalive_ping_timeout_handle`` is set only if it is set already).
"""
STOP_S = 1.0


@asynccontextmanager
async def grpc_serving(
    service: MarketData,
    *,
    host: str,
    port: int | None,
    certificate: Path | None = None,
    key: Path | None = None,
    auth: AuthService | None = None,
    calls_per_client: int = CALLS_PER_CLIENT,
    on_refused: Callable[[], None] = lambda: None,
) -> AsyncIterator[str]:
    """Serve ``MarketData``; yields the address, host and port.

    Args:
        host: address to listen on.
        port: 0 lets the system choose; None is 50051, or any port if that is taken.
        certificate, key: PEM files; with them the server requires TLS.
        auth: authenticates callers, if accounts are required.
        calls_per_client: maximum concurrent calls of a client.
        on_refused: called for each call beyond that.

    Raises:
        PermanentError: the address or port is unavailable, or a file cannot be read.
    """
    credentials = _credentials(certificate, key)
    server = grpc.aio.server(
        interceptors=[
            CallLimitInterceptor(calls_per_client, on_refused),
            *([TokenInterceptor(auth)] if auth is not None and auth.is_required else []),
            _Decoding(),
        ],
        maximum_concurrent_rpcs=MAX_CALLS,
        options=[
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
            ("grpc.so_reuseport", 0),  # two servers on one port would share the callers
        ],
    )
    services.add_MarketDataServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    enable_reflection(names, server)
    address = _bound(server, host, port, credentials)
    await server.start()
    for name in ("", SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("grpc_listening", address=address, tls=credentials is not None)
    try:
        yield address
    finally:
        await checks.enter_graceful_shutdown()
        await server.stop(STOP_S)


class _Decoding(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses invalid messages; the library would log them as our errors."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return handler
        decode = handler.request_deserializer
        if handler.request_streaming:

            async def decode_all(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
                messages = (decode(body) async for body in bodies)
                try:
                    async for answer in handler.stream_stream(messages, context):
                        yield answer
                except DecodeError:  # of reflection; our own calls handle it
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)

            return grpc.stream_stream_rpc_method_handler(
                decode_all, response_serializer=handler.response_serializer
            )

        async def decoded(body: bytes, context: Any) -> Any:
            try:
                return decode(body)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)

        if handler.response_streaming:

            async def stream(body: bytes, context: Any) -> AsyncIterator[Any]:
                answers = handler.unary_stream(await decoded(body, context), context)
                if inspect.isawaitable(answers):  # ``Watch`` of health writes to the context
                    await answers
                    return
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        yield answer

            return grpc.unary_stream_rpc_method_handler(
                stream, response_serializer=handler.response_serializer
            )

        async def answer(body: bytes, context: Any) -> Any:
            return await handler.unary_unary(await decoded(body, context), context)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )


def _credentials(certificate: Path | None, key: Path | None) -> grpc.ServerCredentials | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise PermanentError(
            "GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE go together: set both, or none"
        )
    contents = []
    for name, path in (("GRPC_TLS_KEY_FILE", key), ("GRPC_TLS_CERT_FILE", certificate)):
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise PermanentError(
                f"{name}={path}: {error.strerror}; should be a PEM file"
            ) from error
    return grpc.ssl_server_credentials([(contents[0], contents[1])])


def _bound(
    server: grpc.aio.Server, host: str, port: int | None, credentials: grpc.ServerCredentials | None
) -> str:
    wanted = [DEFAULT_PORT, 0] if port is None else [port]
    shown = f"[{host}]" if ":" in host else host
    failure: Exception | None = None
    for one in wanted:
        try:
            found = (
                server.add_insecure_port(f"{shown}:{one}")
                if credentials is None
                else server.add_secure_port(f"{shown}:{one}", credentials)
            )
        except RuntimeError as error:
            failure = error
            continue
        return f"{shown}:{found}"
    raise PermanentError(
        f"cannot listen on GRPC_HOST={host}, GRPC_PORT={port}: the address is taken or not of this "
        "machine; free the port, choose another, 0 to let the system choose, or switch it off with "
        "GRPC=false"
    ) from failure
