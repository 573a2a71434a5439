"""Partitions: list them, create them ahead of time, and drop archived ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from psycopg import sql

from include.store.candles.merging import Connection
from include.store.postgres.pools import translated
from include.store.trades.captured import RAW_TABLES, RawTable


@dataclass(frozen=True, slots=True)
class RawDay:
    """A partition of raw capture.

    Attributes:
        table: its table.
        day: in UTC.
        bytes: on disk, including its index.
    """

    table: RawTable
    day: date
    bytes: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Number of rows of a day, and the sum of the hashes of their keys."""

    rows: int
    value: int


def ensure_ahead(connection: Connection, *, now: datetime, months: int, days: int) -> list[str]:
    """Create the partitions that writers will need.

    Tables of raw capture get partitions only if rows arrived today or yesterday: a table that is
    not captured needs none.

    Args:
        now: with a time zone.
        months, days: number after the present one, for candles and for raw capture.

    Returns:
        Names of those created.
    """
    today = now.astimezone(UTC).date()
    wanted = [("market.candles_1m", _month_after(today, n)) for n in range(months + 1)]
    for table in RAW_TABLES.values():
        if any(has_rows(connection, table, today - timedelta(days=n)) for n in (0, 1)):
            wanted += [(f"market.{table.name}", today + timedelta(days=n)) for n in range(days + 1)]
    with translated(connection):
        before = _names(connection)
        for relation, day in wanted:
            connection.execute(
                "SELECT ops.ensure_partition(%s::regclass, %s)",
                (relation, datetime(day.year, day.month, day.day, tzinfo=UTC)),
            )
        return sorted(_names(connection) - before)


def raw_days(connection: Connection, *, before: date) -> list[RawDay]:
    """Return the partitions of raw capture before a day, oldest first."""
    query = (
        "SELECT p.relname, c.relname, pg_total_relation_size(c.oid) FROM pg_inherits AS i "
        "JOIN pg_class AS p ON p.oid = i.inhparent JOIN pg_class AS c ON c.oid = i.inhrelid "
        "WHERE p.relnamespace = 'market'::regnamespace AND p.relname = ANY(%s)"
    )
    with translated(connection):
        rows = connection.execute(query, (list(RAW_TABLES),)).fetchall()
    found = [
        RawDay(RAW_TABLES[parent], _day_of(name.removeprefix(f"{parent}_")), size)
        for parent, name, size in rows
    ]
    return sorted(
        (one for one in found if one.day < before), key=lambda one: (one.day, one.table.name)
    )


def has_rows(connection: Connection, table: RawTable, day: date) -> bool:
    """Whether a day of raw capture has a row."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE day = %s)").format(table.path)
    with translated(connection):
        return connection.execute(query, (day,)).fetchone() == (True,)


def fingerprint_of(connection: Connection, table: RawTable, day: date) -> Fingerprint:
    """Return a value that changes when rows of a day are added or removed.

    Rows of raw capture never change.
    """
    with translated(connection):
        row = connection.execute(
            "SELECT rows, fingerprint FROM ops.raw_fingerprint(%s, %s)", (table.name, day)
        ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return Fingerprint(row[0], int(row[1]))


def drop_archived(connection: Connection, table: RawTable, day: date) -> bool:
    """Drop the partition of an archived or empty day; False if there is none.

    Raises:
        TransientError: rows arrived since it was archived, or another session holds a lock for
            seconds.
        PermanentError: the role may not.
    """
    with translated(connection):
        row = connection.execute(
            "SELECT ops.drop_archived_partition(%s, %s)", (table.name, day)
        ).fetchone()
    return row == (True,)


# --- inside


def _names(connection: Connection) -> set[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' "
        "AND relnamespace = 'market'::regnamespace"
    ).fetchall()
    return {name for (name,) in rows}


def _month_after(day: date, months: int) -> date:
    count = day.year * 12 + day.month - 1 + months
    return date(count // 12, count % 12 + 1, 1)


def _day_of(suffix: str) -> date:
    return datetime.strptime(suffix, "y%Ym%md%d").replace(tzinfo=UTC).date()
