"""HTTP responses that abort or arrive slowly, for faults of REST and of the dump site."""

import asyncio
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_SLOW_PARTS = 20
_ABORT_TIMEOUT_S = 5.0


class AbortedResponse(Response):
    """Send part of the body under the full Content-Length, then reset the connection.

    Needs `HttpConnection` (simulator.http.listeners), which provides the abort.

    Args:
        keep_percent: share of the body that is sent; 0 sends not even the headers.
        head: of a Starlette response: its media type, headers and status code.
    """

    def __init__(self, content: bytes, *, keep_percent: int, **head: Any) -> None:
        super().__init__(content, **head)
        self._keep_percent = keep_percent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keep_percent:
            sent = bytes(self.body)[: len(self.body) * self._keep_percent // 100]
            await _send_head(self, send)
            await send({"type": "http.response.body", "body": sent, "more_body": True})
        scope["state"]["abort"]()
        async with asyncio.timeout(_ABORT_TIMEOUT_S):
            while (await receive())["type"] != "http.disconnect":
                pass


class SlowResponse(Response):
    """Send the body in parts over a period.

    Args:
        seconds: real seconds from the headers to the last byte.
        head: of a Starlette response: its media type, headers and status code.
    """

    def __init__(self, content: bytes, *, seconds: float, **head: Any) -> None:
        super().__init__(content, **head)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        size = max(1, -(-len(body) // _SLOW_PARTS))
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        await _send_head(self, send)
        for part in parts:
            await asyncio.sleep(self._seconds / len(parts))
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_head(response: Response, send: Send) -> None:
    head = {"type": "http.response.start", "status": response.status_code}
    await send(head | {"headers": response.raw_headers})
