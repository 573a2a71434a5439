"""Read rows of marts for serving, for one symbol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import adapters

from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

LEVELS = "SELECT * FROM marts.levels WHERE symbol = %(symbol)s"

INDICATORS = """
SELECT * FROM marts.indicators(%(symbol)s, %(timeframe)s, %(start)s, %(end)s)
ORDER BY open_time DESC
LIMIT %(limit)s
"""

COVERAGE = """
SELECT * FROM marts.health_coverage
WHERE symbol = %(symbol)s AND day >= %(start)s::date AND day <= %(end)s::date
ORDER BY day DESC
LIMIT %(limit)s
"""

GAPS = """
SELECT * FROM marts.health_gaps
WHERE symbol = %(symbol)s AND from_time < %(end)s AND to_time > %(start)s
ORDER BY from_time DESC
LIMIT %(limit)s
"""

VOLUME_PROFILE = """
SELECT * FROM marts.volume_profile
WHERE symbol = %(symbol)s AND session = coalesce(%(session)s::date, (
    SELECT max(newest.session) FROM marts.volume_profile_sessions AS newest
    WHERE newest.symbol = %(symbol)s
))
ORDER BY price_low
"""

PROFILE_SESSION = """
SELECT * FROM marts.volume_profile_sessions
WHERE symbol = %(symbol)s AND (%(session)s::date IS NULL OR session = %(session)s::date)
ORDER BY session DESC
LIMIT 1
"""

FOOTPRINT = """
SELECT * FROM marts.footprint(%(symbol)s, %(timeframe)s, %(start)s, %(end)s)
LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """Result of a query.

    Attributes:
        types: PostgreSQL type names by column; empty for types unknown to the driver.
    """

    types: dict[str, str]
    rows: list[tuple[Any, ...]]


def read_rows(connection: Connection, query: str, arguments: Mapping[str, Any]) -> Rows:
    """Run one of the queries of this module; return its rows."""
    with translated(connection):
        cursor = connection.execute(query, arguments)
        types = {
            one.name: "" if (info := adapters.types.get(one.type_code)) is None else info.name
            for one in cursor.description or ()
        }
        return Rows(types, cursor.fetchall())
