"""Reads of the tables beside the event loop, over a few connections."""

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
"""What is served live never waits for these; beyond them, readers of the past wait in line."""
WAIT_S = 5.0
"""For a connection that is free."""
MAX_QUERY_MS = 15_000

Result = TypeVar("Result")


class ReadPool:
    """Calls functions of ``include.store`` that read, each with a connection.

    Args:
        url: of PostgreSQL; a role that may only read is enough.
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
        )
        self._url = url
        self._threads = Threads(CONNECTIONS, name="history")

    def open(self) -> None:
        """Begin; nothing is connected yet."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """End; no call that is under way is waited for."""
        self._threads.close()
        self._pool.close(timeout=1.0)

    def read(self, call: Callable[[Connection], Result]) -> Result:
        """Call with a connection, in this thread.

        Raises:
            TransientError: PostgreSQL is away, or all connections are busy for long.
        """
        try:
            with translated(self._url), self._pool.connection() as connection:
                return call(connection)
        except PoolTimeout as error:
            raise TransientError(
                f"no connection to PostgreSQL was free within {WAIT_S:g} s"
            ) from error

    async def call(self, call: Callable[[Connection], Result]) -> Result:
        """The same without blocking the event loop."""
        async with asyncio.timeout(WAIT_S + MAX_QUERY_MS / 1_000):
            return await self._threads.run(lambda: self.read(call))


def _configure(connection: Connection) -> None:
    connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(MAX_QUERY_MS),))
