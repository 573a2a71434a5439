"""Limits the concurrent gRPC calls of each client, so that one leaves room for others."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import unquote

import grpc

from serving.auth.client_network import network_of
from serving.grpc.handlers import Handler, handler_like


class CallLimitInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses a client's further calls while it has too many; health probes count as well.

    Args:
        max_per_client: concurrent calls of one network, as WebSockets are counted.
        on_refused: called for each refused call.
    """

    def __init__(self, max_per_client: int, on_refused: Callable[[], None]) -> None:
        self._max_per_client = max_per_client
        self._on_refused = on_refused
        self._by_client: Counter[str] = Counter()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: Any
    ) -> Handler:
        """Called by the server for each call."""
        handler = await continuation(details)
        if handler is None:
            return handler
        if not handler.response_streaming:
            answer = handler.stream_unary if handler.request_streaming else handler.unary_unary

            async def limited(request: Any, context: Any) -> Any:
                client = await self._client_with_room(context)
                with self._counted(client):
                    return await answer(request, context)

            return handler_like(handler, limited)
        call = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def limited_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            client = await self._client_with_room(context)
            with self._counted(client):
                async with contextlib.aclosing(call(request, context)) as answers:
                    async for one in answers:
                        yield one

        return handler_like(handler, limited_stream)

    async def _client_with_room(self, context: Any) -> str:
        """Return the caller's network; abort the call if it has too many."""
        client = network_of(address_of(context.peer())).name
        if self._by_client[client] >= self._max_per_client:
            self._on_refused()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"more than {self._max_per_client:,} concurrent calls; end one first",
            )
        return client

    @contextlib.contextmanager
    def _counted(self, client: str) -> Iterator[None]:
        self._by_client[client] += 1
        try:
            yield
        finally:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


def address_of(peer: str) -> str:
    """Return the IP address in gRPC's name of a peer, such as ``ipv6:%5B::1%5D:40000``."""
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
