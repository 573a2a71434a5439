"""Load one dump file of klines; REST replaces it if it is unusable."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

import polars as pl
import structlog

from include.binance.files.columns import Rejection
from include.binance.files.dumps import FetchedDump, KlineBlock, read_klines
from include.binance.files.read_ahead import read_ahead
from include.config import Settings
from include.counts import counted
from include.domain.candles import Source, Status
from include.domain.columns.candles import as_candidates, ranges_in
from include.domain.instruments import market_of
from include.domain.ranges import united
from include.domain.timeframes import TIMEFRAMES, from_us, to_us
from include.errors import (
    PermanentError,
    RejectedInputError,
    TransientError,
    UnknownSymbolError,
)
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.klines.dump_files import record_unusable
from include.jobs.klines.minutes import fetch_minutes
from include.jobs.klines.pieces import (
    DumpPiece,
    LoadCounts,
    Ranges,
    gaps_in,
    minutes_in,
)
from include.store.candles.merging import Connection, merge_frames
from include.store.candles.minutes import MergeCounts, missing_minutes
from include.store.ledgers.files import (
    DumpFile,
    RejectedRow,
    add_coverage,
    record_dump_file,
    record_rejected_rows,
)
from include.store.ledgers.reconciliation import note_live
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

KIND = "klines"
BLOCK_BYTES = 2 << 20
"""Bytes parsed at a time: a month has three blocks, and PostgreSQL stores one while the next is
parsed."""


@dataclass(slots=True)
class _Content:
    """Rows read from a file."""

    covered: Ranges = field(default_factory=list)
    """Minutes of the file's good rows within the piece, ascending."""
    rejections: list[Rejection] = field(default_factory=list)
    rows: int = 0
    time_unit: str | None = None


class _UnusableError(Exception):
    """A file is unusable for the given reason."""

    def __init__(self, why: TransientError | PermanentError) -> None:
        super().__init__(str(why))
        self.why = why


class _RepeatedMinutesError(Exception):
    """Minutes occur in two blocks of a file; their rows must be checked together."""

    def __init__(self, repeated_us: frozenset[int]) -> None:
        super().__init__(
            f"{counted(len(repeated_us), 'minute is', 'minutes are')} in more than one block"
        )
        self.repeated_us = repeated_us


def load_dump_piece(*, settings: Settings, piece: DumpPiece) -> LoadCounts:
    """Fetch a dump file, verify and merge it, then fetch its missing minutes by REST.

    A file that is missing, late, damaged or fails its checksum is recorded as such and replaced by
    REST; so are its rejected rows. Only minutes within the piece's window are merged. Loading again
    changes nothing.

    Raises:
        TransientError, RateLimitedError: REST or the database is away.
        PermanentError: the exchange does not know the symbol, or a setting is wrong.
    """
    url = settings.url_for("jobs")
    with connect(url, application_name=APPLICATION_NAME) as connection:
        note_live(connection, piece.symbol, piece.start_us, piece.end_us)
        counts, covered = _load(settings, connection, piece)
        if not gaps_in(covered, piece.start_us, piece.end_us):
            return counts  # each minute has a row of the file or one of higher rank
        gaps = missing_minutes(connection, piece.symbol, piece.start_us, piece.end_us, unsure=True)
        if not gaps:
            return counts
        log.info("dump_lacks_minutes", path=piece.path, minutes=minutes_in(gaps))
        with open_shared_rest(settings, market_of(piece.symbol), url) as rest:
            for start_us, end_us in gaps:
                try:
                    counts += fetch_minutes(
                        connection, rest, symbol=piece.symbol, start_us=start_us, end_us=end_us
                    )
                except UnknownSymbolError as error:
                    if not counts.dumps:
                        raise
                    # Delisted and no longer served by REST: its files are the only source.
                    log.warning("rest_knows_no_more", path=piece.path, error=str(error))
                    return counts + LoadCounts(unlisted_minutes=minutes_in(gaps))
    return counts


def _load(
    settings: Settings, connection: Connection, piece: DumpPiece
) -> tuple[LoadCounts, Ranges]:
    """Load the file; return the counts and the minutes with rows."""
    fetched_at_us = time.time_ns() // 1000
    fetched: FetchedDump | None = None
    with tempfile.TemporaryDirectory(prefix="candelabra-dump-") as folder:
        try:
            fetched = _fetch(settings, piece, Path(folder))
            content, merged = _merge(connection, fetched, piece, fetched_at_us)
        except _UnusableError as error:
            record_unusable(
                connection,
                path=piece.path,
                symbol=piece.symbol,
                kind=KIND,
                fetched_at_us=fetched_at_us,
                fetched=fetched,
                error=error.why,
                replaced_by=Source.REST.value,
            )
            return LoadCounts(replaced_dumps=1), []
    return LoadCounts.of(merged, rejected=len(content.rejections), dumps=1), content.covered


def _fetch(settings: Settings, piece: DumpPiece, folder: Path) -> FetchedDump:
    try:
        with open_dump_site(settings) as site:
            return site.fetch(piece.path, folder)
    except (TransientError, PermanentError) as error:
        raise _UnusableError(error) from error


def _merge(
    connection: Connection, fetched: FetchedDump, piece: DumpPiece, fetched_at_us: int
) -> tuple[_Content, MergeCounts]:
    """Merge a file and write the ledgers in one transaction: a kill leaves both or neither.

    PostgreSQL stores one block while the next is read.

    Raises:
        _UnusableError: damaged, wrong columns, or not a file of rows.
    """
    aside: frozenset[int] = frozenset()
    while True:
        content = _Content()
        record = partial(_record, connection, fetched, piece, content, fetched_at_us)
        try:
            with closing(read_ahead(_candidates(fetched, piece, content, aside))) as candidates:
                return content, merge_frames(connection, candidates, record=record)
        except _RepeatedMinutesError as error:
            aside = error.repeated_us


def _record(
    connection: Connection,
    fetched: FetchedDump,
    piece: DumpPiece,
    content: _Content,
    fetched_at_us: int,
) -> None:
    """Record a loaded file, the minutes that it covers and its rejected rows."""
    add_coverage(connection, piece.symbol, Source(piece.source), content.covered)
    record_rejected_rows(
        connection,
        (RejectedRow(piece.path, one.line, one.reason, one.raw) for one in content.rejections),
    )
    record_dump_file(
        connection,
        DumpFile(
            path=piece.path,
            checksum=fetched.checksum,
            kind=KIND,
            symbol=piece.symbol,
            fetched_at_us=fetched_at_us,
            published_at_us=fetched.published_at_us,
            rows=content.rows,
            rejected=len(content.rejections),
            time_unit=content.time_unit,
            verdict="loaded",
            detail={
                "from": from_us(piece.start_us).isoformat(),
                "to": from_us(piece.end_us).isoformat(),
            },
        ),
    )


def _candidates(
    fetched: FetchedDump, piece: DumpPiece, content: _Content, aside: frozenset[int]
) -> Generator[pl.DataFrame, None, None]:
    """Yield candidates of a file's good rows within the piece, checked against the period in its
    name.

    Args:
        content: updated with each block's rows.
        aside: minutes (µs) that occur in two blocks.
    """
    opens = pl.col("open_time").dt.epoch("us")
    repeated: frozenset[int] = frozenset()
    for block in _blocks(fetched, piece.symbol, aside):
        repeated |= block.repeated_us
        content.rejections += block.rejections
        content.rows += block.candles.height
        content.time_unit = block.time_unit
        candles = block.candles.filter((opens >= piece.start_us) & (opens < piece.end_us))
        content.covered = united([*content.covered, *ranges_in(candles["open_time"])])
        yield as_candidates(
            candles,
            status=Status.VERIFIED,
            source=Source(piece.source),
            evidence_at_us=fetched.published_at_us,
        )
    if repeated - aside:
        raise _RepeatedMinutesError(aside | repeated)


def _blocks(fetched: FetchedDump, symbol: str, aside: frozenset[int]) -> Iterator[KlineBlock]:
    try:
        yield from read_klines(
            fetched.file,
            symbol,
            window=window_of(fetched.path),
            aside=aside,
            block_bytes=BLOCK_BYTES,
        )
    except (TransientError, PermanentError) as error:
        raise _UnusableError(error) from error


def window_of(path: str) -> tuple[int, int]:
    """Return the half-open period (µs) in a dump file's name.

    Raises:
        RejectedInputError: the name does not end in a day or a month.
    """
    stem = PurePosixPath(path).name.removesuffix(".zip")
    for digits, name in ((10, "1d"), (7, "1M")):
        try:
            start = datetime.fromisoformat(stem[-digits:] + ("-01" if digits == 7 else ""))
        except ValueError:
            continue
        start_us = to_us(start.replace(tzinfo=UTC))
        return start_us, TIMEFRAMES[name].next_open_us(start_us)
    raise RejectedInputError(f"{path} does not end in a day (2024-02-29) or month (2024-02)")
