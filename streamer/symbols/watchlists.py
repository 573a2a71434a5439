"""Follow all watchlists by PostgreSQL notifications, without polling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import structlog

from include.backoff import Backoff, RetryLoop
from include.errors import PermanentError, TransientError
from include.store.accounts.notifications import notified_channels
from include.store.accounts.watchlists import WATCHLISTS_CHANNEL, watched_async

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=0.5, max_s=30.0, min_s=0.1)
READ_TIMEOUT_S = 10.0


async def follow_watchlists(url: str, on_watched: Callable[[frozenset[str]], None]) -> None:
    """Pass on all watched symbols, first and after each change, until cancelled.

    While PostgreSQL is away, the last known symbols stay watched. Afterwards all are read again,
    because notifications of that time are lost.

    Args:
        url: of a role that may read ``accounts.watched``.
    """

    async def follow() -> None:
        notifications = notified_channels(
            url, (WATCHLISTS_CHANNEL,), application_name="candelabra-watch"
        )
        async with contextlib.aclosing(notifications):
            async for connection, _ in notifications:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    watched = await watched_async(connection)
                loop.succeeded()
                on_watched(watched)

    loop = RetryLoop(
        BACKOFF,
        retry_on=(TransientError, PermanentError, TimeoutError),  # must not end the stream
        on_retry=partial(log.warning, "watchlists_not_read"),
        timeout_text=f"no answer within {READ_TIMEOUT_S:g} s",
    )
    await loop.run(follow)
