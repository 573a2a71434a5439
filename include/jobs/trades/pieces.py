"""A piece of work that loads trades, and its result."""

from __future__ import annotations

from dataclasses import dataclass, fields

from include.domain.candles import Source


@dataclass(frozen=True, slots=True)
class TradeDumpPiece:
    """One dump file of trades to load, or a day of trades to fetch by REST.

    Attributes:
        kind: ``agg_trades`` or ``trades``.
        path: of the file, below the dump site's root; set even if no such file is published.
        keep_raw: store its rows in the raw table of its kind as well.
        source: planned source of its rows: ``dump_daily``, ``dump_monthly`` or ``rest``.
        why: reason for this source, shown to users.
    """

    symbol: str
    label: str
    path: str
    kind: str
    keep_raw: bool = False
    source: str = Source.DUMP_DAILY.value
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeDumpCounts:
    """Counts of a load, summable.

    Attributes:
        files: loaded files.
        replaced: files replaced by other files or REST.
        unusable: files without a replacement.
        rest_pages: pages of trades by REST.
        trades: usable rows.
        raw_rows: new rows in the raw table.
        rejected: unusable rows.
        whole, partial: aggregated minutes that are complete, and minutes that may lack trades.
        inexact: minutes not merged, because the exchange rounds the quote amount of each fill.
            inserted … discrepancies: as in ``MergeCounts``.
    """

    files: int = 0
    replaced: int = 0
    unusable: int = 0
    rest_pages: int = 0
    trades: int = 0
    raw_rows: int = 0
    rejected: int = 0
    whole: int = 0
    partial: int = 0
    inexact: int = 0
    inserted: int = 0
    changed: int = 0
    confirmed: int = 0
    unchanged: int = 0
    discrepancies: int = 0

    def __add__(self, other: TradeDumpCounts) -> TradeDumpCounts:
        return TradeDumpCounts(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )
