"""Import a user's files: 1m klines, trades and aggTrades in the dump site's formats."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import IO

import polars as pl
import structlog

from include.binance.files.archives import sha256_of
from include.binance.files.columns import Rejection
from include.config import Settings
from include.domain.candles import Source, Status
from include.domain.columns.candles import as_candidates, ranges_in
from include.domain.instruments import Market, market_of
from include.errors import RejectedInputError
from include.jobs.exchange import APPLICATION_NAME
from include.jobs.files.user_files import (
    FilePart,
    UserFile,
    inexact_quotes_error,
    open_file,
    read_parts,
)
from include.store.candles.foreign import store_foreign
from include.store.candles.merging import Connection, MergeCounts, merge_frames
from include.store.instruments import read_instruments
from include.store.ledgers.files import (
    DumpFile,
    RejectedRow,
    add_coverage,
    begin_user_file,
    record_dump_file,
    record_rejected_rows,
)
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

QUARANTINE = "quarantine"
IMPORTING = "importing"
"""Verdict until the last row is in; without a running import, the file was not read to its end."""
ORIGIN_DIGITS = 12  # of a SHA-256: enough for all files of one name
HOPELESS_ROWS = 1_000
"""A file is refused if this many rows are bad before the first good one: it has another format."""


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Progress of importing a file: the share read (0..1) and rows so far."""

    share: float
    rows: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """Result of loading a file.

    Attributes:
        file: its name; the ledgers store it as ``symbol/name``.
        rows: usable rows: klines or trades.
        rejected: unusable rows, stored in ``ops.rejected_rows`` and ``quarantine``.
        partial: minutes that may lack trades.
        incomplete: rows that lack values, stored in ``market.foreign_candles_1m``.
        merged: counts of the merge.
        quarantine: CSV of the rejected rows; None if there are none.
        reasons: number of rejected rows by reason.
        seconds: duration.
    """

    file: str
    symbol: str
    kind: str
    rows: int
    rejected: int
    partial: int
    merged: MergeCounts
    quarantine: str | None
    incomplete: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def import_file(
    *,
    settings: Settings,
    path: Path | str,
    symbol: str = "",
    market: Market | str = "",
    columns: str = "",
    inbox_folder: str = "",
    on_progress: Callable[[ImportProgress], None] | None = None,
) -> ImportSummary:
    """Merge a user's file into ``market.candles_1m``; repeating it changes nothing.

    Rows are stored as unconfirmed, with source ``file``, or ``foreign`` if ``columns`` names their
    columns: every row of the exchange outranks them.
    Rows of foreign files that lack values are stored in ``market.foreign_candles_1m`` instead. Bad
    rows are stored with file, line and reason; the others are loaded. Repeating an interrupted
    load gives the same rows.

    Args:
        path: ``.csv``, ``.csv.gz``, ``.zip`` or ``.parquet``; the columns decide the kind.
        symbol, market, columns: see ``user_files.open_file``.
        inbox_folder: where an inbox file was dropped. There, a later file of its name replaces it
            only if both are equal; elsewhere, a file replaces what its folder had by that name.
        on_progress: called after each block.

    Raises:
        RejectedInputError: the whole file is unusable; nothing of it was loaded.
        PermanentError: the symbol is unknown or invalid.
        TransientError: the database is away; rows merged before stay.
    """
    started_s = time.monotonic()
    file = open_file(Path(path), symbol=symbol, market=market, columns=columns)
    path, symbol = file.path, file.symbol
    merged, partial, incomplete = MergeCounts(), 0, 0
    reasons: dict[str, int] = {}
    first: Rejection | None = None
    entry = DumpFile(
        path=file.key,
        checksum=sha256_of(path),
        kind=file.kind,
        symbol=symbol,
        fetched_at_us=time.time_ns() // 1000,
        rows=0,
        verdict=IMPORTING,
    )
    origin = _origin(path, entry.checksum, inbox_folder)
    quarantine = _quarantine_of(settings.candelabra_home, file, origin)
    with (
        connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection,
        _quarantine(quarantine) as keep,
    ):
        _check_quotes(connection, file)
        # An earlier import may have rejected rows that are corrected now.
        begin_user_file(connection, entry, origin=origin)
        try:
            for part in read_parts(file):
                entry = replace(
                    entry,
                    rows=entry.rows + part.rows,
                    rejected=entry.rejected + len(part.rejections),
                    time_unit=part.time_unit or entry.time_unit,
                )
                first = first or next(iter(part.rejections), None)
                if first is not None and not entry.rows and entry.rejected >= HOPELESS_ROWS:
                    raise _hopeless(path.name, first)
                keep(part.rejections)
                merged += _store(connection, file, part, entry, origin)
                partial += part.partial.height
                incomplete += part.incomplete.height
                for one in part.rejections:
                    kind = one.reason.partition(":")[0]
                    reasons[kind] = reasons.get(kind, 0) + 1
                if on_progress is not None:
                    on_progress(ImportProgress(part.share, entry.rows, entry.rejected))
        except RejectedInputError as error:
            refused = replace(entry, verdict="refused", detail={"error": str(error)})
            record_dump_file(connection, refused)
            raise
        verdict = "imported" if entry.rows else "empty"
        record_dump_file(connection, replace(entry, verdict=verdict))
    rows, rejected = entry.rows, entry.rejected
    if on_progress is not None:
        on_progress(ImportProgress(1.0, rows, rejected))
    summary = ImportSummary(
        file=path.name,
        symbol=symbol,
        kind=file.layout.name,
        rows=rows,
        rejected=rejected,
        partial=partial,
        incomplete=incomplete,
        merged=merged,
        quarantine=str(quarantine) if rejected else None,
        reasons=reasons,
        seconds=time.monotonic() - started_s,
    )
    log.info(
        "file_imported",
        file=path.name,
        symbol=symbol,
        rows=rows,
        rejected=rejected,
        inserted=merged.inserted,
        changed=merged.changed,
    )
    return summary


def _origin(path: Path, checksum: str, inbox_folder: str) -> str:
    """Return what distinguishes a file from others of its name and symbol."""
    if inbox_folder:
        return f"{inbox_folder}#{checksum[:ORIGIN_DIGITS]}"
    # Not every name of a folder is UTF-8, and PostgreSQL stores nothing else.
    return os.fsencode(path.resolve().parent).decode("utf-8", "backslashreplace")


def _quarantine_of(home: Path, file: UserFile, origin: str) -> Path:
    """Return the place of a file's rejected rows: files of one name have different ones."""
    digits = sha256(origin.encode()).hexdigest()[:ORIGIN_DIGITS]
    return home / QUARANTINE / f"{file.key}.{digits}.rejected.csv"


def _store(
    connection: Connection, file: UserFile, part: FilePart, entry: DumpFile, origin: str
) -> MergeCounts:
    """Merge a block and write the ledgers in one transaction: a kill leaves both or neither."""
    source = Source.FILE if file.columns is None else Source.FOREIGN
    whole = as_candidates(part.candles, status=Status.UNCONFIRMED, source=source)
    partial = as_candidates(part.partial, status=Status.PARTIAL, source=Source.FILE)

    def record() -> None:
        add_coverage(connection, file.symbol, source, ranges_in(part.candles["open_time"]))
        store_foreign(connection, part.incomplete, file=file.path.name, origin=origin)
        record_rejected_rows(
            connection,
            (
                RejectedRow(file.key, one.line, one.reason, one.raw, origin)
                for one in part.rejections
            ),
        )
        record_dump_file(connection, entry)

    candidates = pl.concat([whole, partial]).sort("open_time")
    return merge_frames(connection, [candidates], record=record)


def _check_quotes(connection: Connection, file: UserFile) -> None:
    if file.kind != "agg_trades":
        return
    listed = read_instruments(connection, symbols=[file.symbol])
    if market_of(file.symbol).is_inverse or any(not one.quote_volume_is_exact for one in listed):
        raise inexact_quotes_error(file)


def _hopeless(file: str, first: Rejection) -> RejectedInputError:
    kind = first.reason.partition(":")[0]  # without the value
    return RejectedInputError(
        f"{file}: none of its first {HOPELESS_ROWS} rows is usable; line {first.line}: {kind}"
    )


@contextmanager
def _quarantine(path: Path) -> Iterator[Callable[[Iterable[Rejection]], None]]:
    """Yield a function that writes rejected rows to a CSV file, created with the first row.

    An earlier import's file is removed.
    """
    path.unlink(missing_ok=True)
    with ExitStack() as stack:
        opened: list[IO[str]] = []

        def keep(rejections: Iterable[Rejection]) -> None:
            for one in rejections:
                if not opened:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    out = path.open("w", newline="", encoding="utf-8")
                    opened.append(stack.enter_context(out))
                    csv.writer(out).writerow(("line", "reason", "raw"))
                csv.writer(opened[0]).writerow((one.line, one.reason, one.raw))

        yield keep
