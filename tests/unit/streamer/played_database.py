"""A played database for the writer, which stores, refuses and fails as a test sets it up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from include.domain.candles import CandleCandidate, silent_candle
from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError
from include.store.candles.live import LiveCandle, LivePressure

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


class Connection:
    """A connection that can be closed."""

    closed = False

    async def close(self) -> None:
        self.closed = True


class Database:
    """Stores batches, refuses chosen minutes, and fails as set up."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.batches: list[list[int]] = []
        self.live: list[list[int]] = []
        self.refused: set[int] = set()
        self.failures: list[Exception] = []
        self.refuses_live = False
        self.gate: asyncio.Event | None = None
        self.is_writing = asyncio.Event()
        self.started = datetime(2026, 1, 1, tzinfo=UTC)

    async def connect(self, url: str, **_: object) -> Connection:
        assert url == "postgresql://here/candles"
        self.connections.append(Connection())
        return self.connections[-1]

    async def server_started(self, connection: Connection) -> datetime:
        assert not connection.closed
        return self.started

    async def store(self, connection: Connection, offers: Sequence[CandleCandidate]) -> None:
        assert not connection.closed
        self.is_writing.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        minutes = [number_of(offer.candle.open_time_us) for offer in offers]
        if self.refused & set(minutes):
            raise PermanentError("a check constraint says no")
        self.batches.append(minutes)

    async def rotate_live(self, connection: Connection) -> LivePressure:
        return LivePressure(table_bytes=8192, snapshot_s=0.0)

    async def write_live(self, connection: Connection, rows: Sequence[LiveCandle]) -> int:
        assert not connection.closed
        if self.refuses_live:
            raise PermanentError("a check constraint says no")
        if self.failures:
            raise self.failures.pop(0)
        self.live.append([number_of(row.candle.open_time_us) for row in rows])
        return len(rows)

    @property
    def written(self) -> list[int]:
        return [minute for batch in self.batches for minute in batch]


class Aggregator:
    """One open candle, of minute 99."""

    quote_volume_is_exact = True

    def __init__(self) -> None:
        self.is_dirty = True

    def live_candles(self) -> list[tuple[object, bool]]:
        return [(silent_candle("BTCUSDT", T0 + 99 * MINUTE_US, Decimal(7)), False)]


def number_of(open_time_us: int) -> int:
    return (open_time_us - T0) // MINUTE_US


class Connected:
    """Stands in for a blocking connection to which nothing is said."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None
