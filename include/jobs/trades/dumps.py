"""Load dump files of trades and aggTrades: aggregate candles, and store the rows on request.

Each file is aggregated separately. Its candles have source ``trades``, which ranks below every
kline of the exchange; the merge records discrepancies. An unusable monthly file is replaced by its
daily files, an unusable daily file by the same trades from REST.
"""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from include.binance.files.archives import check_archive
from include.binance.files.dump_paths import KINDS, dump_path
from include.binance.files.dumps import FetchedDump, NotPublishedError
from include.binance.files.trade_files import TradeReader, agg_trades_layout, trades_layout
from include.config import Settings
from include.domain.candles import Source
from include.domain.instruments import market_of
from include.domain.timeframes import DAY_US, from_us
from include.errors import CandelabraError, PermanentError, RejectedInputError, TransientError
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.klines.dump_files import REPLACED_BY, download_folder, record_unusable
from include.jobs.klines.dump_loading import window_of
from include.jobs.trades.file_candles import (
    KEEPS_RAW,
    AggregatedTrades,
    aggregate_blocks,
    positive_counts,
    store_aggregated,
)
from include.jobs.trades.file_edges import EDGES_CHECKED
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece
from include.jobs.trades.rest import RestTrades, served_kind
from include.store.candles.merging import Connection
from include.store.candles.minutes import last_traded_minute
from include.store.ledgers.files import DumpFile, record_dump_file
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)


def load_trade_dump(*, settings: Settings, piece: TradeDumpPiece) -> TradeDumpCounts:
    """Fetch a trade file, verify and aggregate it, merge its candles; store its rows on request.

    A file that is missing, damaged, truncated or fails its checksum is recorded as such. REST
    replaces a daily file, and daily files replace a monthly one. If the neighbouring files are
    loaded too and their ids are contiguous, the minutes on the file boundary become complete.
    Loading again changes nothing.

    Raises:
        TransientError: dump site, exchange or database is away; the next call resumes the download.
        PermanentError: a setting is wrong, or the site refuses us.
    """
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        fetched_at_us = time.time_ns() // 1000
        fetched: FetchedDump | None = None
        try:
            with (
                download_folder(settings, piece.path) as folder,
                open_dump_site(settings) as site,
            ):
                fetched = site.fetch(piece.path, folder)
                content = _read(connection, fetched, piece)
        except (NotPublishedError, RejectedInputError) as error:
            entry = _record(connection, piece, fetched_at_us, fetched, error)
            return _stand_in(settings, connection, piece, entry)
        except (TransientError, PermanentError) as error:
            if fetched is None:
                _record(connection, piece, fetched_at_us, fetched, error)
            raise
        entry = DumpFile(
            path=piece.path,
            checksum=fetched.checksum,
            kind=piece.kind,
            symbol=piece.symbol,
            fetched_at_us=fetched_at_us,
            published_at_us=fetched.published_at_us,
            rows=content.trades,
            verdict="loaded",
        )
        if _is_cut(connection, piece, content):
            log.warning("trades_cut_short", path=piece.path, trades=content.trades)
            entry = replace(entry, detail={"is_cut": True, EDGES_CHECKED: False})
            record_dump_file(connection, entry)
            counts = _stand_in(settings, connection, piece, entry)
            if not counts.unusable:
                return counts
        counts = TradeDumpCounts(files=1) + store_aggregated(
            connection, piece, entry, content, evidence_at_us=fetched.published_at_us
        )
    log.info("trade_dump_loaded", path=piece.path, **positive_counts(counts))
    return counts


def _read(connection: Connection, fetched: FetchedDump, piece: TradeDumpPiece) -> AggregatedTrades:
    if piece.keep_raw:
        check_archive(fetched.file)  # the whole file, before the first row is written
    layout = agg_trades_layout if piece.kind == "agg_trades" else trades_layout
    window = window_of(piece.path)
    reader = TradeReader(
        piece.symbol, layout(piece.symbol), window=window, keep_rows=piece.keep_raw
    )
    blocks = reader.read_file(fetched.file)
    return aggregate_blocks(connection, piece, reader, blocks, window=window, kind=piece.kind)


def _is_cut(connection: Connection, piece: TradeDumpPiece, content: AggregatedTrades) -> bool:
    """Whether klines show trades after the file's last minute.

    Klines of futures count fills that no file of trades contains.
    """
    if market_of(piece.symbol).is_futures:
        return False
    traded_us = last_traded_minute(connection, piece.symbol, *content.window)
    return traded_us is not None and traded_us > content.reader.aggregator.last_minute_us


def _stand_in(
    settings: Settings, connection: Connection, piece: TradeDumpPiece, entry: DumpFile
) -> TradeDumpCounts:
    """Load the replacement of a file; record its source in the ledger, or why there is none."""
    begin_us, end_us = window_of(piece.path)
    if end_us - begin_us > DAY_US:
        return _load_days(settings, connection, piece, entry)
    try:
        kind = served_kind(settings, piece.symbol, piece.kind, keep_raw=piece.keep_raw)
        url = settings.url_for("jobs")
        with open_shared_rest(settings, market_of(piece.symbol), url) as rest:
            found = RestTrades.find(
                rest,
                symbol=piece.symbol,
                kind=kind,
                window=(begin_us, end_us),
                keep_rows=piece.keep_raw,
            )
            content = aggregate_blocks(
                connection, piece, found.reader, found.blocks(), window=found.window, kind=kind
            )
    except PermanentError as error:
        log.warning("trades_not_replaced", path=piece.path, error=str(error))
        record_dump_file(
            connection, replace(entry, detail={**entry.detail, "not_replaced": str(error)})
        )
        return TradeDumpCounts(unusable=1)
    entry = replace(entry, detail={**entry.detail, REPLACED_BY: Source.REST.value, "of": kind})
    counts = TradeDumpCounts(replaced=1, rest_pages=found.pages) + store_aggregated(
        connection, piece, entry, content, evidence_at_us=found.answered_us
    )
    log.info(
        "trades_replaced", path=piece.path, source=Source.REST.value, **positive_counts(counts)
    )
    return counts


def _load_days(
    settings: Settings, connection: Connection, piece: TradeDumpPiece, entry: DumpFile
) -> TradeDumpCounts:
    """Load the days of a month whose file is unusable."""
    counts = TradeDumpCounts(replaced=1)
    begin_us, end_us = window_of(piece.path)
    for day_us in range(begin_us, end_us, DAY_US):
        day = day_of(piece.symbol, piece.kind, day_us, keep_raw=piece.keep_raw)
        counts += load_trade_dump(settings=settings, piece=day)
    if not counts.unusable:
        detail = {
            **entry.detail,
            REPLACED_BY: Source.DUMP_DAILY.value,
            KEEPS_RAW: piece.keep_raw,
            EDGES_CHECKED: True,
        }
        record_dump_file(connection, replace(entry, detail=detail))
    log.info(
        "trades_replaced",
        path=piece.path,
        source=Source.DUMP_DAILY.value,
        **positive_counts(counts),
    )
    return counts


def day_of(
    symbol: str,
    kind: str,
    day_us: int,
    *,
    keep_raw: bool,
    source: Source = Source.DUMP_DAILY,
    why: str = "",
) -> TradeDumpPiece:
    """Return the piece of a symbol's day."""
    moment = from_us(day_us)
    return TradeDumpPiece(
        symbol=symbol,
        label=f"{symbol} {kind} {moment:%Y-%m-%d}",
        path=dump_path(symbol, KINDS[kind], "daily", moment),
        kind=kind,
        keep_raw=keep_raw,
        source=source.value,
        why=why,
    )


def _record(
    connection: Connection,
    piece: TradeDumpPiece,
    fetched_at_us: int,
    fetched: FetchedDump | None,
    error: CandelabraError,
) -> DumpFile:
    return record_unusable(
        connection,
        path=piece.path,
        symbol=piece.symbol,
        kind=piece.kind,
        fetched_at_us=fetched_at_us,
        fetched=fetched,
        error=error,
        replaced_by=None,
    )
