"""Minutes of several symbols that were stored while a reader was disconnected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from include.domain.candles import Candle, Source, Status
from include.domain.timeframes import from_us, to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

_SINCE = """
SELECT
    c.symbol, c.open_time, c.open, c.high, c.low, c.close, c.volume, c.quote_volume,
    c.trade_count, c.taker_buy_volume, c.taker_buy_quote_volume, c.first_trade_id,
    c.last_trade_id, c.status, c.source
FROM unnest(%(symbols)s::text[], %(starts)s::timestamptz[], %(changes)s::timestamptz[])
    AS requests (symbol, open_time, updated_at)
JOIN market.candles_1m AS c
    ON
        c.symbol = requests.symbol
        AND c.open_time >= %(first)s
        AND (c.open_time >= requests.open_time OR c.updated_at >= requests.updated_at)
ORDER BY c.symbol, c.open_time
"""


@dataclass(frozen=True, slots=True)
class MinutesRequest:
    """Minutes of a symbol to read; times in µs.

    Attributes:
        start_us: all minutes that open here or later.
        changed_us: earlier minutes written at this time or later.
    """

    start_us: int
    changed_us: int


@dataclass(frozen=True, slots=True)
class StoredMinute:
    """A row of ``market.candles_1m`` with its status and source."""

    candle: Candle
    status: Status
    source: Source


def read_minutes_since(
    connection: Connection, requests: Mapping[str, MinutesRequest], *, first_us: int
) -> list[StoredMinute]:
    """Read minutes, ordered by symbol and time.

    Args:
        requests: by symbol.
        first_us: earliest open time.

    Raises:
        TransientError: PostgreSQL is away.
    """
    arguments = {
        "symbols": list(requests),
        "starts": [from_us(one.start_us) for one in requests.values()],
        "changes": [from_us(one.changed_us) for one in requests.values()],
        "first": from_us(first_us),
    }
    with translated(connection):
        rows = connection.execute(_SINCE, arguments).fetchall()
    return [
        StoredMinute(Candle(row[0], to_us(row[1]), *row[2:13]), Status(row[13]), Source(row[14]))
        for row in rows
    ]
