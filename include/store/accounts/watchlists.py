"""Watchlists: the symbols that accounts watch; streamers stream them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg

from include.counts import counted
from include.domain.accounts import MAX_WATCHED
from include.domain.timeframes import to_us
from include.errors import RejectedInputError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

WATCHLISTS_CHANNEL = "candelabra_watchlists"
"""Notified of each change of a watchlist, and of accounts disabled, enabled or removed."""
ACCESS_CHANNEL = "candelabra_access"
"""Notified of sessions and tokens that ended early, and of changed accounts."""

_WATCH = """
INSERT INTO accounts.watched_symbols (user_id, symbol)
SELECT %(user_id)s, %(symbol)s
WHERE
    (SELECT count(*) FROM accounts.watched_symbols WHERE user_id = %(user_id)s) < %(most)s
ON CONFLICT DO NOTHING
"""

_IS_WATCHED = """
SELECT EXISTS (
    SELECT FROM accounts.watched_symbols WHERE user_id = %(user_id)s AND symbol = %(symbol)s
)
"""

_LISTS = """
SELECT user_id, array_agg(symbol ORDER BY symbol)
FROM accounts.watched_symbols
WHERE user_id = ANY (%s)
GROUP BY user_id
"""

_BY_NAME = """
SELECT u.name, w.symbol, w.added_at
FROM accounts.watched_symbols AS w
INNER JOIN accounts.users AS u ON w.user_id = u.id
WHERE %(name)s::text IS NULL OR u.name = %(name)s
ORDER BY u.name, w.symbol
"""


def watch(connection: Connection, user_id: int, symbol: str) -> bool:
    """Add a symbol to a watchlist; return whether it was new.

    Raises:
        RejectedInputError: the list is full.
    """
    arguments = {"user_id": user_id, "symbol": symbol, "most": MAX_WATCHED}
    with translated(connection):
        if connection.execute(_WATCH, arguments).rowcount:
            return True
        if connection.execute(_IS_WATCHED, arguments).fetchone() == (True,):
            return False
    raise RejectedInputError(
        f"{symbol}: the watchlist has {counted(MAX_WATCHED, 'symbol')}, the most it may have; "
        "remove one"
    )


def unwatch(connection: Connection, user_id: int, symbol: str) -> bool:
    """Remove a symbol from a watchlist; return whether it was on the list."""
    with translated(connection):
        done = connection.execute(
            "DELETE FROM accounts.watched_symbols WHERE user_id = %s AND symbol = %s",
            (user_id, symbol),
        )
        return done.rowcount > 0


def watchlist(connection: Connection, user_id: int) -> list[tuple[str, int]]:
    """Return a user's symbols with the time of adding (µs since 1970), by symbol."""
    with translated(connection):
        return [
            (symbol, to_us(added))
            for symbol, added in connection.execute(
                "SELECT symbol, added_at FROM accounts.watched_symbols "
                "WHERE user_id = %s ORDER BY symbol",
                (user_id,),
            )
        ]


def watchlists(connection: Connection, name: str | None = None) -> list[tuple[str, str, int]]:
    """Return account, symbol and time of adding (µs since 1970), of all accounts or of one."""
    with translated(connection):
        return [
            (user, symbol, to_us(added))
            for user, symbol, added in connection.execute(_BY_NAME, {"name": name})
        ]


async def watchlists_async(
    connection: psycopg.AsyncConnection[Any], user_ids: Collection[int]
) -> dict[int, tuple[str, ...]]:
    """Return the symbols of these users, by user; empty for users without a watchlist."""
    with translated(connection):
        rows = await (await connection.execute(_LISTS, (list(user_ids),))).fetchall()
    return dict.fromkeys(user_ids, ()) | {user_id: tuple(symbols) for user_id, symbols in rows}


async def watched_async(connection: psycopg.AsyncConnection[Any]) -> frozenset[str]:
    """Return the watched symbols of all users; a streamer may read no more of watchlists."""
    with translated(connection):
        rows = await (await connection.execute("SELECT symbol FROM accounts.watched")).fetchall()
    return frozenset(symbol for (symbol,) in rows)
