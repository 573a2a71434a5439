"""Listen for PostgreSQL notifications, so that changes are read immediately without polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import Any

import psycopg
from psycopg import sql

from include.errors import TransientError
from include.store.postgres.pools import connect_async, ping_async, translated

GATHER_S = 0.1
"""Notifications within this time after the first are handled together."""
QUIET_S = 30.0
"""After this time without notifications the server is pinged: a frozen server sends none."""
ANSWER_S = 10.0


async def notified_channels(
    url: str, channels: Collection[str], *, application_name: str
) -> AsyncGenerator[tuple[psycopg.AsyncConnection[Any], frozenset[str]], None]:
    """For each round of notifications, yield a connection to read with and the channels notified.

    All channels are yielded first, once the listener is ready, so that earlier changes are read
    again. Close the generator (``contextlib.aclosing``) to close its connection.

    Raises:
        TransientError: the server is away or does not answer; call again.
        PermanentError: the URL is wrong, or the login is refused.
    """
    connection = await connect_async(url, application_name=application_name)
    try:
        with translated(connection):
            for channel in sorted(channels):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        channels_notified = frozenset(channels)
        while True:
            yield connection, channels_notified
            with translated(connection):
                channels_notified = await _notified(connection)
    finally:
        await connection.close()


async def _notified(connection: psycopg.AsyncConnection[Any]) -> frozenset[str]:
    """Wait for the next notification, and collect those that follow immediately."""
    found: set[str] = set()
    while not found:
        async for one in connection.notifies(timeout=QUIET_S, stop_after=1):
            found.add(one.channel)
        if not found:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await ping_async(connection)
            except TimeoutError:
                raise TransientError(f"PostgreSQL did not answer within {ANSWER_S:g} s") from None
    async for one in connection.notifies(timeout=GATHER_S):
        found.add(one.channel)
    return frozenset(found)
