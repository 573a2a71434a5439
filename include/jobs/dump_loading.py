"""Loading one dump file; where it cannot be used, REST stands in."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import structlog

from include.binance.archives import check_archive
from include.binance.columns import Rejection
from include.binance.dumps import FetchedDump, NotPublishedError, WrongChecksumError, read_klines
from include.binance.read_ahead import read_ahead
from include.config import Settings
from include.domain.candles import Source, Status
from include.domain.columnar import as_offers
from include.domain.instruments import market_of
from include.domain.ranges import Ranges, united
from include.domain.timeframes import TIMEFRAMES, from_us, to_us
from include.errors import (
    CandelabraError,
    PermanentError,
    RejectedInputError,
    TransientError,
    UnknownSymbolError,
)
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.minutes import fetch_minutes
from include.jobs.pieces import DumpPiece, LoadCounts, as_piece, minutes_in, ranges_of
from include.store.candles import MergeCounts, missing_minutes
from include.store.ledgers import (
    DumpFile,
    RejectedRow,
    add_coverage,
    record_dump_file,
    record_rejected_rows,
)
from include.store.merging import Connection, merge_rendered, rendered
from include.store.pools import connect
from include.store.reconciliation import note_live

log = structlog.get_logger(__name__)

KIND = "klines"
NO_CHECKSUM = ""
"""Stands in the ledger for the checksum of a file that could not be fetched."""


BLOCK_BYTES = 2 << 20
"""Text of one merge: while the database merges a block, the next one is parsed."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of a file: what is offered of it, as the merge takes it, and what its ledger says."""

    offers: bytes
    minutes: Ranges
    rows: int
    rejections: list[Rejection]
    time_unit: str | None


@dataclass(slots=True)
class _Loaded:
    """What was loaded of a file so far."""

    merged: MergeCounts = field(default_factory=MergeCounts)
    rows: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    time_unit: str | None = None
    minutes: Ranges = field(default_factory=list)


def load_dump_piece(*, settings: Settings, piece: DumpPiece | Mapping[str, Any]) -> LoadCounts:
    """Fetch a dump file, verify and merge it, then ask REST for the minutes it lacks.

    A file that is missing, late, damaged or does not fit its checksum is recorded as such and
    replaced by REST; so are single rows of it that are rejected. The window of the piece bounds
    what is merged. Loading again changes nothing.

    Raises:
        TransientError, RateLimitedError: REST or the database are away.
        PermanentError: the exchange does not know the symbol, or a setting is wrong.
    """
    piece = as_piece(DumpPiece, piece)
    url = settings.url_for("jobs")
    with connect(url, application_name=APPLICATION_NAME) as connection:
        note_live(connection, piece.symbol, piece.start_us, piece.end_us)
        counts = _load(settings, connection, piece)
        holes = missing_minutes(connection, piece.symbol, piece.start_us, piece.end_us, unsure=True)
        if not holes:
            return counts
        log.info("dump_lacks_minutes", path=piece.path, minutes=minutes_in(holes))
        with open_shared_rest(settings, market_of(piece.symbol), url) as rest:
            for start_us, end_us in holes:
                try:
                    counts += fetch_minutes(
                        connection, rest, symbol=piece.symbol, start_us=start_us, end_us=end_us
                    )
                except UnknownSymbolError as error:
                    if not counts.dumps:
                        raise
                    # delisted and forgotten: its files are all there is
                    log.warning("rest_knows_no_more", path=piece.path, error=str(error))
                    return counts + LoadCounts(unlisted_minutes=minutes_in(holes))
    return counts


def _load(settings: Settings, connection: Connection, piece: DumpPiece) -> LoadCounts:
    fetched_at_us = time.time_ns() // 1000
    fetched: FetchedDump | None = None
    loaded = _Loaded()
    with tempfile.TemporaryDirectory(prefix="candelabra-dump-") as folder:
        try:
            with open_dump_site(settings) as site:
                fetched = site.fetch(piece.path, Path(folder))
            check_archive(fetched.file)
        except (TransientError, PermanentError) as error:
            _record_unusable(connection, piece, fetched_at_us, fetched, error)
            return LoadCounts(replaced_dumps=1)
        with closing(read_ahead(_blocks(fetched, piece))) as blocks:
            for block in blocks:
                if isinstance(block, RejectedInputError):
                    _record_unusable(connection, piece, fetched_at_us, fetched, block)
                    return LoadCounts.of(loaded.merged, replaced_dumps=1)
                _merge(connection, loaded, block)
    add_coverage(connection, piece.symbol, Source(piece.source), united(loaded.minutes))
    record_rejected_rows(
        connection,
        (RejectedRow(piece.path, one.line, one.reason, one.raw) for one in loaded.rejections),
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
            rows=loaded.rows,
            rejected=len(loaded.rejections),
            time_unit=loaded.time_unit,
            verdict="loaded",
            detail={
                "from": from_us(piece.start_us).isoformat(),
                "to": from_us(piece.end_us).isoformat(),
            },
        ),
    )
    return LoadCounts.of(loaded.merged, rejected=len(loaded.rejections), dumps=1)


def _merge(connection: Connection, loaded: _Loaded, block: _Block) -> None:
    loaded.merged += merge_rendered(connection, block.offers)
    loaded.rows += block.rows
    loaded.rejections += block.rejections
    loaded.time_unit = block.time_unit
    loaded.minutes += block.minutes


def _blocks(
    fetched: FetchedDump, piece: DumpPiece
) -> Generator[_Block | RejectedInputError, None, None]:
    """Blocks of a file's rows, held to the period in its name; last of all why it is refused."""
    try:
        window = window_of(fetched.path)
        for block in read_klines(
            fetched.file, piece.symbol, window=window, block_bytes=BLOCK_BYTES
        ):
            opens = block.candles["open_time"].dt.epoch("us")
            wanted = block.candles.filter((opens >= piece.start_us) & (opens < piece.end_us))
            offers = as_offers(
                wanted,
                status=Status.VERIFIED,
                source=Source(piece.source),
                evidence_at_us=fetched.published_at_us,
            )
            yield _Block(
                rendered(offers),
                ranges_of(wanted["open_time"].dt.epoch("us")),
                block.candles.height,
                block.rejections,
                block.time_unit,
            )
    except RejectedInputError as error:
        yield error


def _record_unusable(
    connection: Connection,
    piece: DumpPiece,
    fetched_at_us: int,
    fetched: FetchedDump | None,
    error: CandelabraError,
) -> None:
    if isinstance(error, NotPublishedError):
        verdict, checksum = "missing", NO_CHECKSUM
    elif isinstance(error, WrongChecksumError):
        verdict, checksum = "wrong_checksum", error.found
    elif isinstance(error, RejectedInputError):
        verdict, checksum = "corrupt", fetched.checksum if fetched else NO_CHECKSUM
    elif isinstance(error, PermanentError):
        verdict, checksum = "refused", NO_CHECKSUM
    else:
        verdict, checksum = "unreachable", NO_CHECKSUM
    log.warning("dump_unusable", path=piece.path, verdict=verdict, error=str(error))
    record_dump_file(
        connection,
        DumpFile(
            path=piece.path,
            checksum=checksum,
            kind=KIND,
            symbol=piece.symbol,
            fetched_at_us=fetched_at_us,
            published_at_us=fetched.published_at_us if fetched else None,
            rows=0,
            verdict=verdict,
            detail={"error": str(error), "replaced_by": Source.REST.value},
        ),
    )


def window_of(path: str) -> tuple[int, int]:
    """The half-open period (µs) that a dump's name says it is for.

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
