"""Compare acknowledged rows with the rows that PostgreSQL has after an outage.

A standby that takes over may lack the last commits of the primary. The streamer no longer holds
acknowledged rows, and once newer rows are stored nothing shows the loss. So the table is searched
for the last acknowledged row of each symbol before the first write on a new connection. Rows that a
start has read count as acknowledged: the server of the first write may be another one. So do the
rows that an earlier process knew when it began to spool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from include.domain.timeframes import from_us, to_us
from include.store.candles.merging import Connection
from include.store.postgres.pools import connect
from include.store.trades.captured import RAW_TABLES, RawTable
from include.store.trades.ids import Reached, dropped_days, rows_gone
from streamer.capture.spool.acknowledged import (
    AcknowledgedRow,
    load_acknowledged,
    save_acknowledged,
)
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

MAX_CALL_S = 60.0
"""Timeout for reading the last rows of all symbols; beyond it PostgreSQL hangs."""
LOST = "PostgreSQL lost what it had stored, as where a standby took over that lagged behind"

_Lines = Mapping[str, Mapping[str, str]]
_Read = Mapping[str, Mapping[str, tuple[int, int]]]


class Behind(NamedTuple):
    """A symbol whose last acknowledged row is not stored.

    Attributes:
        id, time_us: of that row.
        stored: id and time (µs) of the last stored row before it; None if there is none.
    """

    dataset: str
    symbol: str
    id: int
    time_us: int
    stored: tuple[int, int] | None


class StoredRowsCheck:
    """Tracks the last stored row of each dataset and symbol.

    While rows are spooled, the tracked rows are on disk for the next process.

    Args:
        database_url: PostgreSQL with the rows.
        on_behind: receives the symbols whose last rows are gone.
        folder: of the spool, for the next process.

    Attributes:
        is_due: whether rows were read that no check has compared yet.
        is_outdated: whether the file in the folder has rows whose loss is recorded.
    """

    def __init__(
        self, database_url: str, on_behind: Callable[[Sequence[Behind]], None], folder: Path
    ) -> None:
        self._url = database_url
        self._on_behind = on_behind
        self._folder = folder
        self._is_saved = True
        self._lines: dict[str, dict[str, str]] = {name: {} for name in RAW_TABLES}
        """COPY lines of these rows as written; parsed only when needed, which is rare."""
        self._read: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in RAW_TABLES}
        """Id and time (µs) of the last rows that were read, of symbols without a written row."""
        self.is_due = self.is_outdated = False

    def load(self) -> None:
        """Expect the rows that earlier processes knew when they began to spool."""
        for row in load_acknowledged(self._folder):
            if row.dataset in self._read:  # a later version may know more
                self.expect(row.dataset, {row.symbol: (row.id, row.time_us)})

    def saving(self) -> Callable[[], None] | None:
        """Return the call that saves the last acknowledged rows; None if the file has them.

        The call blocks, may run in a thread and raises OSError.
        """
        if self._is_saved and not self.is_outdated:
            return None
        self._is_saved, self.is_outdated = True, False
        lines = {name: dict(known) for name, known in self._lines.items()}
        read = {name: dict(known) for name, known in self._read.items()}
        return partial(self._save, lines, read)

    def note(self, table: RawTable, lines: Sequence[str]) -> None:
        """Record stored rows, in the order in which they arrived."""
        # The last line of a symbol wins. This costs a tenth of a microsecond per row.
        self._lines[table.name].update({line.partition("\t")[0]: line for line in lines})
        self._is_saved = False

    def expect(self, dataset: str, rows: Mapping[str, tuple[int, int]]) -> None:
        """Record the last rows that another connection has read, as id and time (µs) by symbol."""
        read = self._read[dataset]
        for symbol, row in rows.items():
            if symbol not in read or read[symbol][1] <= row[1]:
                read[symbol] = row
        self.is_due = self.is_due or bool(rows)
        self._is_saved = self._is_saved and not rows

    async def check(self) -> None:
        """Report lost rows; one statement checks all symbols of a dataset.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL failed.
        """
        if not (any(self._lines.values()) or any(self._read.values())):
            return
        async with asyncio.timeout(MAX_CALL_S):
            behind = await in_thread(self._behind, name="capture_check")
        self.is_due = False
        if not behind:
            return
        for one in behind:
            # Reported once: the rows are then requested or recorded as lost.
            self._lines[one.dataset].pop(one.symbol, None)
            self._read[one.dataset].pop(one.symbol, None)
        self.is_outdated = True
        log.error(
            "stored_rows_gone",
            symbols=len({one.symbol for one in behind}),
            tables=sorted({one.dataset for one in behind}),
        )
        self._on_behind(behind)

    def _behind(self) -> list[Behind]:
        found: list[Behind] = []
        with connect(self._url, application_name="candelabra-capture") as connection:
            for dataset, own in _last(self._lines, self._read).items():
                if own:
                    found += _behind_in(connection, RAW_TABLES[dataset], own)
        return found

    def _save(self, lines: _Lines, read: _Read) -> None:
        try:
            save_acknowledged(
                self._folder,
                (
                    AcknowledgedRow(dataset, symbol, number, at_us)
                    for dataset, rows in _last(lines, read).items()
                    for symbol, (number, at_us) in rows.items()
                ),
            )
        except OSError:
            self._is_saved = False
            raise


def _last(lines: _Lines, read: _Read) -> dict[str, dict[str, tuple[int, int]]]:
    """Return id and time (µs) of the last acknowledged row by dataset and symbol."""
    return {
        name: {**read[name], **_parsed(table, lines[name])} for name, table in RAW_TABLES.items()
    }


def _parsed(table: RawTable, lines: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return ids and times (µs) of lines by symbol."""
    own: dict[str, tuple[int, int]] = {}
    for symbol, line in lines.items():
        fields = line.rstrip("\n").split("\t")
        at_us = to_us(datetime.fromisoformat(fields[table.time_index]))
        own[symbol] = (int(fields[table.id_index]), at_us)
    return own


def _behind_in(
    connection: Connection, table: RawTable, own: Mapping[str, tuple[int, int]]
) -> Iterator[Behind]:
    """Yield the symbols of one table that lack their last acknowledged row."""
    rows = [Reached(symbol, number, at_us) for symbol, (number, at_us) in own.items()]
    gone = rows_gone(connection, table, rows)
    if not gone:
        return
    times_us = [own[symbol][1] for symbol in gone]
    archived = dropped_days(connection, table, min(times_us), max(times_us))
    for symbol, stored in gone.items():
        number, at_us = own[symbol]
        if from_us(at_us).date() not in archived:
            yield Behind(table.name, symbol, number, at_us, stored)
