"""What somebody watches, for the streamer to follow: told by PostgreSQL, never polled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from include.backoff import Backoff
from include.errors import PermanentError, TransientError
from include.store.accounts.notifications import heard
from include.store.accounts.watchlists import WATCHLISTS_CHANNEL, watched_async

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=0.5, max_s=30.0, min_s=0.1)
READ_TIMEOUT_S = 10.0


async def follow_watchlists(url: str, on_watched: Callable[[frozenset[str]], None]) -> None:
    """Tell of all that is watched, at once and whenever it changes, until cancelled.

    While PostgreSQL is away nothing is told: what was watched last goes on. Once it is back all is
    read anew, since what changed meanwhile was notified to nobody.

    Args:
        url: of a role that may read ``accounts.watched``.
    """
    failures = 0
    while True:
        try:
            notifications = heard(url, (WATCHLISTS_CHANNEL,), application_name="candelabra-watch")
            async with contextlib.aclosing(notifications):
                async for connection, _ in notifications:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        watched = await watched_async(connection)
                    failures = 0
                    on_watched(watched)
        except (TransientError, PermanentError, TimeoutError) as error:
            # Nobody's watchlist may end what the settings have streamed.
            failures += 1
            wait_s = BACKOFF.wait_s(failures)
            log.warning(
                "watchlists_not_read",
                error=str(error) or f"no answer within {READ_TIMEOUT_S:g} s",
                retry_in_s=round(wait_s, 2),
            )
            await asyncio.sleep(wait_s)
