"""Convert Parquet files of klines and trades to lines of text, for the readers of dump formats.

So each kind of row has one reader for all file formats. A line has the layout's columns in order,
with unchanged numbers. Numbers must be exact: decimals, integers or text. A float has lost digits,
so a file with a float as price, amount, id or time is refused. Columns are found by name, in any
order.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import structlog

from include.binance.files.archives import MAX_RATIO
from include.binance.files.columns import FLAGS, Layout
from include.counts import counted
from include.errors import RejectedInputError

log = structlog.get_logger(__name__)

SUFFIX = ".parquet"
BATCH_ROWS = 200_000
"""Rows in memory, about 20 MB as text, whatever the size of the file's row groups."""
MANY_ROWS = 1_000_000
"""Smaller files are read whatever their ratio; a month of equal minutes compresses well."""
VALUE_BYTES = 8
"""Minimum size of a value in memory."""

SYMBOL_COLUMN = "symbol"
_OPTIONAL = {"ignore": "0", "is_best_match": "true"}
"""Unused columns, and the value written if a file omits them."""

_COUNTS = ("id", "first_trade_id", "last_trade_id", "trade_count")
_TIMES = ("open_time", "close_time", "trade_time")
_KEPT_DECIMALS = 8
"""Decimals that the exchange prints; further digits are written only if they are not zero."""


@dataclass(frozen=True, slots=True)
class _Match:
    """A layout, and the file's names of the layout's columns."""

    layout: Layout
    names: dict[str, str]


def check_parquet(path: Path) -> None:
    """Read a file to its end, to find damage before any row is used.

    Raises:
        RejectedInputError: it is damaged, truncated, or not a Parquet file; or has so many equal
            rows that it expands to more than ``MAX_RATIO`` times its size.
    """
    with _readable(path):
        scan = pl.scan_parquet(path)
        rows = scan.select(pl.len()).collect().item()
        expanded = rows * len(scan.collect_schema()) * VALUE_BYTES
    if rows > MANY_ROWS and expanded > MAX_RATIO * path.stat().st_size:
        raise RejectedInputError(
            f"{path.name} has {counted(rows, 'row')} in {counted(path.stat().st_size, 'byte')}: it "
            f"expands to more than {MAX_RATIO} times its size"
        )
    for _ in _batches(path):
        pass


def parquet_layout(path: Path, layouts: Sequence[Layout]) -> Layout:
    """Return the layout whose columns a file has.

    Raises:
        RejectedInputError: none matches; or a column has an inexact type.
    """
    match = _match(path, layouts)
    _texts(path, match)
    return match.layout


def parquet_names(path: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        RejectedInputError: it is damaged.
    """
    return list(_schema(path))


def parquet_symbols(path: Path) -> list[str]:
    """Return the distinct values of a file's column ``symbol``; empty if it has none.

    Raises:
        RejectedInputError: it is damaged.
    """
    schema = _schema(path)
    name = next((one for one in schema if one.lower() == SYMBOL_COLUMN), None)
    if name is None:
        return []
    with _readable(path):
        named = pl.scan_parquet(path).select(pl.col(name).cast(pl.String).unique())
        return sorted(one or "" for one in named.collect(engine="streaming")[name])


def parquet_blocks(
    path: Path, layouts: Sequence[Layout]
) -> Generator[tuple[bytes, float], None, None]:
    """Yield a file's rows as lines of text in the layout's order, with the share read so far.

    Line n is row n, counted from 1. Prices and amounts keep every digit; times become whole ms (for
    columns in ms) or µs since 1970.

    Raises:
        RejectedInputError: damaged; of no known layout; or a column cannot be exact.
    """
    match = _match(path, layouts)
    texts = _texts(path, match)
    with _readable(path):
        total = pl.scan_parquet(path).select(pl.len()).collect().item()
    done = 0
    for batch in _batches(path, list(match.names.values())):
        done += batch.height
        lines = batch.select(*texts).write_csv(include_header=False, quote_style="never")
        yield lines.encode(), done / max(total, 1)


def foreign_blocks(path: Path) -> Generator[tuple[pl.DataFrame, float], None, None]:
    """Yield a file's rows with every column as text, with the share read so far.

    For files of unknown origin: a float becomes the shortest decimal that it stands
    for. Times become µs since 1970; those without a zone count as UTC.

    Raises:
        RejectedInputError: it is damaged.
    """
    texts = [
        pl.col(name).dt.epoch("us").cast(pl.String)
        if isinstance(kind, pl.Datetime)
        else pl.col(name).cast(pl.String)
        for name, kind in _schema(path).items()
        if not kind.is_nested() and kind != pl.Binary
    ]
    with _readable(path):
        total = pl.scan_parquet(path).select(pl.len()).collect().item()
    done = 0
    for batch in _batches(path):
        done += batch.height
        yield batch.select(texts), done / max(total, 1)


def _batches(path: Path, columns: Sequence[str] = ()) -> Generator[pl.DataFrame, None, None]:
    """Yield a file's rows in batches, with the given columns or all.

    Each batch is a separate query, which reads only the pages it needs. A single query would read
    the whole file ahead of a slow consumer.
    """
    done = 0
    while True:
        with _readable(path):
            rows = pl.scan_parquet(path)
            if columns:
                rows = rows.select(columns)
            batch = rows.slice(done, BATCH_ROWS).collect(engine="streaming")
        if batch.is_empty():
            return
        yield batch
        done += batch.height


@contextmanager
def _readable(path: Path) -> Generator[None, None, None]:
    """Raise ``RejectedInputError`` if damage is found in the body."""
    try:
        yield
    except FileNotFoundError as error:
        raise RejectedInputError(f"{path} does not exist") from error
    except PermissionError as error:
        raise RejectedInputError(f"{path} cannot be read: permission denied") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RejectedInputError(
            f"{path.name} is damaged: {error or type(error).__name__}; write or copy it again"
        ) from error


def _schema(path: Path) -> pl.Schema:
    with _readable(path):
        return pl.scan_parquet(path).collect_schema()


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "")


def _match(path: Path, layouts: Sequence[Layout]) -> _Match:
    by_plain = {_plain(name): name for name in _schema(path)}
    for layout in layouts:
        known = {column: {_plain(column)} for column in layout.columns}
        for header in layout.headers:
            for column, name in zip(layout.columns, header.split(","), strict=True):
                known[column].add(name)
        names: dict[str, str] = {}
        for column, spellings in known.items():
            found = sorted(spellings & by_plain.keys())
            if found:
                names[column] = by_plain[found[0]]
        if set(layout.columns) - names.keys() <= _OPTIONAL.keys():
            others = sorted(set(by_plain.values()) - set(names.values()))
            if others:
                log.info("parquet_columns_not_used", file=path.name, columns=others)
            return _Match(layout, names)
    known_layouts = "; ".join(f"{one.name}: {','.join(one.columns)}" for one in layouts)
    raise RejectedInputError(
        f"{path.name} has the columns {', '.join(by_plain.values())}; known are {known_layouts}. "
        "Candles of others need --columns"
    )


def _texts(path: Path, match: _Match) -> list[pl.Expr]:
    """Return expressions that convert each column of the layout to text.

    Raises:
        RejectedInputError: a column's type cannot represent its values exactly.
    """
    schema = _schema(path)
    texts = []
    for column in match.layout.columns:
        name = match.names.get(column)
        if name is None:
            texts.append(pl.lit(_OPTIONAL[column]).alias(column))
            continue
        text = _text(column, name, schema[name])
        if text is None:
            raise RejectedInputError(
                f"{path.name}: column {name} is {schema[name]}; {_wanted(column)}"
            )
        texts.append(text.alias(column))
    return texts


def _text(column: str, name: str, kind: pl.DataType) -> pl.Expr | None:
    """Return a column as text; None if its type is inexact or means something else."""
    value = pl.col(name)
    if isinstance(kind, (pl.String, pl.Categorical, pl.Enum)):
        # A line break inside a field would split its row.
        return value.cast(pl.String).str.replace_all(r"[\r\n]", " ")
    if column in FLAGS:
        return value.cast(pl.String) if isinstance(kind, pl.Boolean) else None
    if column in _TIMES and isinstance(kind, pl.Datetime):
        return value.dt.epoch("ms" if kind.time_unit == "ms" else "us").cast(pl.String)
    if kind.is_integer():
        return value.cast(pl.String)
    if column in _COUNTS or column in _TIMES:
        is_whole = isinstance(kind, pl.Decimal) and kind.scale == 0
        return value.cast(pl.String) if is_whole else None
    if isinstance(kind, pl.Decimal):
        return value.cast(pl.String).map_batches(
            partial(_without_zeros, scale=kind.scale), return_dtype=pl.String
        )
    if column == "ignore":
        return pl.lit("0")
    return None


def _without_zeros(texts: pl.Series, *, scale: int) -> pl.Series:
    """Return decimal texts without trailing zeros beyond the exchange's decimals."""
    if scale <= _KEPT_DECIMALS:
        return texts
    digits = scale - _KEPT_DECIMALS
    return texts.str.replace(rf"0{{1,{digits}}}$", "")


def _wanted(column: str) -> str:
    if column in FLAGS:
        return "it should be BOOLEAN, or text true and false"
    if column in _TIMES:
        return "it should be TIMESTAMP, INT64 in ms or µs since 1970, or text"
    if column in _COUNTS:
        return "it should be INT64 or text"
    return (
        "prices and amounts have to be exact: it should be DECIMAL(38, 8), or the exchange's own "
        "text (a float has lost digits; write the file again from the source)"
    )
