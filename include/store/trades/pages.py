"""Read captured trades by id, page by page: ``market.agg_trades`` and ``market.trades``.

Their key is symbol, day and id. Ids ascend with the days, so the day in which a page begins is
found by bisection, one index probe per step; from there on rows are read in key order.

Each day is a partition, which makes a thousand in three years. A statement over all partitions
takes long to plan and locks them all, so each statement names only a few days.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import sql

from include.domain.timeframes import from_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated
from include.store.trades.captured import AGG_TRADES, RawTable

SWAPPED = 64
"""Rows read beyond a page: at midnight at most this many ids may be in the wrong order, because the
exchange corrects its clocks."""
DAYS_AT_ONCE = 8
"""Days per statement. A statement locks three relations per day: a table and its indexes. One more
day costs 0.05 ms, one more statement 0.25 ms."""

_OF_THE_MARKET = "AND coalesce(t.trade_type, 'MARKET') = 'MARKET'"

_DAYS = """
SELECT days.day
FROM pg_inherits AS parts
INNER JOIN pg_class AS child ON child.oid = parts.inhrelid
CROSS JOIN LATERAL to_date(right(child.relname, 11), '"y"YYYY"m"MM"d"DD') AS days (day)
WHERE
    parts.inhparent = %s::regclass
    AND child.relname ~ '_y[0-9]{4}m[0-9]{2}d[0-9]{2}$'
    AND days.day >= %s
ORDER BY days.day
"""


class StoredTrade(NamedTuple):
    """A row; a single trade's first and last id are its own."""

    id: int
    price: Decimal
    quantity: Decimal
    first_trade_id: int
    last_trade_id: int
    time: datetime
    is_buyer_maker: bool


@dataclass(frozen=True, slots=True)
class TradePage:
    """Trades of a symbol by id.

    Attributes:
        trades: by id, without those that are not stored, and without fills of the insurance fund
            and of auto-deleveraging.
        further_id: first id of the next page; None if this is the last one.
        first_id, last_id: the ends of the stored range, with their days.
    """

    trades: list[StoredTrade]
    further_id: int | None
    first_id: int
    first_day: date
    last_id: int
    last_day: date


class _End(NamedTuple):
    day: date
    id: int


def read_trades(
    connection: Connection,
    table: RawTable,
    symbol: str,
    from_id: int,
    to_id: int | None = None,
    *,
    limit: int,
    since_us: int,
) -> TradePage | None:
    """Return the trades of a symbol from an id on, oldest first.

    Args:
        table: ``AGG_TRADES`` or ``TRADES``.
        to_id: the last id; None for all.
        limit: maximum trades of the page.
        since_us: trades before this time (µs) belong to another instrument.

    Returns:
        None if no trade of the symbol is stored.
    """
    captured = _Captured(connection, table, symbol, from_us(since_us))
    days = captured.days()
    first = captured.end(days, newest=False)
    last = None if first is None else captured.end(days, newest=True)
    if first is None or last is None:
        return None
    trades: list[StoredTrade] = []
    if from_id <= last.id:
        days = [day for day in days if first.day <= day <= last.day]
        # Ids are unique, so there are no more rows between these.
        most = limit if to_id is None else min(limit, max(to_id - from_id + 1, 0))
        rows = captured.rows(captured.days_with(days, from_id), from_id, limit=most + SWAPPED)
        trades = sorted(one for one in rows if to_id is None or one.id <= to_id)
    further = trades[limit:]
    return TradePage(
        trades[:limit], further[0].id if further else None,
        first.id, first.day, last.id, last.day,
    )  # fmt: skip


def captured_days(connection: Connection, table: RawTable, since: date) -> list[date]:
    """Return the days from one on that have partitions, for any symbol; oldest first."""
    with translated(connection):
        rows = connection.execute(sql.SQL(_DAYS), (f"market.{table.name}", since)).fetchall()
    return [day for (day,) in rows]


@dataclass(frozen=True, slots=True)
class _Captured:
    """Return the stored range of a symbol from a time on."""

    connection: Connection
    table: RawTable
    symbol: str
    since: datetime

    def days(self) -> list[date]:
        """Return the days that have partitions, for any symbol."""
        return captured_days(self.connection, self.table, self.since.date())

    def days_with(self, days: Sequence[date], from_id: int) -> Sequence[date]:
        """Return the days up to the first one with this id or a later one."""
        low, high = 0, len(days) - 1
        while low < high:
            middle = (low + high) // 2
            reached = self.end(days[low : middle + 1], newest=True)
            if reached is None or reached.id < from_id:
                low = middle + 1
            else:
                high = bisect_left(days, reached.day)  # the days between have no rows of the symbol
        return days[low:]

    def end(self, days: Sequence[date], *, newest: bool) -> _End | None:
        """Return the first or the last row of some days."""
        query = sql.SQL(
            "SELECT t.day, t.{id} FROM {table} AS t WHERE t.symbol = %s AND t.day >= %s "
            "AND t.day <= %s AND t.trade_time >= %s "
            "ORDER BY t.day {order}, t.{id} {order} LIMIT 1"
        ).format(**self._names, order=sql.SQL("DESC" if newest else "ASC"))
        for low, high in day_runs(days, newest=newest):
            for row in self._read(query, self.symbol, low, high, self.since):
                return _End(*row)
        return None

    def rows(self, days: Sequence[date], from_id: int, *, limit: int) -> list[StoredTrade]:
        """Return trades from an id on, in the order of the key."""
        # The index begins with this pair; the days alone select the partitions.
        query = sql.SQL(
            "SELECT t.{id}, t.price, t.quantity, {first}, {last}, t.trade_time, t.is_buyer_maker "
            "FROM {table} AS t WHERE t.symbol = %s AND t.day >= %s AND t.day <= %s "
            "AND (t.day, t.{id}) >= (%s, %s) AND t.{id} >= %s AND t.trade_time >= %s {counted} "
            "ORDER BY t.day, t.{id} LIMIT %s"
        ).format(
            **self._names,
            counted=sql.SQL("" if self.table is AGG_TRADES else _OF_THE_MARKET),
            first=self._column("first_trade_id"),
            last=self._column("last_trade_id"),
        )
        found: list[StoredTrade] = []
        for low, high in day_runs(days, newest=False):
            left = limit - len(found)
            if not left:
                break
            found += [
                StoredTrade(*row)
                for row in self._read(
                    query, self.symbol, low, high, low, from_id, from_id, self.since, left
                )
            ]
        return found

    def _read(self, query: sql.SQL | sql.Composed, *values: object) -> list[tuple[Any, ...]]:
        # Never prepared: a generic plan for any days would cover all partitions.
        with translated(self.connection):
            return self.connection.execute(query, values, prepare=False).fetchall()

    @property
    def _names(self) -> dict[str, sql.Identifier]:
        return {"table": self.table.path, "id": sql.Identifier(self.table.id_column)}

    def _column(self, name: str) -> sql.Identifier:
        """Return the column of the first trade id; single trades use their own id."""
        return sql.Identifier("t", name if self.table is AGG_TRADES else self.table.id_column)


def day_runs(days: Sequence[date], *, newest: bool) -> Iterator[tuple[date, date]]:
    """Yield the first and last day of runs of few days; the newest or the oldest run first."""
    if newest:
        for end in range(len(days), 0, -DAYS_AT_ONCE):
            yield days[max(end - DAYS_AT_ONCE, 0)], days[end - 1]
    else:
        for begin in range(0, len(days), DAYS_AT_ONCE):
            yield days[begin], days[min(begin + DAYS_AT_ONCE, len(days)) - 1]
