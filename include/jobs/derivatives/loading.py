"""Load pieces of derivative series: files with REST behind them, or pages of REST."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import structlog

from include.binance.files.dumps import FetchedDump, NotPublishedError
from include.binance.files.series.funding_rates import read_funding_rates
from include.binance.files.series.metrics import read_metrics
from include.binance.files.series.price_klines import read_price_klines
from include.binance.files.series.reading import SeriesFile
from include.binance.rest.series import REST_LAGS_US, SeriesPage, SeriesRest, oldest_us
from include.config import Settings
from include.domain.candles import Source
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.series.kinds import FUNDING_STEP_US, TABLES, Series
from include.domain.timeframes import DAY_US, from_us
from include.errors import PermanentError, TransientError, UnknownSymbolError, WrongValueError
from include.jobs.derivatives.pieces import SeriesFilePiece, SeriesPiece, SeriesRestPiece
from include.jobs.derivatives.planning import FILE_KINDS
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_series_rest
from include.jobs.klines.dump_files import record_unusable
from include.jobs.klines.dump_loading import window_of
from include.jobs.klines.pieces import LoadCounts
from include.store.candles.merging import Connection
from include.store.ledgers.files import (
    DumpFile,
    RejectedRow,
    record_dump_file,
    record_rejected_rows,
)
from include.store.postgres.pools import connect
from include.store.series.coverage import LACKED, add_series_coverage, series_gaps
from include.store.series.merging import merge_series

log = structlog.get_logger(__name__)

ROUNDS = 2
"""What a page lacks is requested once more: a stale answer lacks its last rows."""
LATE_FILE_US = 3 * DAY_US
"""A day's file that is missing this long after the day, while later days have one, is not late."""
AROUND_US = 3 * DAY_US
"""Settlements on both sides of a piece, which tell the funding interval there."""


def load_series_piece(*, settings: Settings, piece: SeriesPiece) -> LoadCounts:
    """Load a piece; loading it again changes nothing.

    Raises:
        TransientError, RateLimitedError: the exchange or the database is away.
        PermanentError: the exchange does not know the symbol, or a setting is wrong.
    """
    began_s = time.monotonic()
    url = settings.url_for("jobs")
    with connect(url, application_name=APPLICATION_NAME) as connection:
        if isinstance(piece, SeriesFilePiece):
            counts = _load_file_piece(settings, connection, piece)
        else:
            with open_series_rest(settings, market_of(piece.symbol), url) as rest:
                counts = _load_rest_piece(connection, rest, piece)
    took_s = round(time.monotonic() - began_s, 1)
    positive = {name: count for name, count in asdict(counts).items() if count}
    log.info("series_piece_loaded", piece=piece.label, took_s=took_s, **positive)
    return counts


# --- files


def _load_file_piece(
    settings: Settings, connection: Connection, piece: SeriesFilePiece
) -> LoadCounts:
    """Load a file, then request what it lacks by REST."""
    fetched_at_us = time.time_ns() // 1000
    fetched: FetchedDump | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="candelabra-dump-") as folder:
            with open_dump_site(settings) as site:
                fetched = site.fetch(piece.path, Path(folder))
            content = _read(fetched.file, piece)
    except (TransientError, PermanentError) as error:
        record_unusable(
            connection,
            path=piece.path,
            symbol=piece.symbol,
            kind=piece.kind,
            fetched_at_us=fetched_at_us,
            fetched=fetched,
            error=error,
            replaced_by=Source.REST.value,
        )
        counts = LoadCounts(replaced_dumps=1)
        if isinstance(error, NotPublishedError):
            _cover_missing_file(connection, piece, fetched_at_us)
        return counts + _fill(settings, connection, piece, is_loaded=False)
    counts = _merge_file(connection, fetched, content, piece, fetched_at_us)
    return counts + _fill(settings, connection, piece, is_loaded=True)


def _read(file: Path, piece: SeriesFilePiece) -> SeriesFile:
    window = window_of(piece.path)
    if piece.kind == "metrics":
        return read_metrics(file, exchange_symbol_of(piece.symbol), window=window)
    if piece.kind == "fundingRate":
        return read_funding_rates(file, window=window)
    (series,) = _series_of(piece)
    return read_price_klines(file, series, window=window)


def _series_of(piece: SeriesFilePiece) -> Sequence[Series]:
    for kind, series in FILE_KINDS.items():
        if kind == piece.kind:
            return series
    known = ", ".join(FILE_KINDS)
    raise WrongValueError(f"unknown kind of files {piece.kind!r}; known are {known}")


def _merge_file(
    connection: Connection,
    fetched: FetchedDump,
    content: SeriesFile,
    piece: SeriesFilePiece,
    fetched_at_us: int,
) -> LoadCounts:
    """Merge the file's rows and write the ledgers; each series with its coverage, or neither."""
    counts = LoadCounts(rejected=len(content.rejections), dumps=1)
    record_rejected_rows(
        connection,
        (RejectedRow(piece.path, one.line, one.reason, one.raw) for one in content.rejections),
    )
    for series, points in content.points.items():
        rows = [
            point.row(piece.symbol, piece.source, fetched.published_at_us)
            for point in points
            if piece.start_us <= point.time_us <= piece.end_us
        ]
        cover = partial(
            add_series_coverage,
            connection,
            series,
            piece.symbol,
            piece.source,
            [(piece.start_us, piece.end_us)],
        )
        counts += LoadCounts.of(merge_series(connection, series, rows, record=cover))
    record_dump_file(
        connection,
        DumpFile(
            path=piece.path,
            checksum=fetched.checksum,
            kind=piece.kind,
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
                "repeated": content.repeated,
            },
        ),
    )
    return counts


def _cover_missing_file(connection: Connection, piece: SeriesFilePiece, fetched_at_us: int) -> None:
    """Record that the site has no file, once it is not merely late: the exchange lacks the day.

    If it is published after all, its listing shows that.
    """
    if piece.kind == "metrics" and piece.end_us + LATE_FILE_US <= fetched_at_us:
        for series in _series_of(piece):
            span = [(piece.start_us, piece.end_us)]
            add_series_coverage(connection, series, piece.symbol, piece.source, span)


def _fill(
    settings: Settings, connection: Connection, piece: SeriesFilePiece, *, is_loaded: bool
) -> LoadCounts:
    """Request by REST what a file lacks; all of it, if the file is unusable."""
    spans: list[tuple[Series, int, int]] = []
    for series in _series_of(piece):
        if not is_loaded:
            spans.append((series, piece.start_us, piece.end_us))
            continue
        around_us = AROUND_US if series is Series.FUNDING else 0
        first_us, until_us = piece.start_us - around_us, piece.end_us + around_us
        spans += [
            (series, max(gap.start_us, piece.start_us), min(gap.end_us, piece.end_us))
            for gap in series_gaps(connection, series, piece.symbol, first_us, until_us)
            if gap.end_us > piece.start_us and gap.start_us < piece.end_us
        ]
    if not spans:
        return LoadCounts()
    counts = LoadCounts()
    url = settings.url_for("jobs")
    with open_series_rest(settings, market_of(piece.symbol), url) as rest:
        now_us = rest.server_time_us()
        for series, start_us, end_us in spans:
            first_us = max(start_us, oldest_us(series, now_us))
            if first_us >= end_us or not rest.serves(series):
                continue
            part = SeriesRestPiece(piece.symbol, piece.label, series.value, first_us, end_us)
            try:
                counts += _load_rest_piece(connection, rest, part)
            except UnknownSymbolError as error:
                # Delisted, and no longer served: its files are the only source.
                log.warning("rest_knows_no_more", path=piece.path, error=str(error))
                break
    return counts


# --- REST


def _load_rest_piece(
    connection: Connection, rest: SeriesRest, piece: SeriesRestPiece
) -> LoadCounts:
    """Request a range page by page; each page is merged together with its coverage."""
    series, counts = Series(piece.series), LoadCounts()
    now_us = rest.server_time_us()
    start_us = max(piece.start_us, oldest_us(series, now_us))
    spans = [(start_us, piece.end_us)]
    for _ in range(ROUNDS):
        for first_us, until_us in spans:
            for page in rest.pages(series, piece.symbol, first_us, until_us, server_time_us=now_us):
                counts += _merge_page(connection, series, piece.symbol, page, now_us)
        spans = [
            (max(gap.start_us, start_us), min(gap.end_us, piece.end_us))
            for gap in series_gaps(connection, series, piece.symbol, start_us, piece.end_us)
            if gap.reason == LACKED
        ]
    return counts


def _merge_page(
    connection: Connection, series: Series, symbol: str, page: SeriesPage, now_us: int
) -> LoadCounts:
    source = Source.REST.value
    record_rejected_rows(
        connection,
        (
            RejectedRow(f"rest {one.request}", one.number, one.reason, one.raw)
            for one in page.rejected
        ),
    )
    cover = partial(
        add_series_coverage,
        connection,
        series,
        symbol,
        source,
        [(page.start_us, answered_until_us(series, page, now_us))],
    )
    rows = [point.row(symbol, source, now_us) for point in page.points]
    merged = merge_series(connection, series, rows, record=cover)
    return LoadCounts.of(merged, rejected=len(page.rejected), rest_pages=1)


def answered_until_us(series: Series, page: SeriesPage, now_us: int) -> int:
    """Return the time up to which a page is REST's last word.

    A server that lags omits its newest rows. So young times count only up to the last row.
    """
    if page.end_us <= now_us - REST_LAGS_US:
        return page.end_us
    old_us = max(page.start_us, min(page.end_us, now_us - REST_LAGS_US))
    if not page.points:
        return old_us
    step_us = TABLES[series].step_us or FUNDING_STEP_US
    return max(old_us, min(page.end_us, page.points[-1].time_us + step_us))
