"""Detect the contents of a user's file (symbol and kind) and read its candles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import structlog

from include.binance.files.columns import Layout, Rejection
from include.binance.files.kline_files import KLINES, read_klines
from include.binance.files.parquet_files import SUFFIX as PARQUET
from include.binance.files.parquet_files import parquet_symbols
from include.binance.files.text_blocks import check_file, layout_of
from include.binance.files.trade_files import (
    CM_TRADES,
    FUTURES_AGG_TRADES,
    SPOT_AGG_TRADES,
    SPOT_TRADES,
    UM_TRADES,
    TradeReader,
)
from include.domain.columns.candles import CANDLE_SCHEMA
from include.domain.columns.scaled import decimals_needed
from include.domain.instruments import (
    QUOTE_DECIMALS,
    Market,
    exchange_symbol_of,
    market_of,
    symbol_from,
    symbol_of,
)
from include.errors import PermanentError, RejectedInputError, WrongValueError
from include.jobs.files.checksums import CHECKSUM, check_sum
from include.jobs.files.column_maps import ColumnMap, column_map
from include.jobs.files.foreign_files import FOREIGN, check_foreign, read_foreign
from include.jobs.files.markets import (
    DUMP_NAME,
    check_header,
    check_names,
    check_rows,
    market_said,
)
from include.jobs.klines.dump_loading import window_of
from include.jobs.klines.pieces import market_from, symbols_of

log = structlog.get_logger(__name__)

SUFFIXES = (".csv", ".csv.gz", ".zip", PARQUET)

_KLINES, _TRADES, _AGG_TRADES = "klines", "trades", "agg_trades"
_KINDS = {"1m": _KLINES, "trades": _TRADES, "aggTrades": _AGG_TRADES}
_LAYOUTS = {
    Market.SPOT: {
        KLINES: _KLINES,
        SPOT_TRADES: _TRADES,
        SPOT_AGG_TRADES: _AGG_TRADES,
        UM_TRADES: _TRADES,
        FUTURES_AGG_TRADES: _AGG_TRADES,
    },
    Market.UM: {
        KLINES: _KLINES,
        UM_TRADES: _TRADES,
        FUTURES_AGG_TRADES: _AGG_TRADES,
        SPOT_TRADES: _TRADES,
        SPOT_AGG_TRADES: _AGG_TRADES,
    },
    Market.CM: {
        KLINES: _KLINES,
        CM_TRADES: _TRADES,
        FUTURES_AGG_TRADES: _AGG_TRADES,
    },
}
"""Kinds by column layout. Layouts of the other linear market are accepted too: the symbol decides.
"""


_SYMBOL = re.compile(r"\w[\w.-]{0,49}")
"""Letters of any script, as the exchange has them; no signs that a page or a shell would read."""


@dataclass(frozen=True, slots=True)
class UserFile:
    """A file whose rows can be read.

    Attributes:
        symbol: platform symbol of its rows.
        kind: ``klines``, ``trades`` or ``agg_trades``.
        key: its name in the ledgers; includes the symbol, because dumps of spot and USD-M have the
            same file names.
        columns: how its columns are named, if it is foreign.
    """

    path: Path
    symbol: str
    kind: str
    layout: Layout
    columns: ColumnMap | None = None

    @property
    def key(self) -> str:
        """Return the file's name in the ledgers: symbol and file name."""
        return f"{self.symbol}/{self.path.name}"


@dataclass(frozen=True, slots=True)
class FilePart:
    """Candles and rejected rows of a block.

    Attributes:
        candles: ``CANDLE_SCHEMA``; from trades, only minutes proven to contain all their trades.
        partial: minutes that may lack trades.
        rows: usable rows.
        share: of the file, read so far (0..1).
        incomplete: rows of foreign files that lack values, which are null.
    """

    candles: pl.DataFrame
    partial: pl.DataFrame
    rejections: list[Rejection]
    rows: int
    time_unit: str | None
    share: float
    incomplete: pl.DataFrame = field(default_factory=CANDLE_SCHEMA.to_frame)


def open_file(
    path: Path, *, symbol: str = "", market: Market | str = "", columns: str = ""
) -> UserFile:
    """Detect what a file contains; the file is read to its end to find damage immediately.

    A CHECKSUM beside it is verified first.

    Args:
        symbol: platform symbol; empty to derive it from a name like ``BTCUSDT-1m-2024-02.zip``, or
            from the column ``symbol`` of a Parquet file.
        market: of a symbol that does not show it; empty for spot, or the market of the folder.
        columns: of a foreign file; see ``column_maps.column_map``.

    Raises:
        RejectedInputError: the whole file is unusable, or of a market that we do not cover or not
            named.
        PermanentError: the symbol is unknown or invalid.
    """
    if path.name.endswith(CHECKSUM):
        raise RejectedInputError(
            f"{path.name} has no file beside it to verify: drop both at the same time"
        )
    if not path.name.endswith(SUFFIXES):
        raise RejectedInputError(f"{path} is none of {', '.join(SUFFIXES)}")
    if path.exists() and not path.is_file():
        raise RejectedInputError(f"{path} is no file: a pipe or a device cannot be imported")
    check_sum(path)
    check_file(path)
    match = DUMP_NAME.fullmatch(_stem(path))
    if match is not None and match["kind"] not in _KINDS:
        raise RejectedInputError(
            f"{path.name} holds {match['kind']}; 1m klines, trades or aggTrades can be imported"
        )
    said = market_said(path, _stem(path), symbol, market)
    check_names(path, _stem(path), said)
    check_header(path, said)
    named = _symbol_for(path, symbol, said or Market.SPOT)
    if columns:
        chosen = column_map(columns)
        check_foreign(path, chosen, said)
        return UserFile(path, named, _KLINES, FOREIGN, chosen)
    kinds = _LAYOUTS[market_of(named)]
    layout = layout_of(path, list(kinds))
    check_rows(path, layout, said)
    return UserFile(path, named, kinds[layout], layout)


def read_parts(file: UserFile) -> Iterator[FilePart]:
    """Yield the file's candles, block by block.

    Raises:
        RejectedInputError: the file is damaged, or its aggTrades cannot yield quote volumes.
    """
    share = [0.0]

    def on_read(so_far: float) -> None:
        share[0] = so_far

    if file.columns is not None:
        for one in read_foreign(file.path, file.symbol, file.columns, on_read=on_read):
            yield FilePart(
                one.candles,
                CANDLE_SCHEMA.to_frame(),
                one.rejections,
                one.candles.height + one.incomplete.height,
                one.time_unit,
                share[0],
                one.incomplete,
            )
        return
    if file.kind == _KLINES:
        none = CANDLE_SCHEMA.to_frame()
        stem = _stem(file.path)
        window = window_of(stem) if DUMP_NAME.fullmatch(stem) else None
        # Nothing tells which of two rows of a minute is right: find duplicates across blocks first.
        twice = frozenset[int]().union(
            *(block.repeated_us for block in read_klines(file.path, file.symbol, window=window))
        )
        for block in read_klines(
            file.path, file.symbol, window=window, aside=twice, on_read=on_read
        ):
            rows = block.candles.height
            yield FilePart(block.candles, none, block.rejections, rows, block.time_unit, share[0])
        return
    reader = TradeReader(file.symbol, file.layout)
    for trades in reader.read_file(file.path, on_read=on_read):
        if file.kind == _AGG_TRADES:
            _check_quotes(file, trades.whole, trades.partial)
        yield FilePart(
            trades.whole,
            trades.partial,
            trades.rejections,
            trades.trades,
            trades.time_unit,
            share[0],
        )


def _check_quotes(file: UserFile, *candles: pl.DataFrame) -> None:
    """Refuse aggTrades of symbols for which the exchange rounds each fill's quote amount."""
    is_inverse = market_of(file.symbol).is_inverse
    if is_inverse or any(
        decimals_needed(each, ["quote_volume"]) > QUOTE_DECIMALS for each in candles
    ):
        raise inexact_quotes_error(file)


def inexact_quotes_error(file: UserFile) -> RejectedInputError:
    """Return the error that aggTrades give no exact quote volumes for this symbol."""
    return RejectedInputError(
        f"{file.path.name}: the exchange rounds the quote amount of each fill of {file.symbol} to "
        f"{QUOTE_DECIMALS} decimals, and an aggTrade merges fills: import its klines or trades"
    )


def _symbol_for(path: Path, symbol: str, market: Market | str) -> str:
    """Return the platform symbol of a file's rows."""
    match = DUMP_NAME.fullmatch(_stem(path))
    inside = parquet_symbols(path) if path.suffix == PARQUET else []
    if not symbol:
        symbol = match["symbol"] if match is not None else (inside[0] if len(inside) == 1 else "")
    if len(inside) > 1:
        raise RejectedInputError(
            f"{path.name} holds rows of {len(inside)} symbols, {', '.join(inside[:5])} among them: "
            "write one file for each"
        )
    if not symbol:
        raise PermanentError(
            f"{path.name} does not say its symbol: name it like BTCUSDT-1m-2024-02.csv, "
            "or give --symbol BTCUSDT"
        )
    named = symbols_of([symbol], market_from(market))[0]
    if _SYMBOL.fullmatch(named) is None:
        raise WrongValueError(f"{named!r} is not a symbol; it should be like BTCUSDT or BTCUSDT.P")
    exchange_symbol = exchange_symbol_of(named)
    if inside and symbol_from(inside[0]) not in (
        exchange_symbol,
        symbol_of(market_of(named), exchange_symbol),
    ):
        raise RejectedInputError(
            f"{path.name} holds rows of {inside[0]}, not of {named}: give --symbol {inside[0]}"
        )
    if match is not None and exchange_symbol_of(symbol_from(match["symbol"])) != (exchange_symbol):
        log.warning("file_symbol_differs", file=path.name, symbol=named)
    return named


def _stem(path: Path) -> str:
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name
