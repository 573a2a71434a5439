"""Requires a token for gRPC calls; health probes stay open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from include.errors import PermanentError, TransientError
from serving.auth.middleware import bearer_of
from serving.auth.service import AuthService, Principal
from serving.grpc.handlers import Handler, handler_like

OPEN_SERVICE = "/grpc.health.v1.Health/"
LOGIN_HINT = "send an API token as metadata: authorization: Bearer …"
ENDED = "the token has ended"


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without a valid token, and ends streams whose token ends."""

    def __init__(self, auth: AuthService) -> None:
        self._auth = auth

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Handler]], details: Any
    ) -> Handler:
        """Called by the server for each call."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN_SERVICE):
            return handler
        metadata = {key: value for key, value in details.invocation_metadata or ()}
        secret = bearer_of(str(metadata.get("authorization", "")))
        try:
            principal = None if secret is None else await self._auth.principal(secret)
        except (TransientError, PermanentError, TimeoutError):
            return _refusing(
                handler, grpc.StatusCode.UNAVAILABLE, "the accounts cannot be read at present"
            )
        if principal is None:
            return _refusing(handler, grpc.StatusCode.UNAUTHENTICATED, LOGIN_HINT)
        return self._while_valid(handler, principal) if handler.response_streaming else handler

    def _while_valid(self, handler: Handler, principal: Principal) -> Handler:
        call = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def until_ended(request: Any, context: Any) -> AsyncIterator[Any]:
            answers = call(request, context)
            with self._auth.stay(principal) as open_connection:
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        if open_connection.over.is_set():
                            await context.abort(grpc.StatusCode.UNAUTHENTICATED, ENDED)
                        yield answer

        return handler_like(handler, until_ended)


def _refusing(handler: Handler, status: grpc.StatusCode, why: str) -> Handler:
    async def refuse(_request: Any, context: Any) -> Any:
        await context.abort(status, why)

    async def refuse_stream(_request: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(status, why)
        yield None  # never reached; makes this an async generator

    return handler_like(handler, refuse_stream if handler.response_streaming else refuse)
