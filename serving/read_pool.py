"""Reads tables in threads, over a few connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from psycopg_pool import ConnectionPool, PoolTimeout

from include.errors import TransientError
from include.store.candles.merging import Connection
from include.store.postgres.pools import connection_arguments, translated
from streamer.runtime.threads import Threads

CONNECTIONS = 4
"""Live data never waits for these; further reads wait for a free one."""
WAIT_S = 5.0
"""Timeout for a free connection."""
MAX_QUERY_MS = 15_000

Result = TypeVar("Result")


class ReadPool:
    """Calls reading functions of ``include.store``, each with a connection.

    Args:
        url: of PostgreSQL; a read-only role is enough.
    """

    def __init__(self, url: str) -> None:
        self._pool = ConnectionPool(
            kwargs=connection_arguments(
                url,
                application_name="candelabra-serving",
            )
            | {"autocommit": True},
            min_size=0,
            max_size=CONNECTIONS,
            timeout=WAIT_S,
            max_idle=60.0,
            open=False,
            configure=_configure,
            # A restart of PostgreSQL ends idle sessions; without the check each fails one read.
            check=ConnectionPool.check_connection,
        )
        self._url = url
        self._threads = Threads(CONNECTIONS, name="history")

    def open(self) -> None:
        """Start; connections are made later."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Stop without waiting for calls in progress."""
        self._threads.close()
        self._pool.close(timeout=1.0)

    def read(self, call: Callable[[Connection], Result]) -> Result:
        """Call a function with a connection, in this thread.

        Raises:
            TransientError: PostgreSQL is unreachable, or all connections stay busy.
        """
        try:
            with translated(self._url), self._pool.connection() as connection:
                return call(connection)
        except PoolTimeout as error:
            raise TransientError(
                f"no connection to PostgreSQL was free within {WAIT_S:g} s"
            ) from error

    async def call(self, call: Callable[[Connection], Result]) -> Result:
        """Call a function with a connection, without blocking the event loop."""
        async with asyncio.timeout(WAIT_S + MAX_QUERY_MS / 1_000):
            return await self._threads.run(lambda: self.read(call))


def _configure(connection: Connection) -> None:
    connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(MAX_QUERY_MS),))
