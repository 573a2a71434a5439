"""Importing files that a user has: 1m klines and trades in the dump site's formats."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import polars as pl
import structlog

from include.binance.archives import check_archive, read_blocks, sha256_of
from include.binance.columns import Layout, Rejection, choose_layout, lines_of
from include.binance.kline_files import KLINES, read_klines
from include.binance.trade_files import SPOT_TRADES, UM_TRADES, read_trades
from include.config import Settings
from include.domain.candles import Source, Status
from include.domain.columnar import CANDLE_SCHEMA, as_offers
from include.domain.instruments import Market, exchange_symbol_of, market_of
from include.errors import PermanentError, RejectedInputError
from include.jobs.dump_loading import window_of
from include.jobs.exchange import APPLICATION_NAME
from include.jobs.pieces import market_from, ranges_of, symbols_of
from include.store.candles import MergeCounts, merge_frame
from include.store.ledgers import (
    DumpFile,
    RejectedRow,
    add_coverage,
    record_dump_file,
    record_rejected_rows,
)
from include.store.merging import Connection
from include.store.pools import connect

log = structlog.get_logger(__name__)

SUFFIXES = (".csv", ".csv.gz", ".zip")
QUARANTINE = "quarantine"
HOPELESS_ROWS = 1_000
"""A file whose first rows are all wrong is another thing than it seems, and is refused."""

_NAME = re.compile(r"(?P<symbol>[^-/\\]+)-(?P<kind>[A-Za-z0-9]+)-\d{4}-\d{2}(-\d{2})?")


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far the import of a file is: the share read (0..1) and rows so far."""

    share: float
    rows: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What came of a file.

    Attributes:
        file: its name; the ledgers know it as ``symbol/name``.
        rows: rows used: klines or trades.
        rejected: rows that cannot be used, kept in ``ops.rejected_rows`` and ``quarantine``.
        partial: minutes that are not proven to hold all their trades.
        merged: what became of the candles.
        quarantine: CSV of the rejected rows; None where there are none.
        reasons: how many rows were rejected for what.
        seconds: how long it took.
    """

    file: str
    symbol: str
    kind: str
    rows: int
    rejected: int
    partial: int
    merged: MergeCounts
    quarantine: str | None
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Part:
    """Candles and rejected rows of a block of either kind of file."""

    candles: pl.DataFrame
    partial: pl.DataFrame
    rejections: list[Rejection]
    rows: int
    time_unit: str | None


def import_file(
    *,
    settings: Settings,
    path: Path | str,
    symbol: str = "",
    market: Market | str = "",
    on_progress: Callable[[ImportProgress], None] | None = None,
) -> ImportSummary:
    """Merge a file of klines or trades into ``market.candles_1m``; again changes nothing.

    Rows come in as unconfirmed, of source ``file``: anything that the exchange says outranks
    them. Bad rows are kept with file, line and reason, and the others are loaded.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.zip``; what it holds is told by its columns.
        symbol: platform symbol; empty to take it from a name like ``BTCUSDT-1m-2024-02.zip``.
        market: of a symbol without ``.P``; empty for spot, or USD-M below ``futures/um``.
        on_progress: called after each block.

    Raises:
        RejectedInputError: the file as a whole cannot be used; nothing of it was loaded.
        PermanentError: the symbol is not known, or cannot be one.
        TransientError: the database is away; what was merged before stays.
    """
    path = Path(path)
    started_s = time.monotonic()
    if not path.name.endswith(SUFFIXES):
        raise RejectedInputError(f"{path} is none of {', '.join(SUFFIXES)}")
    check_archive(path)
    symbol = _symbol_for(path, symbol, market)
    layout = _layout_of(path, symbol)
    key = f"{symbol}/{path.name}"  # dumps of spot and USD-M share their names
    share = [0.0]
    parts = _parts(path, symbol, layout, lambda so_far: share.__setitem__(0, so_far))
    merged, rows, rejected, partial = MergeCounts(), 0, 0, 0
    reasons: dict[str, int] = {}
    time_unit: str | None = None
    first: Rejection | None = None
    quarantine = settings.candelabra_home / QUARANTINE / f"{key}.rejected.csv"
    with (
        connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection,
        _quarantine(quarantine) as keep,
    ):
        for part in parts:
            rows, rejected = rows + part.rows, rejected + len(part.rejections)
            first = first or next(iter(part.rejections), None)
            if first is not None and not rows and rejected >= HOPELESS_ROWS:
                raise _hopeless(path.name, first)
            merged += _merge(connection, symbol, part)
            partial += part.partial.height
            time_unit = part.time_unit or time_unit
            keep(part.rejections)
            record_rejected_rows(
                connection,
                (RejectedRow(key, one.line, one.reason, one.raw) for one in part.rejections),
            )
            for one in part.rejections:
                kind = one.reason.partition(":")[0]
                reasons[kind] = reasons.get(kind, 0) + 1
            if on_progress is not None:
                on_progress(ImportProgress(share[0], rows, rejected))
        record_dump_file(
            connection,
            DumpFile(
                path=key,
                checksum=sha256_of(path),
                kind="klines" if layout is KLINES else "trades",
                symbol=symbol,
                fetched_at_us=time.time_ns() // 1000,
                rows=rows,
                rejected=rejected,
                time_unit=time_unit,
                verdict="imported" if rows else "empty",
            ),
        )
    if on_progress is not None:
        on_progress(ImportProgress(1.0, rows, rejected))
    summary = ImportSummary(
        file=path.name,
        symbol=symbol,
        kind=layout.name,
        rows=rows,
        rejected=rejected,
        partial=partial,
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


def _merge(connection: Connection, symbol: str, part: _Part) -> MergeCounts:
    whole = as_offers(part.candles, status=Status.UNCONFIRMED, source=Source.FILE)
    partial = as_offers(part.partial, status=Status.PARTIAL, source=Source.FILE)
    counts = merge_frame(connection, pl.concat([whole, partial]).sort("open_time"))
    add_coverage(
        connection, symbol, Source.FILE, ranges_of(part.candles["open_time"].dt.epoch("us"))
    )
    return counts


def _parts(
    path: Path, symbol: str, layout: Layout, on_read: Callable[[float], None]
) -> Iterator[_Part]:
    none = CANDLE_SCHEMA.to_frame()
    if layout is KLINES:
        window = window_of(_stem(path)) if _NAME.fullmatch(_stem(path)) else None
        for block in read_klines(path, symbol, window=window, on_read=on_read):
            rows = block.candles.height
            yield _Part(block.candles, none, block.rejections, rows, block.time_unit)
        return
    for trades in read_trades(path, symbol, on_read=on_read):
        yield _Part(
            trades.whole, trades.partial, trades.rejections, trades.trades, trades.time_unit
        )


def _symbol_for(path: Path, symbol: str, market: Market | str) -> str:
    """The platform symbol of a file's rows."""
    match = _NAME.fullmatch(_stem(path))
    if not symbol:
        if match is None:
            raise PermanentError(
                f"{path.name} does not say its symbol: name it like BTCUSDT-1m-2024-02.csv, "
                "or give --symbol BTCUSDT"
            )
        symbol = match["symbol"]
    if not market:
        is_um = "/futures/um/" in f"/{path.as_posix()}"
        market = Market.UM if is_um else Market.SPOT
    named = symbols_of([symbol], market_from(market))[0]
    if named.startswith(".") or any(mark in named for mark in "/\\"):
        raise PermanentError(f"{named!r} is no symbol; it should be like BTCUSDT or BTCUSDT.P")
    if match is not None and match["symbol"].upper() != exchange_symbol_of(named):
        log.warning("file_symbol_differs", file=path.name, symbol=named)
    return named


def _layout_of(path: Path, symbol: str) -> Layout:
    """What the file holds, by its first line; the whole file is refused where it is unknown."""
    match = _NAME.fullmatch(_stem(path))
    if match is not None and match["kind"] not in ("1m", "trades"):
        raise RejectedInputError(
            f"{path.name} holds {match['kind']}; 1m klines or trades can be imported"
        )
    trades = UM_TRADES if market_of(symbol) is Market.UM else SPOT_TRADES
    for block in read_blocks(path):
        lines = lines_of(block, first_line=1)
        if lines.height:
            return choose_layout(lines["raw"][0], (KLINES, trades), file=path.name)[0]
    raise RejectedInputError(f"{path.name} is empty")


def _stem(path: Path) -> str:
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _hopeless(file: str, first: Rejection) -> RejectedInputError:
    return RejectedInputError(
        f"{file}: none of its first {HOPELESS_ROWS} rows can be used; line {first.line}: "
        f"{first.reason}"
    )


@contextmanager
def _quarantine(path: Path) -> Iterator[Callable[[Iterable[Rejection]], None]]:
    """A CSV file for rejected rows, made with the first one and replaced by a later import."""
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
