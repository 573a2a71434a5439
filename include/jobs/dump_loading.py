"""Loading one dump file; where it cannot be used, REST stands in."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
import structlog

from include.binance.columns import Rejection
from include.binance.dumps import FetchedDump, read_klines
from include.config import Settings
from include.domain.candles import Source, Status
from include.domain.columnar import CANDLE_SCHEMA, as_offers
from include.domain.instruments import market_of
from include.domain.timeframes import TIMEFRAMES, from_us, to_us
from include.errors import (
    PermanentError,
    RejectedInputError,
    TransientError,
    UnknownSymbolError,
)
from include.jobs.dump_files import record_unusable
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.minutes import fetch_minutes
from include.jobs.pieces import DumpPiece, LoadCounts, as_piece, minutes_in, ranges_of
from include.store.candles import merge_frame, missing_minutes
from include.store.ledgers import (
    DumpFile,
    RejectedRow,
    add_coverage,
    record_dump_file,
    record_rejected_rows,
)
from include.store.merging import Connection
from include.store.pools import connect
from include.store.reconciliation import note_live

log = structlog.get_logger(__name__)

KIND = "klines"
MERGE_ROWS = 100_000
"""Rows of one transaction: a month of minutes is in or out as a whole."""


@dataclass(frozen=True, slots=True)
class _Content:
    """What a whole file says: its good rows in order of time, and what became of the others."""

    candles: pl.DataFrame
    rejections: list[Rejection]
    time_unit: str | None


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
    try:
        with tempfile.TemporaryDirectory(prefix="candelabra-dump-") as folder:
            with open_dump_site(settings) as site:
                fetched = site.fetch(piece.path, Path(folder))
            content = _read(fetched, piece.symbol)
    except (TransientError, PermanentError) as error:
        record_unusable(
            connection,
            path=piece.path,
            symbol=piece.symbol,
            kind=KIND,
            fetched_at_us=fetched_at_us,
            fetched=fetched,
            error=error,
            replaced_by=Source.REST.value,
        )
        return LoadCounts(replaced_dumps=1)
    opens = content.candles["open_time"].dt.epoch("us")
    candles = content.candles.filter((opens >= piece.start_us) & (opens < piece.end_us))
    source = Source(piece.source)
    offers = as_offers(
        candles,
        status=Status.VERIFIED,
        source=source,
        evidence_at_us=fetched.published_at_us,
    )
    merged = merge_frame(connection, offers, chunk_rows=MERGE_ROWS)
    add_coverage(connection, piece.symbol, source, ranges_of(candles["open_time"].dt.epoch("us")))
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
            rows=content.candles.height,
            rejected=len(content.rejections),
            time_unit=content.time_unit,
            verdict="loaded",
            detail={
                "from": from_us(piece.start_us).isoformat(),
                "to": from_us(piece.end_us).isoformat(),
            },
        ),
    )
    return LoadCounts.of(merged, rejected=len(content.rejections), dumps=1)


def _read(fetched: FetchedDump, symbol: str) -> _Content:
    """All of a file, held to the period in its name, before any of it is used.

    A minute that comes in two blocks is in neither: no block can say whether they agree.

    Raises:
        RejectedInputError: damaged, of other columns, or no file of rows, wherever that shows.
    """
    blocks = list(read_klines(fetched.file, symbol, window=window_of(fetched.path)))
    candles = pl.concat([CANDLE_SCHEMA.to_frame(), *(block.candles for block in blocks)])
    repeated = frozenset[int]().union(*(block.repeated_us for block in blocks))
    if repeated:
        opens = candles["open_time"].dt.epoch("us")
        candles = candles.filter(~opens.is_in(sorted(repeated)))
    return _Content(
        candles.sort("open_time"),
        [one for block in blocks for one in block.rejections],
        blocks[-1].time_unit if blocks else None,
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
