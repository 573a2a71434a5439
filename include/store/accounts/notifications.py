"""PostgreSQL notifications: react to changes immediately and read them again, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import Any

import psycopg
from psycopg import sql

from include.errors import TransientError
from include.store.postgres.pools import connect_async, ping_async, translated

GATHER_S = 0.1
"""Notifications within this time of the first are handled together."""
QUIET_S = 30.0
"""After this silence the server is asked to answer: a frozen server sends no notification."""
ANSWER_S = 10.0


async def heard(
    url: str, channels: Collection[str], *, application_name: str
) -> AsyncGenerator[tuple[psycopg.AsyncConnection[Any], frozenset[str]], None]:
    """Yield, for each round of notifications, a connection to read with and the channels.

    All channels are yielded first, once the listener is ready: earlier changes must be read again.
    Close the generator (``contextlib.aclosing``) to close its connection.

    Raises:
        TransientError: the server is away or does not answer; call again.
        PermanentError: the URL is wrong, or the login is refused.
    """
    connection = await connect_async(url, application_name=application_name)
    try:
        with translated(connection):
            for channel in sorted(channels):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        told = frozenset(channels)
        while True:
            yield connection, told
            with translated(connection):
                told = await _told(connection)
    finally:
        await connection.close()


async def _told(connection: psycopg.AsyncConnection[Any]) -> frozenset[str]:
    """Wait for the next notification and those that follow immediately."""
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
