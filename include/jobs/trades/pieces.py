"""A piece of work of trades, and its result."""

from __future__ import annotations

from dataclasses import dataclass, fields

from include.domain.candles import Source


@dataclass(frozen=True, slots=True)
class TradeDumpPiece:
    """One dump file of trades to be loaded as a whole, or the day of one by REST.

    Attributes:
        kind: ``agg_trades`` or ``trades``.
        path: of the file, below the dump site's root; also where no such file is published.
        keep_raw: write its rows into the raw table of its kind as well.
        source: where its rows are planned to come from: ``dump_daily``, ``dump_monthly`` or
            ``rest``.
        why: why from there, for people.
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
        files: loaded files; replaced: files replaced by other files or REST; unusable: files
            without a replacement.
        rest_pages: pages of trades by REST.
        trades: rows used; raw_rows: new rows in the raw table.
        rejected: unusable rows.
        whole, partial: aggregated minutes, and those not proven whole.
        unfoldable: minutes not offered, because the exchange rounds the quote amount of each fill.
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
