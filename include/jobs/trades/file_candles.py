"""Aggregate a trade file, merge its candles, and record the ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import polars as pl
import structlog

from include.binance.files.columns import Rejection
from include.binance.files.trade_files import TradeBlock, TradeReader
from include.domain.candles import Source, Status
from include.domain.columns.candles import CANDLE_SCHEMA, as_candidates
from include.domain.columns.scaled import decimals_needed
from include.domain.instruments import QUOTE_DECIMALS, market_of
from include.domain.timeframes import from_us
from include.errors import RejectedInputError
from include.jobs.klines.pieces import ranges_of
from include.jobs.trades.file_edges import EDGES, EDGES_CHECKED, edges_of, prove_edges
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece
from include.store.candles.merging import Connection, merge_frames
from include.store.instruments import read_listings
from include.store.ledgers.files import (
    DumpFile,
    RejectedRow,
    add_coverage,
    record_dump_file,
    record_rejected_rows,
)
from include.store.trades.frames import RAW_OF_KIND, write_raw_frame

log = structlog.get_logger(__name__)

MAX_REJECTIONS = 10_000
"""A file with more bad rows has another format, and is refused."""

KEEPS_RAW = "keeps_raw"


@dataclass(slots=True)
class AggregatedTrades:
    """Rows read from a file.

    Attributes:
        reader: its state after the last row.
        window: period of the rows, half-open (µs).
        kind: of the rows: ``agg_trades`` may replace ``trades``.
        raw_rows: new rows in the raw table.
    """

    reader: TradeReader
    window: tuple[int, int]
    kind: str
    whole: pl.DataFrame = field(default_factory=CANDLE_SCHEMA.to_frame)
    partial: pl.DataFrame = field(default_factory=CANDLE_SCHEMA.to_frame)
    rejections: list[Rejection] = field(default_factory=list)
    trades: int = 0
    raw_rows: int = 0
    time_unit: str | None = None


def aggregate_blocks(
    connection: Connection,
    piece: TradeDumpPiece,
    reader: TradeReader,
    blocks: Iterable[TradeBlock],
    *,
    window: tuple[int, int],
    kind: str,
) -> AggregatedTrades:
    """Aggregate rows into candles; raw rows are stored while reading if requested.

    Raises:
        RejectedInputError: damaged, wrong columns, or too many unusable rows.
    """
    content = AggregatedTrades(reader, window, kind)
    whole, partial = [content.whole], [content.partial]
    try:
        for block in blocks:
            whole.append(block.whole)
            partial.append(block.partial)
            content.rejections += block.rejections
            content.trades += block.trades
            content.time_unit = block.time_unit or content.time_unit
            _check_hope(piece.path, content.rejections)
            if block.rows is not None:
                content.raw_rows += write_raw_frame(
                    connection, RAW_OF_KIND[kind], block.rows, symbol=piece.symbol
                )
    except OverflowError as error:
        raise RejectedInputError(
            f"{piece.path} contains numbers that no market has: {error}"
        ) from error
    content.whole, content.partial = pl.concat(whole), pl.concat(partial)
    return content


def _check_hope(path: str, rejections: Sequence[Rejection]) -> None:
    if len(rejections) > MAX_REJECTIONS:
        first = rejections[0]
        raise RejectedInputError(
            f"{path} has more than {MAX_REJECTIONS} unusable rows; line "
            f"{first.line}: {first.reason}"
        )


def store_aggregated(
    connection: Connection,
    piece: TradeDumpPiece,
    entry: DumpFile,
    content: AggregatedTrades,
    *,
    evidence_at_us: int | None,
) -> TradeDumpCounts:
    """Merge the candles, quarantine rejected rows, and complete minutes shared with neighbours.

    Args:
        entry: of the ledger; rows and ids are added to it.
        evidence_at_us: of two candidates of a minute with equally many trades, the later one wins.
    """
    has_exact_quotes = _has_exact_quotes(connection, piece.symbol, content)
    minutes = content.whole.height + content.partial.height
    entry = replace(
        entry,
        rows=content.trades,
        rejected=len(content.rejections),
        time_unit=content.time_unit,
        detail={**entry.detail, **_detail(piece, content, has_exact_quotes=has_exact_quotes)},
    )

    def record() -> None:
        if has_exact_quotes:
            _cover(connection, piece.symbol, [content.whole])
        record_rejected_rows(
            connection,
            (RejectedRow(piece.path, one.line, one.reason, one.raw) for one in content.rejections),
        )
        record_dump_file(connection, entry)

    candidates: list[pl.DataFrame] = []
    if has_exact_quotes:
        candidates = [_candidates(content.whole, evidence_at_us), _partial(content.partial)]
    else:
        log.info("quotes_not_exact", path=piece.path, minutes=minutes)
    # One transaction: a kill leaves candles and ledgers, or neither.
    merged = merge_frames(connection, candidates, record=record)
    # After the ledger's entry: if two neighbours load concurrently, the later one sees both.
    start_us, end_us = content.window
    seams = prove_edges(
        connection, piece.path, piece.symbol, piece.kind, start_us=start_us, end_us=end_us
    )

    def record_seams() -> None:
        _cover(connection, piece.symbol, [candles for _, candles in seams])
        # A load that is killed earlier is repeated.
        record_dump_file(connection, replace(entry, detail={**entry.detail, EDGES_CHECKED: True}))

    proven = [_candidates(candles, published_at_us) for published_at_us, candles in seams]
    merged += merge_frames(connection, proven, record=record_seams)
    return TradeDumpCounts(
        trades=content.trades,
        raw_rows=content.raw_rows,
        rejected=len(content.rejections),
        whole=content.whole.height,
        partial=content.partial.height,
        inexact=0 if has_exact_quotes else minutes,
        inserted=merged.inserted,
        changed=merged.changed,
        confirmed=merged.confirmed,
        unchanged=merged.unchanged,
        discrepancies=merged.discrepancies,
    )


def _detail(
    piece: TradeDumpPiece, content: AggregatedTrades, *, has_exact_quotes: bool
) -> dict[str, object]:
    """Return the details that neighbours and later plans need."""
    start_us, end_us = content.window
    aggregator = content.reader.aggregator
    # If another kind replaced the file, the ids are not the file's.
    has_ids = aggregator.first_id is not None and content.kind == piece.kind
    return {
        "from": from_us(start_us).isoformat(),
        "to": from_us(end_us).isoformat(),
        "first_id": aggregator.first_id if has_ids else None,
        "last_id": aggregator.last_id if has_ids else None,
        KEEPS_RAW: piece.keep_raw,
        "is_aggregated": has_exact_quotes,
        EDGES: edges_of(aggregator, content.partial) if has_exact_quotes and has_ids else {},
        EDGES_CHECKED: False,
    }


def _candidates(whole: pl.DataFrame, evidence_at_us: int | None) -> pl.DataFrame:
    """Return candidates of complete candles; those of a later issue of the file win."""
    return as_candidates(
        whole.sort("open_time"),
        status=Status.UNCONFIRMED,
        source=Source.TRADES,
        evidence_at_us=evidence_at_us,
    )


def _partial(partial: pl.DataFrame) -> pl.DataFrame:
    """Return candidates of candles that may lack trades; of two, that with more trades wins."""
    return as_candidates(partial.sort("open_time"), status=Status.PARTIAL, source=Source.TRADES)


def _cover(connection: Connection, symbol: str, frames: Sequence[pl.DataFrame]) -> None:
    """Record that trades cover the minutes of complete candles."""
    opens = pl.concat([CANDLE_SCHEMA.to_frame(), *frames])["open_time"].sort().dt.epoch("us")
    add_coverage(connection, symbol, Source.TRADES, ranges_of(opens))


def _has_exact_quotes(connection: Connection, symbol: str, content: AggregatedTrades) -> bool:
    """Whether the quote volumes of the candles equal the exchange's.

    Single trades have quote amounts; aggTrades do not. If the exchange rounds the quote amount of
    each fill, the quote volumes cannot be recovered. The listing's filters show this, and so does
    an amount of more than eight decimals, because past filters may have differed.
    """
    if content.kind == "trades":
        return True
    if market_of(symbol).is_inverse:
        return False  # price × quantity is no amount at all
    listings = read_listings(connection, symbols=[symbol])
    if any(not one.instrument.quote_volume_is_exact for one in listings):
        return False
    candles = pl.concat([content.whole, content.partial])
    return decimals_needed(candles, ["quote_volume"]) <= QUOTE_DECIMALS


def positive_counts(counts: TradeDumpCounts) -> dict[str, int]:
    """Return the counts that are not 0, for the log."""
    return {name: count for name, count in asdict(counts).items() if count}
