"""Ledgers: dump files, coverage, outages, rejected rows and the results of checks.

Recording the same entry again adds nothing. Separate modules define the gaps and the weight budget;
this module re-exports them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from psycopg.types.json import Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, MINUTE_US, from_us, to_us
from include.errors import PermanentError
from include.store.candles.merging import Connection
from include.store.ledgers.gaps import Gap, claim_gaps, close_gap, open_gap, release_gap
from include.store.ledgers.weight import WeightGrant, acquire_weight, report_weight
from include.store.postgres.pools import translated

__all__ = [
    "DumpFile",
    "Gap",
    "QualityResult",
    "RejectedRow",
    "WeightGrant",
    "acquire_weight",
    "add_coverage",
    "begin_user_file",
    "claim_gaps",
    "close_gap",
    "find_dump_beside",
    "find_dump_file",
    "open_gap",
    "read_coverage",
    "read_outages",
    "record_dump_file",
    "record_outage",
    "record_quality_results",
    "record_rejected_rows",
    "release_gap",
    "report_weight",
]

MinuteRanges = Iterable[tuple[int, int]]
"""Half-open ranges of open times in µs."""


@dataclass(frozen=True, slots=True)
class DumpFile:
    """One published version of a dump file.

    Attributes:
        path: path relative to the dump site's root.
        checksum: SHA-256 of the archive, in hex; a re-issued file has another.
        kind: ``klines``, ``agg_trades`` or ``trades``.
        rows: usable rows.
        rejected: rows quarantined.
        time_unit: ``ms`` or ``us``, as detected; None for an empty file.
        verdict: ``loaded``, or the reason why not.
        published_at_us: time of publication, if the site has it.
    """

    path: str
    checksum: str
    kind: str
    fetched_at_us: int
    rows: int
    verdict: str
    symbol: str | None = None
    rejected: int = 0
    time_unit: str | None = None
    published_at_us: int | None = None
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """An unusable row of a file; ``line`` counts from 1.

    Attributes:
        origin: distinguishes users' files of one name; empty for dump files, whose paths do.
    """

    file: str
    line: int
    reason: str
    raw: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class QualityResult:
    """Result of one check of a run; ``symbol`` None: over all symbols.

    Attributes:
        suite: name of the checked set of rows.
        failing_count: number of all failing rows; ``failing_rows`` are some of them.
    """

    check_name: str
    success: bool
    symbol: str | None = None
    severity: str = "error"
    suite: str = "candles"
    failing_count: int = 0
    observed: Mapping[str, object] = field(default_factory=dict)
    failing_rows: Sequence[Mapping[str, object]] = ()


# --- dump files

_RECORD_FILE = """
INSERT INTO ops.dump_files AS f (
    path, checksum, symbol, kind, published_at, fetched_at, rows, rejected, time_unit,
    verdict, detail
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (path, checksum) DO UPDATE SET
    symbol = excluded.symbol,
    published_at = coalesce(excluded.published_at, f.published_at),
    fetched_at = excluded.fetched_at,
    rows = excluded.rows,
    rejected = excluded.rejected,
    time_unit = excluded.time_unit,
    verdict = excluded.verdict,
    detail = excluded.detail
"""

_FIND_FILE = """
SELECT
    path, checksum, kind, fetched_at, rows, verdict, symbol, rejected, time_unit,
    published_at, detail
FROM ops.dump_files
WHERE path = %(path)s AND (%(checksum)s::text IS NULL OR checksum = %(checksum)s)
ORDER BY fetched_at DESC
LIMIT 1
"""


def record_dump_file(connection: Connection, file: DumpFile) -> None:
    """Record a dump file; replaces the entry with the same path and checksum."""
    row = (
        file.path,
        file.checksum,
        file.symbol,
        file.kind,
        None if file.published_at_us is None else from_us(file.published_at_us),
        from_us(file.fetched_at_us),
        file.rows,
        file.rejected,
        file.time_unit,
        file.verdict,
        Jsonb(dict(file.detail)),
    )
    with translated(connection):
        connection.execute(_RECORD_FILE, row)


def find_dump_file(
    connection: Connection, path: str, *, checksum: str | None = None
) -> DumpFile | None:
    """Return the entry of a dump file: with this checksum, or the one fetched last."""
    with translated(connection):
        row = connection.execute(_FIND_FILE, {"path": path, "checksum": checksum}).fetchone()
    if row is None:
        return None
    found, digest, kind, fetched, rows, verdict, symbol, rejected, unit, published, detail = row
    published_us = None if published is None else to_us(published)
    return DumpFile(
        found, digest, kind, to_us(fetched), rows, verdict, symbol, rejected, unit, published_us,
        detail,
    )  # fmt: skip


_FIND_BESIDE = """
SELECT path, checksum
FROM ops.dump_files
WHERE
    symbol = %(symbol)s AND kind = %(kind)s
    AND (verdict = 'loaded' OR detail ->> 'replaced_by' = 'rest')
    AND detail ->> %(end)s = %(moment)s
ORDER BY fetched_at DESC
LIMIT 1
"""


def find_dump_beside(
    connection: Connection,
    symbol: str,
    kind: str,
    *,
    begins_us: int | None = None,
    ends_us: int | None = None,
) -> DumpFile | None:
    """Return the file of trades loaded last whose period begins, or ends, at a time.

    A file that REST replaced counts as loaded. ``from`` and ``to`` in ``detail`` are its ends.
    """
    moment_us = begins_us if ends_us is None else ends_us
    if moment_us is None:
        raise PermanentError("find_dump_beside needs begins_us or ends_us")
    arguments = {
        "symbol": symbol,
        "kind": kind,
        "end": "from" if ends_us is None else "to",
        "moment": from_us(moment_us).isoformat(),
    }
    with translated(connection):
        found = connection.execute(_FIND_BESIDE, arguments).fetchone()
    return None if found is None else find_dump_file(connection, found[0], checksum=found[1])


# --- coverage

_ADD_COVERAGE = """
INSERT INTO ops.coverage AS v (symbol, source, day, minutes) VALUES (%s, %s, %s, %s)
ON CONFLICT (symbol, source, day) DO UPDATE SET minutes = v.minutes + excluded.minutes
WHERE NOT v.minutes @> excluded.minutes
"""

_READ_COVERAGE = """
SELECT lower(m.span), upper(m.span)
FROM (
    SELECT range_agg(v.minutes) AS minutes FROM ops.coverage AS v
    WHERE v.symbol = %s AND v.source = %s
) AS everything
CROSS JOIN LATERAL unnest(everything.minutes * tstzmultirange(tstzrange(%s, %s))) AS m (span)
ORDER BY 1
"""


def add_coverage(connection: Connection, symbol: str, source: str, minutes: MinuteRanges) -> None:
    """Add minutes that a source covers to those recorded before."""
    days: dict[date, list[Range[datetime]]] = {}
    for start_us, end_us in minutes:
        _check_minutes(start_us, end_us)
        while start_us < end_us:
            next_day_us = start_us - start_us % DAY_US + DAY_US
            until_us = min(end_us, next_day_us)
            span = Range(from_us(start_us), from_us(until_us))
            days.setdefault(from_us(start_us).date(), []).append(span)
            start_us = until_us
    rows = [(symbol, str(source), day, Multirange(days[day])) for day in sorted(days)]
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_ADD_COVERAGE, rows)


def read_coverage(
    connection: Connection, symbol: str, source: str, start_us: int, end_us: int
) -> list[tuple[int, int]]:
    """Return the minutes within the range that a source covers, as half-open ranges (µs)."""
    arguments = (symbol, str(source), from_us(start_us), from_us(end_us))
    with translated(connection):
        rows = connection.execute(_READ_COVERAGE, arguments).fetchall()
    return [(to_us(start), to_us(end)) for start, end in rows]


# --- outages

_RECORD_OUTAGE = """
INSERT INTO ops.outages AS o (market, symbol, minutes, cause) VALUES (%s, %s, %s, %s)
ON CONFLICT ON CONSTRAINT outages_one_row_per_cause
DO UPDATE SET minutes = o.minutes + excluded.minutes
WHERE NOT o.minutes @> excluded.minutes
"""

_READ_OUTAGES = """
SELECT lower(m.span), upper(m.span), o.cause
FROM ops.outages AS o
CROSS JOIN LATERAL unnest(o.minutes * tstzmultirange(tstzrange(%(start)s, %(end)s))) AS m (span)
WHERE
    o.market = market.market_of(%(symbol)s) AND (o.symbol IS NULL OR o.symbol = %(symbol)s)
ORDER BY 1, 2, 3
"""


def record_outage(
    connection: Connection,
    *,
    market: Market,
    start_us: int,
    end_us: int,
    cause: str,
    symbol: str | None = None,
) -> None:
    """Record minutes in which the exchange did not trade.

    Args:
        symbol: None for the whole market.
        cause: outages of the same market, symbol and cause are merged.
    """
    _check_minutes(start_us, end_us)
    minutes = Multirange([Range(from_us(start_us), from_us(end_us))])
    with translated(connection):
        connection.execute(_RECORD_OUTAGE, (market.value, symbol, minutes, cause))


def read_outages(
    connection: Connection, symbol: str, start_us: int, end_us: int
) -> list[tuple[int, int, str]]:
    """Return outages of a symbol within the range: start, end (µs, half-open) and cause."""
    arguments = {"symbol": symbol, "start": from_us(start_us), "end": from_us(end_us)}
    with translated(connection):
        rows = connection.execute(_READ_OUTAGES, arguments).fetchall()
    return [(to_us(start), to_us(end), cause) for start, end, cause in rows]


# --- rejected rows and checks

_RECORD_REJECTED = """
INSERT INTO ops.rejected_rows (file, origin, line, reason, raw) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (file, origin, line, md5(reason), md5(raw)) DO NOTHING
"""

_RECORD_RESULT = """
INSERT INTO ops.quality_results (
    run_id, run_at, suite, check_name, symbol, success, severity, failing_count, observed,
    failing_rows
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT ON CONSTRAINT quality_results_one_per_rule DO UPDATE SET
    run_at = excluded.run_at,
    suite = excluded.suite,
    success = excluded.success,
    severity = excluded.severity,
    failing_count = excluded.failing_count,
    observed = excluded.observed,
    failing_rows = excluded.failing_rows
"""


# Rows without an origin were recorded before there were origins.
_FORGET_REJECTED = "DELETE FROM ops.rejected_rows WHERE file = %s AND origin IN ('', %s)"


def begin_user_file(connection: Connection, file: DumpFile, *, origin: str) -> None:
    """Record that a user's file is being read; forget the rows that an earlier read rejected."""
    with translated(connection), connection.transaction():
        connection.execute(_FORGET_REJECTED, (file.path, origin))
        record_dump_file(connection, file)


def record_rejected_rows(connection: Connection, rows: Iterable[RejectedRow]) -> None:
    """Quarantine rows of files; the same row again adds nothing."""
    # PostgreSQL's text type cannot store NUL, which corrupt files contain.
    values = [
        (row.file, row.origin, row.line, row.reason, row.raw.replace("\0", "\\0")) for row in rows
    ]
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_RECORD_REJECTED, values)


def record_quality_results(
    connection: Connection, run_id: str, run_at: datetime, results: Iterable[QualityResult]
) -> None:
    """Record the results of a quality run; a repeated run replaces its results."""
    if run_at.tzinfo is None:
        raise PermanentError(f"run_at {run_at} has no time zone; give UTC explicitly")
    values: list[tuple[Any, ...]] = [
        (
            run_id,
            run_at.astimezone(UTC),
            result.suite,
            result.check_name,
            result.symbol,
            result.success,
            result.severity,
            result.failing_count,
            Jsonb(dict(result.observed)),
            Jsonb([dict(row) for row in result.failing_rows]),
        )
        for result in results
    ]
    with translated(connection), connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(_RECORD_RESULT, values)


def _check_minutes(start_us: int, end_us: int) -> None:
    if start_us % MINUTE_US or end_us % MINUTE_US or start_us >= end_us:
        raise PermanentError(
            f"[{start_us}, {end_us}) is not a range of minutes: both bounds are open times (µs) "
            "and the start comes first"
        )
