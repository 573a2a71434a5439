"""Loading dump files of trades and aggTrades: candles folded from them, and their rows on request.

Each file is folded by itself and offered as source ``folded``, below whatever the exchange says
of the same minutes; where that differs, the merge keeps the discrepancy. REST does not stand in
for a file that cannot be used: minutes come from klines anyway, and this is their check.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import polars as pl
import structlog

from include.binance.archives import check_archive
from include.binance.columns import Rejection
from include.binance.dumps import FetchedDump, NotPublishedError
from include.binance.trade_files import TradeBlock, TradeReader, agg_trades_layout, trades_layout
from include.config import Settings
from include.domain.candles import Source, Status
from include.domain.columnar import CANDLE_SCHEMA, as_offers
from include.domain.instruments import QUOTE_DECIMALS
from include.domain.scaled import decimals_needed
from include.domain.timeframes import from_us
from include.errors import CandelabraError, PermanentError, RejectedInputError, TransientError
from include.jobs.dump_files import download_folder, record_unusable
from include.jobs.dump_loading import window_of
from include.jobs.exchange import APPLICATION_NAME, open_dump_site
from include.jobs.file_edges import EDGES, IS_SETTLED, edges_of, settle_edges
from include.jobs.pieces import ranges_of
from include.store.candles import MergeCounts, merge_frame
from include.store.instruments import read_listings
from include.store.ledgers import (
    DumpFile,
    RejectedRow,
    add_coverage,
    record_dump_file,
    record_rejected_rows,
)
from include.store.merging import Connection
from include.store.pools import connect
from include.store.raw_frames import RAW_OF_KIND, write_raw_frame

log = structlog.get_logger(__name__)

MOST_REJECTIONS = 10_000
"""A file with more bad rows is another thing than it seems, and is refused."""


@dataclass(frozen=True, slots=True)
class TradeDumpPiece:
    """One dump file of trades to be loaded as a whole.

    Attributes:
        kind: ``agg_trades`` or ``trades``.
        path: of the file, below the dump site's root.
        keep_raw: write its rows into the raw table of its kind as well.
    """

    symbol: str
    label: str
    path: str
    kind: str
    keep_raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeDumpCounts:
    """What came of loading, summable.

    Attributes:
        files, unusable: files loaded, and those that could not be.
        trades: rows used; raw_rows: those that were new in the raw table.
        rejected: rows that cannot be used.
        whole, partial: minutes folded, and those of them that are not proven whole.
        unfoldable: minutes not offered, since the exchange rounds the quote amount of each fill.
        inserted … discrepancies: as in ``MergeCounts``.
    """

    files: int = 0
    unusable: int = 0
    trades: int = 0
    raw_rows: int = 0
    rejected: int = 0
    whole: int = 0
    partial: int = 0
    unfoldable: int = 0
    inserted: int = 0
    changed: int = 0
    confirmed: int = 0
    unchanged: int = 0
    discrepancies: int = 0

    def __add__(self, other: TradeDumpCounts) -> TradeDumpCounts:
        return TradeDumpCounts(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )


@dataclass(slots=True)
class _Content:
    """What a file holds."""

    reader: TradeReader
    whole: pl.DataFrame
    partial: pl.DataFrame
    rejections: list[Rejection]
    trades: int = 0
    raw_rows: int = 0
    time_unit: str | None = None

    def add(self, block: TradeBlock) -> None:
        """Count a block and keep what it rejected."""
        self.rejections += block.rejections
        self.trades += block.trades
        self.time_unit = block.time_unit or self.time_unit


def load_trade_dump(
    *, settings: Settings, piece: TradeDumpPiece | Mapping[str, Any]
) -> TradeDumpCounts:
    """Fetch a file of trades, verify and fold it, offer its candles, and keep its rows on request.

    A file that is missing, late, damaged or does not fit its checksum is recorded as such. Where
    the neighbouring files are loaded too and their ids follow, the minutes at the seam become
    whole. Loading again changes nothing.

    Raises:
        TransientError: the dump site or the database are away; a fetch goes on where it was cut.
        PermanentError: a setting is wrong, or the site refuses us.
    """
    if isinstance(piece, Mapping):
        piece = TradeDumpPiece(**piece)
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
            _record(connection, piece, fetched_at_us, fetched, error)
            return TradeDumpCounts(unusable=1)
        except (TransientError, PermanentError) as error:
            if fetched is None:
                _record(connection, piece, fetched_at_us, fetched, error)
            raise
        return _store(connection, piece, fetched, fetched_at_us, content)


def _read(connection: Connection, fetched: FetchedDump, piece: TradeDumpPiece) -> _Content:
    """Fold a file; its rows go to their table as they are read, its candles wait for its end."""
    if piece.keep_raw:
        check_archive(fetched.file)  # before the first row is written
    layout = agg_trades_layout if piece.kind == "agg_trades" else trades_layout
    reader = TradeReader(
        piece.symbol,
        layout(piece.symbol),
        window=window_of(piece.path),
        keep_rows=piece.keep_raw,
    )
    content = _Content(reader, CANDLE_SCHEMA.to_frame(), CANDLE_SCHEMA.to_frame(), [])
    whole, partial = [content.whole], [content.partial]
    try:
        for block in reader.read_file(fetched.file):
            whole.append(block.whole)
            partial.append(block.partial)
            content.add(block)
            _check_hope(piece.path, content.rejections)
            if block.rows is not None:
                content.raw_rows += write_raw_frame(
                    connection, RAW_OF_KIND[piece.kind], block.rows, symbol=piece.symbol
                )
    except OverflowError as error:
        raise RejectedInputError(
            f"{piece.path} holds numbers beyond any market's: {error}"
        ) from error
    content.whole, content.partial = pl.concat(whole), pl.concat(partial)
    return content


def _check_hope(path: str, rejections: Sequence[Rejection]) -> None:
    if len(rejections) > MOST_REJECTIONS:
        first = rejections[0]
        raise RejectedInputError(
            f"{path} has more than {MOST_REJECTIONS} rows that cannot be used; line "
            f"{first.line}: {first.reason}"
        )


def _store(
    connection: Connection,
    piece: TradeDumpPiece,
    fetched: FetchedDump,
    fetched_at_us: int,
    content: _Content,
) -> TradeDumpCounts:
    is_foldable = _is_foldable(connection, piece, content)
    minutes = content.whole.height + content.partial.height
    merged = MergeCounts()
    if is_foldable:
        merged = _offer(connection, piece.symbol, content.whole, fetched.published_at_us)
        merged += _offer_partial(connection, content.partial)
    else:
        log.info("quotes_not_foldable", path=piece.path, minutes=minutes)
    record_rejected_rows(
        connection,
        (RejectedRow(piece.path, one.line, one.reason, one.raw) for one in content.rejections),
    )
    start_us, end_us = window_of(piece.path)
    fold = content.reader.fold
    edges = edges_of(fold, content.partial) if is_foldable else {}
    detail = {
        "from": from_us(start_us).isoformat(),
        "to": from_us(end_us).isoformat(),
        "first_id": fold.first_id,
        "last_id": fold.last_id if fold.first_id is not None else None,
        "keeps_raw": piece.keep_raw,
        "is_folded": is_foldable,
        EDGES: edges,
    }
    entry = DumpFile(
        path=piece.path,
        checksum=fetched.checksum,
        kind=piece.kind,
        symbol=piece.symbol,
        fetched_at_us=fetched_at_us,
        published_at_us=fetched.published_at_us,
        rows=content.trades,
        rejected=len(content.rejections),
        time_unit=content.time_unit,
        verdict="loaded",
        detail={**detail, IS_SETTLED: False},
    )
    record_dump_file(connection, entry)
    # behind the ledger's entry: of two neighbours loaded at once, the later one sees both
    seams = settle_edges(
        connection, piece.path, piece.symbol, piece.kind, start_us=start_us, end_us=end_us
    )
    for published_at_us, candles in seams:
        merged += _offer(connection, piece.symbol, candles, published_at_us)
    # last of all: whoever is killed before it loads the file again
    record_dump_file(connection, replace(entry, detail={**detail, IS_SETTLED: True}))
    counts = TradeDumpCounts(
        files=1,
        trades=content.trades,
        raw_rows=content.raw_rows,
        rejected=len(content.rejections),
        whole=content.whole.height,
        partial=content.partial.height,
        unfoldable=0 if is_foldable else minutes,
        inserted=merged.inserted,
        changed=merged.changed,
        confirmed=merged.confirmed,
        unchanged=merged.unchanged,
        discrepancies=merged.discrepancies,
    )
    log.info("trade_dump_loaded", path=piece.path, **asdict(counts))
    return counts


def _offer(
    connection: Connection, symbol: str, whole: pl.DataFrame, published_at_us: int | None
) -> MergeCounts:
    """Merge candles proven whole; of two issues of a file the later one's stand."""
    merged = merge_frame(
        connection,
        as_offers(
            whole.sort("open_time"),
            status=Status.UNCONFIRMED,
            source=Source.FOLDED,
            evidence_at_us=published_at_us,
        ),
    )
    opens = whole["open_time"].sort().dt.epoch("us")
    add_coverage(connection, symbol, Source.FOLDED, ranges_of(opens))
    return merged


def _offer_partial(connection: Connection, partial: pl.DataFrame) -> MergeCounts:
    """Merge candles that may miss trades: of these the one with more trades stands."""
    offers = as_offers(partial.sort("open_time"), status=Status.PARTIAL, source=Source.FOLDED)
    return merge_frame(connection, offers)


def _is_foldable(connection: Connection, piece: TradeDumpPiece, content: _Content) -> bool:
    """Whether the quote volumes of a file's candles are what the exchange says.

    Single trades tell their amounts. AggTrades do not: where the exchange rounds each fill, as
    the listing's filters say, or the file itself by an amount of more than eight decimals (the
    filters were others in the past), they cannot be recovered.
    """
    if piece.kind == "trades":
        return True
    listings = read_listings(connection, symbols=[piece.symbol])
    if any(not one.instrument.quote_volume_is_foldable for one in listings):
        return False
    candles = pl.concat([content.whole, content.partial])
    return decimals_needed(candles, ["quote_volume"]) <= QUOTE_DECIMALS


def _record(
    connection: Connection,
    piece: TradeDumpPiece,
    fetched_at_us: int,
    fetched: FetchedDump | None,
    error: CandelabraError,
) -> None:
    record_unusable(
        connection,
        path=piece.path,
        symbol=piece.symbol,
        kind=piece.kind,
        fetched_at_us=fetched_at_us,
        fetched=fetched,
        error=error,
        replaced_by=None,
    )
