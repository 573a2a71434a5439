"""Read and write open candles: ``market.live_candles``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from include.domain.candles import Candle
from include.domain.timeframes import from_us
from include.store.candles.merging import AsyncConnection, Connection
from include.store.postgres.arrays import array_of, array_of_names, moment_text
from include.store.postgres.pools import translated

_WRITE = """
SELECT ops.write_live_candles(
    %s::text[], %s::timestamptz[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[],
    %s::numeric[], %s::numeric[], %s::bigint[], %s::numeric[], %s::numeric[], %s::bigint[],
    %s::bigint[], %s::boolean[], %s::timestamptz[]
)
"""

_REMOVE_CLOSED = """
SELECT ops.delete_live_candles(array_agg(l.symbol), array_agg(l.open_time))
FROM market.live_candles_of(%s) AS l
WHERE
    l.open_time >= %s AND l.open_time < %s
    AND EXISTS (
        SELECT FROM market.candles_1m AS c
        WHERE c.symbol = l.symbol AND c.open_time = l.open_time
    )
"""

_REMOVE_ABANDONED = """
SELECT ops.delete_live_candles(array_agg(l.symbol), array_agg(l.open_time))
FROM market.live_candles AS l
WHERE l.symbol = ANY(%s) OR l.updated_at < now() - interval '10 minutes'
"""

_ROTATE = "SELECT table_bytes, snapshot_s FROM ops.rotate_live_candles()"


@dataclass(frozen=True, slots=True)
class LiveCandle:
    """Current state of a candle that is not stored in ``candles_1m`` yet.

    Attributes:
        candle: the values so far; of two states, the one with the greater last trade id is later.
        is_closed: the minute has ended and waits for the exchange's confirmation.
        event_time_us: the exchange's event time of the newest frame in it, if known.
        has_quotes: False if quote volumes cannot be aggregated; they are stored as null.
    """

    candle: Candle
    is_closed: bool
    event_time_us: int | None = None
    has_quotes: bool = True


@dataclass(frozen=True, slots=True)
class LivePressure:
    """What long transactions cost the live candles.

    Attributes:
        table_bytes: size of the table that has the open candles.
        snapshot_s: age of the oldest transaction for which PostgreSQL keeps replaced rows.
    """

    table_bytes: int
    snapshot_s: float


async def write_live_async(connection: AsyncConnection, rows: Sequence[LiveCandle]) -> int:
    """Write open candles; a stored row is replaced only by a later state.

    A state is later if its last trade id is greater or, with equal ids, if it is closed.

    Returns:
        Number of rows inserted or replaced.

    Raises:
        TransientError: the database is away.
        PermanentError: a row is refused; the message says why.
    """
    newest: dict[tuple[str, int], LiveCandle] = {}
    for row in rows:
        key = (row.candle.symbol, row.candle.open_time_us)
        if key not in newest or _age(row) > _age(newest[key]):
            newest[key] = row
    if not newest:
        return 0
    symbols, *others = zip(*map(_columns, newest.values()), strict=True)
    columns = [array_of_names(symbols), *map(array_of, others)]
    with translated(connection):
        async with connection.cursor() as cursor:
            await cursor.execute(_WRITE, columns)
            return _number(await cursor.fetchone())


async def rotate_live_async(connection: AsyncConnection) -> LivePressure:
    """Move the open candles to another table if replaced rows fill theirs; never waits.

    Call it regularly while open candles are written: a long transaction of anybody keeps all rows
    that it might see.

    Raises:
        TransientError: the database is away.
    """
    with translated(connection):
        row = await (await connection.execute(_ROTATE)).fetchone()
    return LivePressure(*row or (0, 0.0))


def remove_closed_live(connection: Connection, symbol: str, start_us: int, end_us: int) -> int:
    """Remove open candles whose minute ``candles_1m`` now contains.

    Args:
        start_us: first minute; ``end_us`` is exclusive.

    Returns:
        The number removed.
    """
    with translated(connection):
        return _number(
            connection.execute(
                _REMOVE_CLOSED, (symbol, from_us(start_us), from_us(end_us))
            ).fetchone()
        )


def remove_stale_live(connection: Connection, symbols: Sequence[str]) -> int:
    """Remove open candles that an ended streamer left.

    Args:
        symbols: their rows are removed whatever their age, because the caller is about to stream
            them; rows of other symbols are removed once unchanged for ten minutes.

    Returns:
        The number removed.
    """
    with translated(connection):
        return _number(connection.execute(_REMOVE_ABANDONED, (list(symbols),)).fetchone())


def _number(row: tuple[Any, ...] | None) -> int:
    return int(row[0]) if row else 0


def _age(row: LiveCandle) -> tuple[int, bool]:
    last = row.candle.last_trade_id
    return (-1 if last is None else last, row.is_closed)


def _columns(row: LiveCandle) -> tuple[Any, ...]:
    candle = row.candle
    return (
        candle.symbol,
        moment_text(candle.open_time_us),
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.quote_volume if row.has_quotes else None,
        candle.trade_count,
        candle.taker_buy_volume,
        candle.taker_buy_quote_volume if row.has_quotes else None,
        candle.first_trade_id,
        candle.last_trade_id,
        row.is_closed,
        None if row.event_time_us is None else moment_text(row.event_time_us),
    )
