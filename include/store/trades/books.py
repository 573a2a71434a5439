"""Read order books that raw capture stored, rebuilt by ``market.book_at()``."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

# One statement, so that both functions see the same rows.
_BOOK = """
SELECT s.state, s.last_update_id, s.event_time, s.detail, b.side, b.level, b.price, b.quantity,
    b.is_known
FROM market.book_state(%(symbol)s, %(at)s) AS s
LEFT JOIN LATERAL market.book_at(%(symbol)s, %(at)s, %(levels)s) AS b ON TRUE
ORDER BY b.side, b.level
"""


class BookLevel(NamedTuple):
    """A level; ``level`` counts from 1, the best.

    Attributes:
        is_known: False where levels before this one may be missing.
    """

    side: str
    level: int
    price: Decimal
    quantity: Decimal
    is_known: bool


class StoredBook(NamedTuple):
    """An order book at a time.

    Attributes:
        state: ``known``, ``latest`` (no later diff is stored), ``gap`` or ``none``; the last two
            have no levels.
        detail: why it is not ``known``.
    """

    state: str
    last_update_id: int | None
    event_time: datetime | None
    detail: str | None
    levels: list[BookLevel]


def read_book(connection: Connection, symbol: str, at: datetime, *, levels: int) -> StoredBook:
    """Rebuild the best levels of each side of a symbol's book at an event time."""
    arguments = {"symbol": symbol, "at": at, "levels": levels}
    with translated(connection):
        rows = connection.execute(_BOOK, arguments).fetchall()
    found = [BookLevel(*row[4:]) for row in rows if row[4] is not None]
    state, last_update_id, event_time, detail = rows[0][:4]
    return StoredBook(state, last_update_id, event_time, detail, found)
