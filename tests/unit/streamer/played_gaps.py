"""``ops.gaps`` as a ledger writes it, played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from include.backoff import Backoff
from include.domain.timeframes import MINUTE_US
from include.store.ledgers.gap_batches import ClosedGap, GapRow, GivenUpGap, NewGap, WiderGap
from streamer.storage import gap_ledger as module
from streamer.storage.gap_ledger import GapLedger

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


@dataclass
class Row:
    """A gap in the table: its minutes after T0, and how it ended."""

    symbol: str
    start: int
    end: int
    cause: str
    by: str | None = None
    error: object = None
    opened_us: int = 0


@dataclass
class Table:
    """``ops.gaps``, and how often it was written."""

    rows: dict[int, Row] = field(default_factory=dict)
    writes: int = 0
    opened: int = 0
    failures: list[Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    filled: set[int] = field(default_factory=set)
    """Rows whose minutes are all in the table."""

    async def connect(self, url: str, **_: object) -> Any:
        assert url == "postgresql://here/candles"
        return self

    closed = False

    async def close(self) -> None:
        """As of a connection."""

    async def open(self, _: object, gaps: Sequence[NewGap]) -> list[GapRow]:
        if gaps:
            self.writes += 1
        if self.failures:
            raise self.failures.pop(0)
        assert len({(gap.symbol, gap.start_us, gap.end_us) for gap in gaps}) == len(gaps)
        return [self._open(gap) for gap in gaps]

    def _open(self, gap: NewGap) -> GapRow:
        assert gap.age_s >= 0
        self.opened += 1
        span = (minute(gap.start_us), minute(gap.end_us))
        row = Row(gap.symbol, *span, gap.cause, opened_us=self.opened)
        for number, one in self.rows.items():
            if one.by is None and (one.symbol, one.start, one.end) == (
                row.symbol, row.start, row.end,
            ):  # fmt: skip
                return GapRow(one.symbol, number, one.opened_us)
        self.rows[number := max(self.rows, default=0) + 1] = row
        return GapRow(row.symbol, number, row.opened_us)

    async def widen(self, _: object, gaps: Sequence[WiderGap]) -> set[GapRow]:
        done = set()
        for gap in gaps:
            row = self.of(gap.row)
            if row is None:
                continue
            wider = (row.symbol, minute(gap.start_us), minute(gap.end_us))
            if row.by is None and wider not in self.open_ranges():
                row.start, row.end = wider[1:]
                done.add(gap.row)
        return done

    async def close_all(self, _: object, gaps: Sequence[ClosedGap]) -> int:
        if self.gate is not None and gaps:
            await self.gate.wait()
        for gap in gaps:
            assert gap.age_s >= 0
            if (row := self.of(gap.row)) is not None:
                row.by = row.by or gap.by
        return len(gaps)

    async def leave(self, _: object, gaps: Sequence[GivenUpGap]) -> int:
        for gap in gaps:
            if (row := self.of(gap.row)) is not None:
                row.error = gap.detail["error"]
        return len(gaps)

    async def close_proven(
        self, _: object, rows: Sequence[GapRow], *, others: Sequence[GapRow] = ()
    ) -> tuple[set[GapRow], set[GapRow]]:
        for one in rows:
            if one.id in self.filled and (row := self.of(one)) is not None and row.by is None:
                row.by = "rows"
        found = [(one, self.of(one)) for one in (*rows, *others)]
        closed = {one for one, row in found if row is not None and row.by is not None}
        return closed, {one for one, row in found if row is None}

    def of(self, asked: GapRow) -> Row | None:
        row = self.rows.get(asked.id)
        is_it = row is not None and (row.symbol, row.opened_us) == (asked.symbol, asked.opened_us)
        return row if is_it else None

    def open_ranges(self) -> list[tuple[str, int, int]]:
        return [(one.symbol, one.start, one.end) for one in self.rows.values() if one.by is None]

    def written(self) -> list[tuple[str, int, int, str | None]]:
        return [(one.symbol, one.start, one.end, one.by) for one in self.rows.values()]


def minute(moment_us: int) -> int:
    assert (moment_us - T0) % MINUTE_US == 0
    return (moment_us - T0) // MINUTE_US


def at(number: float) -> int:
    return T0 + round(number * MINUTE_US)


def played_table(monkeypatch: pytest.MonkeyPatch) -> Table:
    """What all ledgers of a test write to, without waiting."""
    table = Table()
    monkeypatch.setattr(module, "connect_async", table.connect)
    monkeypatch.setattr(module, "open_gaps_async", table.open)
    monkeypatch.setattr(module, "widen_gaps_async", table.widen)
    monkeypatch.setattr(module, "close_gaps_async", table.close_all)
    monkeypatch.setattr(module, "give_up_gaps_async", table.leave)
    monkeypatch.setattr(module, "close_proven_gaps_async", table.close_proven)
    monkeypatch.setattr(module, "WRITE_INTERVAL_S", 0.0)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.02, max_s=0.02, min_s=0.01))
    return table


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


async def all_written(ledger: GapLedger) -> None:
    await until(lambda: ledger.unwritten == 0)
