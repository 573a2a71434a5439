"""State of raw capture by symbol: where its rows end, and which ids are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

from psycopg import sql

from include.domain.instruments import REUSED_AFTER_US
from include.domain.timeframes import from_us, to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated
from include.store.trades.captured import AGG_TRADES, RawTable

MAX_MISSING_RANGES = 10_000
"""Maximum ranges of missing ids returned at a time; the next query returns more."""


@dataclass(frozen=True, slots=True)
class MissingIdRange:
    """Ids of a symbol without a row, between two stored rows, and the times of those two.

    If the ticker was given to another instrument, whose ids restart, the number of missing rows is
    unknown: then ``last_id`` is ``first_id`` minus one.
    """

    symbol: str
    first_id: int
    last_id: int
    from_us: int
    to_us: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Last stored trade of a symbol: its id and its time (µs)."""

    symbol: str
    last_id: int
    last_us: int


class CandleBeyond(NamedTuple):
    """A candle with trades after the last raw one: its minute (µs) and its trade count."""

    open_us: int
    trades: int


def last_rows(
    connection: Connection,
    table: RawTable,
    symbols: Sequence[str],
    since_us: int | None,
    *,
    before_us: int | None = None,
) -> dict[str, tuple[int, int]]:
    """Return the greatest id of each symbol on its last day, and the time (µs) of that row.

    Args:
        since_us: only days since this time; None for all.
        before_us: only rows older than this.
    """
    query = sql.SQL(
        "SELECT s.symbol, r.{id}, r.{time} FROM unnest(%s::text[]) AS s (symbol) "
        "CROSS JOIN LATERAL (SELECT t.{id}, t.{time} FROM {table} AS t "
        "WHERE t.symbol = s.symbol AND t.day >= coalesce(%s, '-infinity'::date) "
        "AND t.{time} < coalesce(%s, 'infinity'::timestamptz) "
        "ORDER BY t.day DESC, t.{id} DESC LIMIT 1) AS r"
    ).format(**_names(table))
    with translated(connection):
        rows = connection.execute(
            query,
            (
                list(symbols),
                None if since_us is None else from_us(since_us).date(),
                None if before_us is None else from_us(before_us),
            ),
        ).fetchall()
    return {symbol: (number, to_us(moment)) for symbol, number, moment in rows}


def rows_gone(
    connection: Connection, table: RawTable, rows: Sequence[Reached]
) -> dict[str, tuple[int, int] | None]:
    """Return the symbols whose row the table lacks, with the last row before it.

    Args:
        rows: one of each symbol, which was stored.

    Returns:
        Id and time (µs) of the remaining row by symbol; None if there is none. It belongs to a
        previous instrument of the ticker if the present one has no row left.
    """
    query = sql.SQL(
        "SELECT s.symbol, coalesce(a.{id}, b.{id}), coalesce(a.{time}, b.{time}) "
        "FROM unnest(%s::text[], %s::bigint[], %s::timestamptz[]) AS s (symbol, id, at) "
        "LEFT JOIN LATERAL (SELECT t.{id}, t.{time} FROM {table} AS t "
        "WHERE t.symbol = s.symbol AND t.{id} <= s.id "
        "ORDER BY t.day DESC, t.{id} DESC LIMIT 1) AS a ON true "
        "LEFT JOIN LATERAL (SELECT t.{id}, t.{time} FROM {table} AS t "
        "WHERE t.symbol = s.symbol AND t.{time} <= s.at "
        "ORDER BY t.day DESC, t.{id} DESC LIMIT 1) AS b ON a.{id} IS NULL "
        "WHERE a.{id} IS DISTINCT FROM s.id"
    ).format(**_names(table))
    arguments = (
        [row.symbol for row in rows],
        [row.last_id for row in rows],
        [from_us(row.last_us) for row in rows],
    )
    with translated(connection):
        found = connection.execute(query, arguments).fetchall()
    return {
        symbol: None if number is None else (number, to_us(moment))
        for symbol, number, moment in found
    }


def first_rows(
    connection: Connection, table: RawTable, symbols: Sequence[str], since_us: int
) -> dict[str, int]:
    """Return the time (µs) of each symbol's first row, by id, since a time."""
    query = sql.SQL(
        "SELECT s.symbol, r.{time} FROM unnest(%s::text[]) AS s (symbol) "
        "CROSS JOIN LATERAL (SELECT t.{time} FROM {table} AS t "
        "WHERE t.symbol = s.symbol AND t.day >= %s AND t.{time} >= %s "
        "ORDER BY t.day, t.{id} LIMIT 1) AS r"
    ).format(**_names(table))
    since = from_us(since_us)
    with translated(connection):
        rows = connection.execute(query, (list(symbols), since.date(), since)).fetchall()
    return {symbol: to_us(moment) for symbol, moment in rows}


def stored_ids(
    connection: Connection, table: RawTable, symbols: Sequence[str], since_us: int
) -> tuple[dict[str, tuple[int, int]], list[MissingIdRange]]:
    """Return the newest row of each symbol, and the ids without a row before it.

    Returns:
        The newest row's id and time (µs) by symbol, for days since a time; and the ranges of
        missing ids, as ``missing_ids``.
    """
    last = last_rows(connection, table, symbols, since_us)
    # The ends are read before the missing ids: rows stored in between then show as ids missing
    # before them.
    newest, missing_ranges = _newest_and_missing_ranges(connection, table, symbols, since_us, None)
    return last | newest, missing_ranges


def missing_ids(
    connection: Connection, table: RawTable, symbols: Sequence[str], since_us: int, until_us: int
) -> list[MissingIdRange]:
    """Return the ids without a row before each row of the days of a range.

    Rows are compared in the order of ids, which the key gives without sorting. If times show that a
    ticker passed to another instrument, its rows are compared in the order of time. Archived days
    that are no longer in the table are not missing.

    Returns:
        Ranges, oldest first. One may begin long before, at the last row of an earlier day.
    """
    _, missing_ranges = _newest_and_missing_ranges(connection, table, symbols, since_us, until_us)
    return missing_ranges


def dropped_days(
    connection: Connection, table: RawTable, since_us: int, until_us: int
) -> set[date]:
    """Return the days of a range that are archived and no longer in the table."""
    with translated(connection):
        rows = connection.execute(
            "SELECT day FROM ops.archived_partitions WHERE dataset = %s "
            "AND day BETWEEN %s AND %s AND dropped_at IS NOT NULL",
            (table.name, from_us(since_us).date(), from_us(until_us).date()),
        ).fetchall()
    return {day for (day,) in rows}


def candles_beyond(
    connection: Connection, table: RawTable, reached: Sequence[Reached], since_us: int
) -> dict[str, CandleBeyond]:
    """Return the symbols whose last candle with trades has a trade after their last raw trade.

    Within the minute of the last raw trade its id decides; if the candle came from REST, which has
    no ids, the minute's trade count decides. While the last row is waiting to be written, nothing
    is returned.

    Args:
        since_us: candles before this minute are ignored.
    """
    is_aggregate = table is AGG_TRADES
    query = sql.SQL(
        "SELECT s.symbol, c.open_time, c.trade_count "
        "FROM unnest(%s::text[], %s::bigint[], %s::timestamptz[]) AS s (symbol, last_id, last_time)"
        " CROSS JOIN LATERAL (SELECT k.* FROM market.candles_1m AS k "
        "WHERE k.symbol = s.symbol AND k.trade_count > 0 "
        "AND k.open_time >= greatest(date_trunc('minute', s.last_time), %s) "
        "ORDER BY k.open_time DESC LIMIT 1) AS c "
        "LEFT JOIN {table} AS a ON a.symbol = s.symbol "
        "AND a.day = (s.last_time AT TIME ZONE 'UTC')::date AND a.{id} = s.last_id "
        "WHERE c.open_time > s.last_time OR c.last_trade_id > {last} "
        "OR (c.last_trade_id IS NULL AND a.symbol IS NOT NULL AND c.trade_count > ("
        "SELECT sum({trades}) FROM {table} AS t WHERE t.symbol = s.symbol AND t.day = a.day "
        "AND t.{id} > s.last_id - c.trade_count AND t.{id} <= s.last_id "
        "AND t.{time} >= c.open_time))"
    ).format(
        **_names(table),
        last=sql.SQL("a.last_trade_id" if is_aggregate else "s.last_id"),
        trades=sql.SQL("t.last_trade_id - t.first_trade_id + 1" if is_aggregate else "1"),
    )
    arguments = (
        [one.symbol for one in reached],
        [one.last_id for one in reached],
        [from_us(one.last_us) for one in reached],
        from_us(since_us),
    )
    with translated(connection):
        rows = connection.execute(query, arguments).fetchall()
    return {symbol: CandleBeyond(to_us(moment), trades) for symbol, moment, trades in rows}


# --- inside


def _newest_and_missing_ranges(
    connection: Connection,
    table: RawTable,
    symbols: Sequence[str],
    since_us: int,
    until_us: int | None,
) -> tuple[dict[str, tuple[int, int]], list[MissingIdRange]]:
    """Return the newest rows of tickers that passed to another instrument, and all missing ids."""
    newest: dict[str, tuple[int, int]] = {}
    missing_ranges = _missing_ranges(
        connection, table, symbols, since_us, until_us, is_by_time=False
    )
    reused = sorted(
        {missing_range.symbol for missing_range in missing_ranges if _shows_two(missing_range)}
    )
    if reused:
        missing_ranges = [
            missing_range for missing_range in missing_ranges if missing_range.symbol not in reused
        ]
        newest = _newest_rows(connection, table, reused, since_us)
        by_time = _missing_ranges(connection, table, reused, since_us, until_us, is_by_time=True)
        missing_ranges += [
            missing_range for missing_range in map(_by_time, by_time) if missing_range is not None
        ]
    missing_ranges = _not_archived(connection, table, missing_ranges)
    return newest, sorted(
        missing_ranges,
        key=lambda missing_range: (
            missing_range.from_us,
            missing_range.symbol,
            missing_range.first_id,
        ),
    )


def _not_archived(
    connection: Connection, table: RawTable, missing_ranges: Sequence[MissingIdRange]
) -> list[MissingIdRange]:
    """Return the ranges that contain no archived day, whose rows are no longer in the table."""
    if not missing_ranges:
        return []
    ends = [
        (from_us(missing_range.from_us).date(), from_us(missing_range.to_us).date())
        for missing_range in missing_ranges
    ]
    since = min(missing_range.from_us for missing_range in missing_ranges)
    dropped = dropped_days(
        connection, table, since, max(missing_range.to_us for missing_range in missing_ranges)
    )
    return [
        missing_range
        for missing_range, (first, last) in zip(missing_ranges, ends, strict=True)
        if not any(first <= day <= last for day in dropped)
    ]


def _shows_two(missing_range: MissingIdRange) -> bool:
    """Whether neighbours by id may belong to two instruments."""
    return (
        missing_range.last_id < missing_range.first_id - 1
        or missing_range.to_us + REUSED_AFTER_US < missing_range.from_us
    )


def _by_time(missing_range: MissingIdRange) -> MissingIdRange | None:
    """Return the missing range between neighbours by time."""
    if missing_range.last_id >= missing_range.first_id:
        return missing_range
    if missing_range.to_us < missing_range.from_us + REUSED_AFTER_US:
        return None  # one instrument, during a clock correction
    return replace(missing_range, last_id=missing_range.first_id - 1)


def _missing_ranges(
    connection: Connection,
    table: RawTable,
    symbols: Sequence[str],
    since_us: int,
    until_us: int | None,
    *,
    is_by_time: bool,
) -> list[MissingIdRange]:
    """Return neighbours whose ids are not contiguous, or whose times descend.

    The first row of each symbol is preceded by its last one of an earlier day, however old. If that
    first row is older than the requested range, what is missing before it was reported earlier.
    """
    names = _names(table)
    order = sql.SQL("t.{time}, t.{id}" if is_by_time else "t.day, t.{id}").format(**names)
    query = sql.SQL(
        "SELECT h.symbol, h.id + 1, h.next_id - 1, h.at, h.next_at FROM ("
        "SELECT t.symbol, t.{id} AS id, t.{time} AS at, lead(t.{id}) OVER w AS next_id, "
        "lead(t.{time}) OVER w AS next_at FROM {table} AS t "
        "WHERE t.symbol = ANY(%s) AND t.day BETWEEN %s AND %s "
        "WINDOW w AS (PARTITION BY t.symbol ORDER BY {order})"
        ") AS h WHERE h.next_id <> h.id + 1 OR h.next_at < h.at - interval '1 minute' "
        "ORDER BY h.at, h.symbol LIMIT %s"
    ).format(**names, order=order)
    # A separate query: a UNION would have to be sorted, and these rows may be a day of all symbols.
    at_the_edge = sql.SQL(
        "SELECT s.symbol, b.{id} + 1, a.{id} - 1, b.{time}, a.{time} "
        "FROM unnest(%(symbols)s::text[]) AS s (symbol) "
        "CROSS JOIN LATERAL (SELECT t.* FROM {table} AS t "
        "WHERE t.symbol = s.symbol AND t.day BETWEEN %(first)s AND %(last)s "
        "ORDER BY t.day{then}, t.{id} LIMIT 1) AS a "
        "CROSS JOIN LATERAL (SELECT t.* FROM {table} AS t "
        "WHERE t.symbol = s.symbol AND t.day < %(first)s "
        "ORDER BY t.day DESC{then_back}, t.{id} DESC LIMIT 1) AS b "
        "WHERE a.{time} >= %(since)s "
        "AND (a.{id} <> b.{id} + 1 OR a.{time} < b.{time} - interval '1 minute')"
    ).format(
        **names,
        then=sql.SQL(", t.{time}" if is_by_time else "").format(**names),
        then_back=sql.SQL(", t.{time} DESC" if is_by_time else "").format(**names),
    )
    since = from_us(since_us)
    first, last = since.date(), date.max if until_us is None else from_us(until_us).date()
    named = {"symbols": list(symbols), "since": since, "first": first, "last": last}
    with translated(connection):
        rows = connection.execute(at_the_edge, named).fetchall()
        rows += connection.execute(
            query, (list(symbols), first, last, MAX_MISSING_RANGES)
        ).fetchall()
    return [
        MissingIdRange(symbol, first_id, last_id, to_us(since), to_us(until))
        for symbol, first_id, last_id, since, until in rows
    ]


def _newest_rows(
    connection: Connection, table: RawTable, symbols: Sequence[str], since_us: int
) -> dict[str, tuple[int, int]]:
    query = sql.SQL(
        "SELECT DISTINCT ON (t.symbol) t.symbol, t.{id}, t.{time} FROM {table} AS t "
        "WHERE t.symbol = ANY(%s) AND t.day >= %s ORDER BY t.symbol, t.{time} DESC, t.{id} DESC"
    ).format(**_names(table))
    with translated(connection):
        rows = connection.execute(query, (list(symbols), from_us(since_us).date())).fetchall()
    return {symbol: (number, to_us(moment)) for symbol, number, moment in rows}


def _names(table: RawTable) -> dict[str, sql.Identifier]:
    return {
        "table": table.path,
        "id": sql.Identifier(table.id_column),
        "time": sql.Identifier(table.time_column),
    }
