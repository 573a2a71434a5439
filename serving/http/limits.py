"""Limits the requests of each client."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.auth.client_network import network_of
from serving.problems import answer

MAX_CLIENTS = 10_000
"""Remembered clients; beyond this the least recent one is forgotten."""
MINUTE_S = 60.0


@dataclass(slots=True)
class _Bucket:
    left: float
    seen_s: float


class RateLimiter:
    """A token bucket for each client, refilled evenly over a minute.

    Args:
        per_minute: requests that a client may make in a minute, in one burst if it likes.
        clock: in seconds.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, client: str) -> tuple[bool, int, float]:
        """Count a request of a client.

        Returns:
            Whether it is allowed; how many are left; seconds until there is one more.
        """
        now_s = self._clock()
        bucket = self._buckets.pop(client, None) or _Bucket(self.per_minute, now_s)
        rate = self.per_minute / MINUTE_S
        bucket.left = min(self.per_minute, bucket.left + (now_s - bucket.seen_s) * rate)
        bucket.seen_s = now_s
        self._buckets[client] = bucket
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        may = bucket.left >= 1
        if may:
            bucket.left -= 1
        return may, int(bucket.left), max(0.0, (1 - bucket.left) / rate)


class RateLimitMiddleware:
    """Answers 429 beyond the limit, and adds rate-limit headers (draft-ietf-httpapi)."""

    def __init__(self, app: ASGIApp, limit: RateLimiter) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # By network: a client with an IPv6 address has 2^64 of them.
        client = network_of(scope["client"][0] if scope.get("client") else "").name
        may, left, wait_s = self._limit.take(client)
        limit_headers = {
            "ratelimit-limit": str(self._limit.per_minute),
            "ratelimit-remaining": str(left),
            "ratelimit-reset": str(math.ceil(wait_s)),
        }
        if not may:
            problem = answer(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {self._limit.per_minute:,} requests in a minute; try again later",
                headers=limit_headers | {"retry-after": str(max(1, math.ceil(wait_s)))},
            )
            await problem(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in limit_headers.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)
