"""Record minutes that the stream missed in ``ops.gaps``, until every minute is proven complete.

The ledger never blocks the stream: changes are held in memory and written by a separate task on a
separate connection. A gap is one row however often its bounds move before it is closed, so that a
disconnect of 500 symbols makes 500 rows and not one for each minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import psycopg
import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.candles import CandleCandidate, Status
from include.domain.ranges import Ranges, united, without
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.errors import PermanentError, TransientError
from include.store.ledgers.gap_batches import (
    ClosedGap,
    GapRow,
    GivenUpGap,
    NewGap,
    WiderGap,
    close_gaps_async,
    close_proven_gaps_async,
    give_up_gaps_async,
    open_gaps_async,
    widen_gaps_async,
)
from include.store.ledgers.gaps import Gap
from include.store.postgres.pools import connect_async
from streamer.candles.events import AFTER_DATABASE_OUTAGE, NO_CLOSED_KLINE, NO_FRAMES

log = structlog.get_logger(__name__)

WRITE_INTERVAL_S = 0.25
"""Changes within this time are written together."""
MAX_GAPS_PER_SYMBOL = 16
"""Maximum open gaps of a symbol; beyond this, missed minutes widen the last one."""
BATCH_ROWS = 2_000
GROWS_FOR_S = 300.0
"""Time for which a partly proven gap accepts new minutes. A connection that is bad for hours then
makes a row every five minutes, instead of one a minute or one that never closes."""
MAX_GIVEN_UP = 100_000
"""Maximum given-up gaps that count as open; further ones are only in the table."""
POLL_INTERVAL_S = 30.0
"""Interval of the check whether other workers have filled open gaps."""
ROWS_GONE = "PostgreSQL no longer has the rows that filled it"
BACKOFF = Backoff(first_s=0.5, max_s=30.0, min_s=0.1)
CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 30.0


@dataclass(slots=True, eq=False)
class OpenGap:
    """A gap of one symbol until it is closed in the table or given up.

    Attributes:
        opened_s, proven_s: by the event loop's clock; ``proven_s`` is set once all minutes are
            proven.
        unproven: minutes not proven yet, as half-open ranges, ascending.
        rows: its rows in the table; several if another streamer opened the same range.
        written: the range in the table's rows.
        changes: counts changes, to detect changes made during a write.
        proven_after: failures of the connection before the first proof.
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
    rows: list[GapRow] = field(default_factory=list)
    written: tuple[int, int] | None = None
    changes: int = 0
    proven_after: int | None = None

    def takes(self, start_us: int, end_us: int, now_s: float) -> bool:
        """Whether a range belongs to this gap."""
        if start_us >= self.start_us and end_us <= self.end_us:
            return True
        if self.given_up is not None or start_us > self.end_us or end_us < self.start_us:
            return False
        return now_s - self.opened_s < GROWS_FOR_S or not self.proofs

    def add(self, start_us: int, end_us: int) -> bool:
        """Add a range; return whether the row has to change."""
        bounds = (min(self.start_us, start_us), max(self.end_us, end_us))
        is_known = self.proven_s is None and bounds == self.written
        self.start_us, self.end_us = bounds
        self.unproven = united([*self.unproven, (start_us, end_us)])
        self.proven_s = None
        self.changes += not is_known
        return not is_known

    def prove(self, start_us: int, end_us: int, by: str, now_s: float, failures: int = 0) -> None:
        """Mark a range as proven by rows that were stored after so many failures."""
        unproven = without(self.unproven, [(start_us, end_us)])
        if unproven == self.unproven:
            return
        self.unproven = unproven
        self.proven_after = failures if self.proven_after is None else self.proven_after
        self.proofs.add(by)
        if not unproven:
            self.proven_s = now_s
            self.changes += 1

    def doubt(self, reason: str) -> None:
        """Take all proofs back and give up, because the table lacks rows that were stored."""
        self.unproven = [(self.start_us, self.end_us)]
        self.proofs.clear()
        self.proven_s = self.proven_after = None
        self.given_up = reason

    @property
    def detail(self) -> dict[str, object]:
        """Further facts for the row: why the gap was given up."""
        return {} if self.given_up is None else {"error": self.given_up}


class GapLedger:
    """Writes the gaps of one streamer.

    Args:
        database_url: of the role candelabra_streamer.
        expects_klines: False if only REST verifies minutes, so that a request is not a gap.
    """

    def __init__(self, database_url: str, *, expects_klines: bool = True) -> None:
        self.opened = 0
        self.closed = 0
        self._url = database_url
        self._expects_klines = expects_klines
        self._gaps: dict[str, list[OpenGap]] = {}
        self._proven_until: dict[str, int] = {}
        """End of the newest minute verified by the stream's klines, by symbol."""
        self._changed: dict[OpenGap, None] = {}
        self._given_up: dict[GapRow, list[OpenGap]] = {}
        """Rows given up for ``repair_gaps``, each with our gaps that are joined in it."""
        self._wake = asyncio.Event()
        self._checked_s = 0.0
        self._connection: psycopg.AsyncConnection | None = None
        self._failures = 0
        """After a failure the connection may lead to a server that lacks the last stored rows."""

    @property
    def open(self) -> int:
        """Number of gaps not closed yet, including given-up ones."""
        return sum(map(len, self._gaps.values())) + sum(map(len, self._given_up.values()))

    @property
    def unwritten(self) -> int:
        """Number of gaps with changes not written yet."""
        return len(self._changed)

    # --- changes

    def missed(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Open or widen a gap for minutes that may be incomplete; bounds (µs) are extended to full
        minutes."""
        start_us, end_us = minute_of(start_us), minute_of(end_us - 1) + MINUTE_US
        now_s = _now_s()
        gaps = self._gaps.setdefault(symbol, [])
        found = next((gap for gap in gaps if gap.takes(start_us, end_us, now_s)), None)
        if found is None and len(gaps) >= MAX_GAPS_PER_SYMBOL:
            found = gaps[-1]
        if found is None:
            found = OpenGap(symbol, start_us, end_us, cause, now_s, [])
            gaps.append(found)
            self.opened += 1
        if found.add(start_us, end_us):
            self._change(found)

    def trades_lost(self, symbol: str, from_us: int, until_us: int, cause: str) -> None:
        """Open a gap for trades made between these times, except for verified minutes."""
        start_us = max(from_us, self._proven_until.get(symbol, 0))
        if start_us < until_us:
            self.missed(symbol, start_us, until_us, cause)

    def proven(self, symbol: str, start_us: int, end_us: int, by: str) -> None:
        """Mark minutes as proven: stored as the exchange has them, or recorded as an outage."""
        gaps = self._gaps.get(symbol)
        if not gaps:
            return
        now_s = _now_s()
        for gap in gaps:
            gap.prove(start_us, end_us, by, now_s, self._failures)
            if gap.proven_s is not None:
                self._change(gap)

    def stored(self, candidates: Iterable[CandleCandidate]) -> None:
        """Mark the minutes of verified candles as proven: they are in the table now."""
        for candidate in candidates:
            if candidate.status is not Status.VERIFIED:
                continue
            symbol, start_us = candidate.candle.symbol, candidate.candle.open_time_us
            end_us = start_us + MINUTE_US
            self._proven_until[symbol] = max(end_us, self._proven_until.get(symbol, 0))
            self.proven(symbol, start_us, end_us, candidate.source.value)

    def repair_requested(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Open a gap for minutes requested from REST, unless nothing is known to be missing.

        Without any frame the symbol may be halted, which REST will show. Without klines every
        minute is requested.
        """
        is_regular = cause in {NO_CLOSED_KLINE, AFTER_DATABASE_OUTAGE} and not self._expects_klines
        if cause != NO_FRAMES and not is_regular:
            self.missed(symbol, start_us, end_us, cause)

    def repaired(self, symbol: str, start_us: int, end_us: int, cause: str, rows: int) -> None:
        """Mark minutes as proven by REST, which returned this many rows."""
        if cause == NO_FRAMES and rows and self._expects_klines:
            self.missed(symbol, start_us, end_us, cause)  # it traded, so the stream was dead
        self.proven(symbol, start_us, end_us, "rest")

    def give_up(self, symbol: str, start_us: int, end_us: int, cause: str, reason: str) -> None:
        """Give up these minutes; the DAG ``repair_gaps`` repairs their gap."""
        self.missed(symbol, start_us, end_us, cause)
        for gap in self._gaps[symbol]:
            if gap.start_us < end_us and start_us < gap.end_us:
                gap.given_up = reason
                gap.changes += 1
                self._change(gap)

    def leave(self, symbol: str, start_us: int, end_us: int, cause: str, reason: str) -> None:
        """Leave minutes to the DAG ``repair_gaps`` that are in the table as an open gap already.

        The ledger opens the gap again if a new server lacks it.
        """
        gap = OpenGap(symbol, start_us, end_us, cause, _now_s(), [(start_us, end_us)])
        gap.given_up = reason
        self._gaps.setdefault(symbol, []).append(gap)
        self.opened += 1
        self._change(gap)

    def adopt(self, gaps: Sequence[Gap]) -> None:
        """Take over gaps of an ended streamer, which the caller has claimed.

        Gaps of a symbol that is streamed again may be known already: by their row, or by their
        range while the row is being written.
        """
        known = [one for of_symbol in self._gaps.values() for one in of_symbol]
        rows = {row for one in known for row in one.rows}
        ranges = {(one.symbol, one.start_us, one.end_us) for one in known}
        new = [
            gap
            for gap in gaps
            if _row_of(gap) not in rows and (gap.symbol, gap.start_us, gap.end_us) not in ranges
        ]
        taken_back = sum(self._take_back(_row_of(gap)) for gap in new)
        self.opened += len(new) - taken_back  # gaps known by range are counted already
        for gap in new:
            bounds = (gap.start_us, gap.end_us)
            self._gaps.setdefault(gap.symbol, []).append(
                OpenGap(
                    gap.symbol, *bounds, gap.cause, _now_s(), [bounds],
                    rows=[_row_of(gap)], written=bounds,
                )
            )  # fmt: skip

    def _change(self, gap: OpenGap) -> None:
        self._changed[gap] = None
        self._wake.set()

    # --- writing

    async def run(self) -> None:
        """Write until cancelled."""
        self._checked_s = _now_s()
        loop = RetryLoop(
            BACKOFF,
            retry_on=(TransientError, PermanentError, TimeoutError),  # must not end the stream
            on_failure=self._on_failure,
            on_retry=self._log_retry,
        )
        await loop.run(self._write_when_due)

    async def _write_when_due(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL_S):
                await self._wake.wait()
        await asyncio.sleep(WRITE_INTERVAL_S)
        self._wake.clear()
        await self._write()
        if _now_s() - self._checked_s >= POLL_INTERVAL_S:
            self._checked_s = _now_s()
            await self._check_open()

    async def _on_failure(self) -> None:
        self._wake.set()
        self._failures += 1
        await self._disconnect()

    def _log_retry(self, *, attempt: int, retry_in_s: float, error: str) -> None:
        log.warning(
            "gaps_not_written",
            error=error,
            waiting=self.unwritten,
            attempt=attempt,
            retry_in_s=retry_in_s,
        )

    async def flush(self) -> None:
        """Write the remaining changes, for a clean stop."""
        try:
            await self._write()
        except (TransientError, PermanentError, TimeoutError) as error:
            log.warning(
                "gaps_not_written",
                error=str(error) or type(error).__name__,
                waiting=self.unwritten,
            )
        finally:
            await self._disconnect()

    async def _write(self) -> None:
        changed = list(self._changed)
        for first in range(0, len(changed), BATCH_ROWS):
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._write_batch(changed[first : first + BATCH_ROWS])

    async def _write_batch(self, batch: Sequence[OpenGap]) -> None:
        connection = await self._connected()
        seen = {gap: gap.changes for gap in batch}
        await self._widen(connection, [gap for gap in batch if gap.written])
        await self._open(connection, [gap for gap in batch if not gap.written])
        proven = [gap for gap in batch if gap.proven_s is not None and gap.changes == seen[gap]]
        earlier = [gap for gap in proven if gap.proven_after != self._failures]
        doubted = await self._doubt(connection, earlier)
        proven = [gap for gap in proven if gap not in doubted]
        now_s = _now_s()
        await close_gaps_async(
            connection,
            [
                ClosedGap(one, now_s - (gap.proven_s or now_s), " and ".join(sorted(gap.proofs)))
                for gap in proven
                for one in gap.rows
            ],
        )
        given_up = [gap for gap in batch if gap.given_up is not None and gap not in proven]
        await give_up_gaps_async(
            connection, [GivenUpGap(one, gap.detail) for gap in given_up for one in gap.rows]
        )
        for gap in batch:
            if gap.changes != seen[gap]:  # changed in the meantime: the next round writes it
                if gap in proven:
                    gap.written = None  # in a new row: this one is closed
                continue
            del self._changed[gap]
            if gap.proven_s is not None:
                self._drop(gap)
                self.closed += 1
            elif gap.given_up is not None:
                self._drop(gap)
                self._leave(gap)

    async def _doubt(
        self, connection: psycopg.AsyncConnection, gaps: Sequence[OpenGap]
    ) -> set[OpenGap]:
        """Close gaps proven before a failure as far as the table agrees; give up the others, and
        return them."""
        rows = [one for gap in gaps for one in gap.rows]
        if not rows:
            return set()
        closed, gone = await close_proven_gaps_async(connection, rows)
        doubted = [gap for gap in gaps if not closed.issuperset(gap.rows)]
        for gap in doubted:
            gap.doubt(ROWS_GONE)
            gap.rows = [one for one in gap.rows if one not in gone]
            log.warning(
                "proof_not_stored",
                symbol=gap.symbol,
                start=from_us(gap.start_us).isoformat(),
                end=from_us(gap.end_us).isoformat(),
            )
        await self._open(connection, [gap for gap in doubted if not gap.rows])
        return set(doubted)

    async def _check_open(self) -> None:
        """Drop gaps that others have filled; open gaps again that a new server lacks."""
        open_gaps = [gap for gaps in self._gaps.values() for gap in gaps if gap.rows]
        seen = {gap: gap.changes for gap in open_gaps}
        given_up = list(self._given_up)[:BATCH_ROWS]
        rows = sorted({one for gap in open_gaps for one in gap.rows})
        if not rows and not given_up:
            return
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            connection = await self._connected()
            closed, gone = await close_proven_gaps_async(connection, rows, others=given_up)
        for gap, changes in seen.items():
            if not gone.isdisjoint(gap.rows):
                gap.rows = [one for one in gap.rows if one not in gone]
                self._write_again(gap)
            elif gap.changes == changes and gap not in self._changed and closed >= {*gap.rows}:
                self._drop(gap)
                self.closed += 1
        for one in given_up:
            gaps = self._given_up.pop(one, [])  # none: adopted again in the meantime
            if one in closed:
                self.closed += len(gaps)
            elif one in gone:
                for gap in gaps:
                    self._open_again(gap)
            elif gaps:
                self._given_up[one] = gaps  # moves behind the others

    def _open_again(self, gap: OpenGap) -> None:
        gap.rows = []
        self._gaps.setdefault(gap.symbol, []).append(gap)
        self._write_again(gap)

    def _write_again(self, gap: OpenGap) -> None:
        gap.written = None
        gap.changes += 1
        self._change(gap)

    async def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await connect_async(
                self._url,
                application_name="candelabra-streamer-ledger",
                timeout_s=CONNECT_TIMEOUT_S,
            )
        return self._connection

    async def _open(self, connection: psycopg.AsyncConnection, gaps: Sequence[OpenGap]) -> None:
        distinct: dict[tuple[str, int, int], list[OpenGap]] = {}
        for gap in gaps:
            distinct.setdefault((gap.symbol, gap.start_us, gap.end_us), []).append(gap)
        now_s = _now_s()
        new = [
            NewGap(*key, same[0].cause, now_s - same[0].opened_s, same[0].detail)
            for key, same in distinct.items()
        ]
        rows = await open_gaps_async(connection, new)
        for (key, same), row in zip(distinct.items(), rows, strict=True):
            for gap in same:
                gap.rows.append(row)
                gap.written = key[1:]

    async def _widen(self, connection: psycopg.AsyncConnection, gaps: Sequence[OpenGap]) -> None:
        grown = [gap for gap in gaps if gap.written != (gap.start_us, gap.end_us)]
        bounds = {gap: (gap.start_us, gap.end_us) for gap in grown}
        wider = [WiderGap(gap.rows[-1], *bounds[gap], gap.detail) for gap in grown]
        done = await widen_gaps_async(connection, wider)
        for gap in grown:
            # A row that could not be widened gets a second one with the whole range.
            gap.written = bounds[gap] if gap.rows[-1] in done else None
        await self._open(connection, [gap for gap in grown if gap.written is None])

    def _drop(self, gap: OpenGap) -> None:
        gaps = self._gaps[gap.symbol]
        gaps.remove(gap)
        if not gaps:
            del self._gaps[gap.symbol]

    def _leave(self, gap: OpenGap) -> None:
        """Count a given-up gap as open until ``_check_open`` finds that others have closed it."""
        if len(self._given_up) < MAX_GIVEN_UP:
            self._given_up.setdefault(gap.rows[-1], []).append(gap)

    def _take_back(self, row: GapRow) -> bool:
        """Forget one gap that is given up in this row; return whether there was one."""
        gaps = self._given_up.get(row, [])
        if not gaps:
            return False
        gaps.pop()
        if not gaps:
            del self._given_up[row]
        return True

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


def _row_of(gap: Gap) -> GapRow:
    return GapRow(gap.symbol, gap.id, gap.opened_at_us)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
