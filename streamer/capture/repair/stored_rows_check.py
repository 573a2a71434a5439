"""Compare acknowledged rows with the rows that PostgreSQL has after an outage.

A standby that takes over may lack the last commits of the primary. The streamer no longer holds
acknowledged rows, and once newer rows are stored nothing shows the loss. So both are compared
before the first write on a new connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

import structlog

from include.domain.timeframes import to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import connect
from include.store.trades.captured import RAW_TABLES, RawTable
from include.store.trades.ids import dropped_days, last_rows
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

MAX_CALL_S = 60.0
"""Timeout for reading the last rows of all symbols; beyond it PostgreSQL hangs."""
LOST = "PostgreSQL lost what it had stored, as where a standby took over that lagged behind"


class Behind(NamedTuple):
    """A symbol with fewer stored rows than acknowledged.

    Attributes:
        id, time_us: of the last acknowledged row.
        stored: id and time (µs) of the last stored row; None if there is none.
    """

    dataset: str
    symbol: str
    id: int
    time_us: int
    stored: tuple[int, int] | None


class StoredRowsCheck:
    """Tracks the last stored row of each dataset and symbol.

    Args:
        database_url: PostgreSQL with the rows.
        on_behind: receives the symbols whose last rows are gone.
    """

    def __init__(self, database_url: str, on_behind: Callable[[Sequence[Behind]], None]) -> None:
        self._url = database_url
        self._on_behind = on_behind
        self._lines: dict[str, dict[str, str]] = {name: {} for name in RAW_TABLES}
        """COPY lines of these rows as written; parsed only when needed, which is rare."""

    def note(self, table: RawTable, lines: Sequence[str]) -> None:
        """Record stored rows, in the order in which they arrived."""
        # The last line of a symbol wins. This costs a tenth of a microsecond per row.
        self._lines[table.name].update({line.partition("\t")[0]: line for line in lines})

    async def check(self) -> None:
        """Report lost rows; one statement checks all symbols of a dataset.

        A loss does not show if another process has stored later rows of the symbol.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL failed.
        """
        if not any(self._lines.values()):
            return
        async with asyncio.timeout(MAX_CALL_S):
            behind = await in_thread(self._behind, name="capture_check")
        if not behind:
            return
        for one in behind:
            # Reported once: the rows are then requested or recorded as lost.
            del self._lines[one.dataset][one.symbol]
        log.error(
            "stored_rows_gone",
            symbols=len({one.symbol for one in behind}),
            tables=sorted({one.dataset for one in behind}),
        )
        self._on_behind(behind)

    def _behind(self) -> list[Behind]:
        found: list[Behind] = []
        with connect(self._url, application_name="candelabra-capture") as connection:
            for dataset, lines in self._lines.items():
                if lines:
                    found += _behind_in(connection, RAW_TABLES[dataset], lines)
        return found


def _behind_in(
    connection: Connection, table: RawTable, lines: Mapping[str, str]
) -> Iterator[Behind]:
    """Yield the symbols of one table that are behind, by their last lines."""
    own: dict[str, tuple[int, int]] = {}
    for symbol, line in lines.items():
        fields = line.rstrip("\n").split("\t")
        at_us = to_us(datetime.fromisoformat(fields[table.time_index]))
        own[symbol] = (int(fields[table.id_index]), at_us)
    times_us = [at_us for _, at_us in own.values()]
    archived = dropped_days(connection, table, min(times_us), max(times_us))
    stored = last_rows(connection, table, list(lines), None)
    for symbol, (number, at_us) in own.items():
        last = stored.get(symbol)
        # A smaller id with a later time belongs to another instrument with the same ticker.
        is_behind = last is None or (last[0] < number and last[1] <= at_us)
        if is_behind and date.fromisoformat(lines[symbol].split("\t", 2)[1]) not in archived:
            yield Behind(table.name, symbol, number, at_us, last)
