"""What the stream missed, in ``ops.gaps``: opened at once, closed once every minute is proven.

The ledger never holds up the stream: what happens is noted in memory and written by a task of
its own, on a connection of its own. One gap of a symbol is one row, however often its bounds move
before it is closed, so that a cut of 500 symbols is 500 rows and not one for each minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import psycopg
import structlog

from include.backoff import Backoff
from include.domain.candles import Offer, Status
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError, TransientError
from include.store.gap_batches import (
    ClosedGap,
    LeftGap,
    NewGap,
    WiderGap,
    close_gaps_async,
    leave_gaps_async,
    open_gaps_async,
    widen_gaps_async,
)
from include.store.gaps import Gap
from include.store.pools import connect_async

log = structlog.get_logger(__name__)

WRITE_INTERVAL_S = 0.25
"""Changes of so long are written at once."""
GROWS_FOR_S = 300.0
"""A gap of which minutes are proven takes in new ones for so long: a line that is bad for hours
makes a row in five minutes, not one a minute nor one that never closes."""
MOST_A_SYMBOL = 16
"""Gaps of a symbol kept apart; what is missed beyond them widens the last one."""
BATCH = 2_000
BACKOFF = Backoff(first_s=0.5, most_s=30.0, least_s=0.1)
CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 30.0

Ranges = list[tuple[int, int]]


@dataclass(slots=True, eq=False)
class OpenGap:
    """A gap until the table says that it is closed, or it is given up.

    Attributes:
        opened_s, proven_s: by the loop's clock; the latter once nothing is left to prove.
        unproven: what is left, as half-open ranges, ascending.
        ids: its rows; several where another streamer opened the same range.
        written: the range its rows have.
        changes: counts what a write may have missed.
    """

    symbol: str
    start_us: int
    end_us: int
    cause: str
    opened_s: float
    unproven: Ranges
    proven_s: float | None = None
    proofs: set[str] = field(default_factory=set)
    given_up: str | None = None
    ids: list[int] = field(default_factory=list)
    written: tuple[int, int] | None = None
    changes: int = 0

    def takes(self, start_us: int, end_us: int, now_s: float) -> bool:
        """Whether a range that it touches is part of it."""
        if start_us >= self.start_us and end_us <= self.end_us:
            return True
        if start_us > self.end_us or end_us < self.start_us:
            return False
        return now_s - self.opened_s < GROWS_FOR_S or not self.proofs

    def add(self, start_us: int, end_us: int) -> bool:
        """Take a range in; whether its row is another one by that."""
        bounds = (min(self.start_us, start_us), max(self.end_us, end_us))
        is_known = self.proven_s is None and bounds == self.written
        self.start_us, self.end_us = bounds
        self.unproven = united(self.unproven, start_us, end_us)
        self.proven_s = None
        self.changes += not is_known
        return not is_known

    def prove(self, start_us: int, end_us: int, by: str, now_s: float) -> None:
        """Take a range off what is left to prove."""
        left = without(self.unproven, start_us, end_us)
        if left == self.unproven:
            return
        self.unproven = left
        self.proofs.add(by)
        if not left:
            self.proven_s = now_s
            self.changes += 1

    @property
    def detail(self) -> dict[str, object]:
        """What is told besides; a reason for giving it up."""
        return {} if self.given_up is None else {"error": self.given_up}


class GapLedger:
    """Keeps ``ops.gaps`` for one streamer.

    Args:
        database_url: of the role candelabra_streamer.
    """

    def __init__(self, database_url: str) -> None:
        self.opened = 0
        self.closed = 0
        self._url = database_url
        self._gaps: dict[str, list[OpenGap]] = {}
        self._changed: dict[OpenGap, None] = {}
        self._wake = asyncio.Event()
        self._connection: psycopg.AsyncConnection | None = None

    @property
    def open(self) -> int:
        """Gaps that are not closed yet."""
        return sum(map(len, self._gaps.values()))

    @property
    def unwritten(self) -> int:
        """Gaps that PostgreSQL does not know as they are."""
        return len(self._changed)

    # --- what happens

    def missed(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Something of these minutes did not come; full minutes are taken (bounds in µs)."""
        start_us, end_us = minute_of(start_us), minute_of(end_us - 1) + MINUTE_US
        now_s = _now_s()
        gaps = self._gaps.setdefault(symbol, [])
        found = next((gap for gap in gaps if gap.takes(start_us, end_us, now_s)), None)
        if found is None and len(gaps) >= MOST_A_SYMBOL:
            found = gaps[-1]
        if found is None:
            found = OpenGap(symbol, start_us, end_us, cause, now_s, [])
            gaps.append(found)
            self.opened += 1
        if found.add(start_us, end_us):
            self._change(found)

    def proven(self, symbol: str, start_us: int, end_us: int, by: str) -> None:
        """The table has these minutes from the exchange, or knows them as an outage."""
        gaps = self._gaps.get(symbol)
        if not gaps:
            return
        now_s = _now_s()
        for gap in gaps:
            gap.prove(start_us, end_us, by, now_s)
            if gap.proven_s is not None:
                self._change(gap)

    def written(self, offers: Iterable[Offer]) -> None:
        """Candles are in the table."""
        if not self._gaps:
            return
        for offer in offers:
            if offer.status is Status.VERIFIED and offer.candle.symbol in self._gaps:
                start_us = offer.candle.open_time_us
                self.proven(offer.candle.symbol, start_us, start_us + MINUTE_US, offer.source.value)

    def give_up(self, symbol: str, start_us: int, end_us: int, cause: str, reason: str) -> None:
        """These minutes are not asked for any more: the gap is left to ``repair_gaps``."""
        self.missed(symbol, start_us, end_us, cause)
        for gap in self._gaps[symbol]:
            if gap.start_us < end_us and start_us < gap.end_us:
                gap.given_up = reason
                gap.changes += 1
                self._change(gap)

    def adopt(self, gaps: Sequence[Gap]) -> None:
        """Go on with gaps that an ended streamer left, which the caller has claimed."""
        for gap in gaps:
            bounds = (gap.start_us, gap.end_us)
            self._gaps.setdefault(gap.symbol, []).append(
                OpenGap(
                    gap.symbol, *bounds, gap.cause, _now_s(), [bounds], ids=[gap.id], written=bounds
                )
            )

    def _change(self, gap: OpenGap) -> None:
        self._changed[gap] = None
        self._wake.set()

    # --- writing

    async def run(self) -> None:
        """Write until cancelled."""
        failures = 0
        while True:
            await self._wake.wait()
            await asyncio.sleep(WRITE_INTERVAL_S)
            self._wake.clear()
            try:
                await self._write()
                failures = 0
            except (TransientError, PermanentError, TimeoutError) as error:
                # A ledger that is refused must not end the stream that it is about.
                failures += 1
                self._wake.set()
                await self._disconnect()
                wait_s = BACKOFF.wait_s(failures)
                log.warning(
                    "gaps_not_written",
                    error=str(error) or type(error).__name__,
                    waiting=self.unwritten,
                    retry_in_s=round(wait_s, 1),
                )
                await asyncio.sleep(wait_s)

    async def flush(self) -> None:
        """Write what is left, for a clean stop.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL is away or refuses it; the
                next start finds what is missing by itself.
        """
        try:
            await self._write()
        finally:
            await self._disconnect()

    async def _write(self) -> None:
        changed = list(self._changed)
        for first in range(0, len(changed), BATCH):
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._write_batch(changed[first : first + BATCH])

    async def _write_batch(self, batch: Sequence[OpenGap]) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await connect_async(
                self._url,
                application_name="candelabra-streamer-ledger",
                timeout_s=CONNECT_TIMEOUT_S,
            )
        connection = self._connection
        seen = {gap: gap.changes for gap in batch}
        await self._widen(connection, [gap for gap in batch if gap.written])
        await self._open(connection, [gap for gap in batch if not gap.written])
        proven = [gap for gap in batch if gap.proven_s is not None and gap.changes == seen[gap]]
        now_s = _now_s()
        await close_gaps_async(
            connection,
            [
                ClosedGap(one, now_s - (gap.proven_s or now_s), " and ".join(sorted(gap.proofs)))
                for gap in proven
                for one in gap.ids
            ],
        )
        left = [gap for gap in batch if gap.given_up is not None and gap not in proven]
        await leave_gaps_async(
            connection, [LeftGap(one, gap.detail) for gap in left for one in gap.ids]
        )
        for gap in batch:
            if gap.changes != seen[gap]:  # it went on meanwhile: the next round writes it
                if gap in proven:
                    gap.written = None  # as another row: this one is closed
                continue
            del self._changed[gap]
            if gap.proven_s is not None or gap.given_up is not None:
                self._forget(gap)

    async def _open(self, connection: psycopg.AsyncConnection, gaps: Sequence[OpenGap]) -> None:
        distinct: dict[tuple[str, int, int], list[OpenGap]] = {}
        for gap in gaps:
            distinct.setdefault((gap.symbol, gap.start_us, gap.end_us), []).append(gap)
        now_s = _now_s()
        new = [
            NewGap(*key, same[0].cause, now_s - same[0].opened_s, same[0].detail)
            for key, same in distinct.items()
        ]
        ids = await open_gaps_async(connection, new)
        for (key, same), number in zip(distinct.items(), ids, strict=True):
            for gap in same:
                gap.ids.append(number)
                gap.written = key[1:]

    async def _widen(self, connection: psycopg.AsyncConnection, gaps: Sequence[OpenGap]) -> None:
        grown = [gap for gap in gaps if gap.written != (gap.start_us, gap.end_us)]
        bounds = {gap: (gap.start_us, gap.end_us) for gap in grown}
        wider = [WiderGap(gap.ids[-1], *bounds[gap], gap.detail) for gap in grown]
        done = await widen_gaps_async(connection, wider)
        for gap in grown:
            # where it could not be widened a row of the whole range is opened beside it
            gap.written = bounds[gap] if gap.ids[-1] in done else None
        await self._open(connection, [gap for gap in grown if gap.written is None])

    def _forget(self, gap: OpenGap) -> None:
        gaps = self._gaps[gap.symbol]
        gaps.remove(gap)
        if not gaps:
            del self._gaps[gap.symbol]
        if gap.proven_s is not None:
            self.closed += 1

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


def united(ranges: Ranges, start_us: int, end_us: int) -> Ranges:
    """Half-open ranges and one more, ascending and joined where they touch."""
    joined: Ranges = []
    for start, end in sorted([*ranges, (start_us, end_us)]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def without(ranges: Ranges, start_us: int, end_us: int) -> Ranges:
    """Half-open ranges without one, ascending."""
    left = [(start, min(end, start_us)) for start, end in ranges if start < start_us]
    right = [(max(start, end_us), end) for start, end in ranges if end > end_us]
    return [(start, end) for start, end in left + right if start < end]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
