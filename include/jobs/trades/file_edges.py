"""First and last minutes of trade files, which only the neighbouring files can prove complete.

A minute may begin in one file and end in the next. A file's entry in ``ops.dump_files`` stores its
first and last id, and the candles of its first and last minute if these lack nothing but the proof
of the neighbouring file. Once two neighbours are loaded and the later one's first id follows the
earlier one's last id, these candles are complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from include.domain.columns.candles import CANDLE_SCHEMA
from include.domain.columns.trades import TradeAggregator
from include.store.candles.merging import Connection
from include.store.ledgers.files import DumpFile, find_dump_beside, find_dump_file

EDGES = "edges"
EDGES_CHECKED = "edges_checked"
"""Whether the edges of a loaded file were checked; if not, its load was interrupted."""
_BEGIN, _END = "begin", "end"


def edges_of(aggregator: TradeAggregator, partial: pl.DataFrame) -> dict[str, dict[str, object]]:
    """Return the candles of a file's first and last minute that only a neighbour can prove
    complete.

    Args:
        partial: candles (``CANDLE_SCHEMA``) of minutes that may lack trades.
    """
    edges = {}
    opens = partial["open_time"].dt.epoch("us")
    for name, minute_us in (
        (_BEGIN, aggregator.first_minute_us),
        (_END, aggregator.last_minute_us),
    ):
        found = partial.filter(opens == minute_us)
        if minute_us in aggregator.edge_minutes and found.height:
            row = found.row(0, named=True)
            edges[name] = {**row, "open_time": row["open_time"].isoformat()}
    return edges


def prove_edges(
    connection: Connection, path: str, symbol: str, kind: str, *, start_us: int, end_us: int
) -> list[tuple[int | None, pl.DataFrame]]:
    """Return the edge candles of a file and its neighbours that are now proven complete.

    Args:
        path: of a file that has just been recorded as loaded.
        start_us, end_us: its period.

    Returns:
        For each of the files its publication time (µs) and a frame of ``CANDLE_SCHEMA``.
    """
    ours = find_dump_file(connection, path)
    found: list[tuple[int | None, pl.DataFrame]] = []
    for earlier, later in (
        (find_dump_beside(connection, symbol, kind, ends_us=start_us), ours),
        (ours, find_dump_beside(connection, symbol, kind, begins_us=end_us)),
    ):
        if earlier is not None and later is not None and _follow(earlier, later):
            for file, end in ((earlier, _END), (later, _BEGIN)):
                rows = _proven(file.detail, end)
                if rows:
                    frame = pl.DataFrame(rows, schema=CANDLE_SCHEMA, orient="row")
                    found.append((file.published_at_us, frame))
    return found


def _follow(earlier: DumpFile, later: DumpFile) -> bool:
    last, first = earlier.detail.get("last_id"), later.detail.get("first_id")
    return isinstance(last, int) and isinstance(first, int) and first == last + 1


def _proven(detail: Mapping[str, object], end: str) -> list[dict[str, Any]]:
    """Return the candle at one end of a file; empty if both ends are the same minute."""
    edges = detail.get(EDGES)
    if not isinstance(edges, dict) or end not in edges:
        return []
    row = dict(edges[end])
    other = edges.get(_BEGIN if end == _END else _END)
    if other is not None and other["open_time"] == row["open_time"]:
        return []
    return [{**row, "open_time": datetime.fromisoformat(row["open_time"])}]
