"""What the stream missed, in ``ops.gaps``: opened at once, closed once every minute is proven.

The ledger never holds up the stream: what happens is noted in memory and written by a task of
its own, on a connection of its own. One gap of a symbol is one row, however often its bounds move
before it is closed, so that a cut of 500 symbols is 500 rows and not one for each minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence

import psycopg
import structlog

from include.backoff import Backoff
from include.domain.candles import CandleCandidate, Status
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError, TransientError
from include.store.ledgers.gap_batches import (
    ClosedGap,
    GapRow,
    LeftGap,
    NewGap,
    WiderGap,
    close_gaps_async,
    close_proven_gaps_async,
    leave_gaps_async,
    open_gaps_async,
    widen_gaps_async,
)
from include.store.ledgers.gaps import Gap
from include.store.postgres.pools import connect_async
from streamer.candles.events import LACKING, NO_CLOSED_KLINE, NOTHING_CAME
from streamer.storage.open_gap import OpenGap

log = structlog.get_logger(__name__)

WRITE_INTERVAL_S = 0.25
"""Changes of so long are written at once."""
MAX_A_SYMBOL = 16
"""Gaps of a symbol kept apart; what is missed beyond them widens the last one."""
BATCH = 2_000
MAX_GIVEN_UP = 100_000
"""Rows of gaps that were given up and are counted as open; further ones are in the table alone."""
POLL_INTERVAL_S = 30.0
"""How often the table is asked whether others have filled what is open."""
BACKOFF = Backoff(first_s=0.5, max_s=30.0, min_s=0.1)
CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 30.0


class GapLedger:
    """Keeps ``ops.gaps`` for one streamer.

    Args:
        database_url: of the role candelabra_streamer.
        expects_klines: False where REST alone confirms minutes, which then misses nothing.
    """

    def __init__(self, database_url: str, *, expects_klines: bool = True) -> None:
        self.opened = 0
        self.closed = 0
        self._url = database_url
        self._expects_klines = expects_klines
        self._gaps: dict[str, list[OpenGap]] = {}
        self._proven_until: dict[str, int] = {}
        """End of the newest minute that the stream's klines proved, by symbol."""
        self._changed: dict[OpenGap, None] = {}
        self._given_up: Counter[GapRow] = Counter()
        """Rows that are left to others, each with how many gaps of ours ended in it."""
        self._wake = asyncio.Event()
        self._connection: psycopg.AsyncConnection | None = None

    @property
    def open(self) -> int:
        """Gaps that are not closed yet, those that were given up among them."""
        return sum(map(len, self._gaps.values())) + self._given_up.total()

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
        if found is None and len(gaps) >= MAX_A_SYMBOL:
            found = gaps[-1]
        if found is None:
            found = OpenGap(symbol, start_us, end_us, cause, now_s, [])
            gaps.append(found)
            self.opened += 1
        if found.add(start_us, end_us):
            self._change(found)

    def lost(self, symbol: str, from_us: int, until_us: int, cause: str) -> None:
        """Trades between these times may not have come; minutes proven already miss none."""
        start_us = max(from_us, self._proven_until.get(symbol, 0))
        if start_us < until_us:
            self.missed(symbol, start_us, until_us, cause)

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

    def written(self, offers: Iterable[CandleCandidate]) -> None:
        """Candles are in the table."""
        for offer in offers:
            if offer.status is not Status.VERIFIED:
                continue
            symbol, start_us = offer.candle.symbol, offer.candle.open_time_us
            end_us = start_us + MINUTE_US
            self._proven_until[symbol] = max(end_us, self._proven_until.get(symbol, 0))
            self.proven(symbol, start_us, end_us, offer.source.value)

    def asked(self, symbol: str, start_us: int, end_us: int, cause: str) -> None:
        """Minutes are asked of REST, mostly because something of them was missed.

        Where nothing came at all, the symbol may be halted: REST will tell. Without klines all
        minutes wait for REST.
        """
        is_regular = cause in {NO_CLOSED_KLINE, LACKING} and not self._expects_klines
        if cause != NOTHING_CAME and not is_regular:
            self.missed(symbol, start_us, end_us, cause)

    def repaired(self, symbol: str, start_us: int, end_us: int, cause: str, rows: int) -> None:
        """REST has spoken about all of these minutes, with so many rows."""
        if cause == NOTHING_CAME and rows and self._expects_klines:
            self.missed(symbol, start_us, end_us, cause)  # it traded, and the stream was dead
        self.proven(symbol, start_us, end_us, "rest")

    def give_up(self, symbol: str, start_us: int, end_us: int, cause: str, reason: str) -> None:
        """These minutes are not asked for any more: the gap is left to ``repair_gaps``."""
        self.missed(symbol, start_us, end_us, cause)
        for gap in self._gaps[symbol]:
            if gap.start_us < end_us and start_us < gap.end_us:
                gap.given_up = reason
                gap.changes += 1
                self._change(gap)

    def adopt(self, gaps: Sequence[Gap]) -> None:
        """Go on with gaps that an ended streamer left, which the caller has claimed.

        Those of a symbol that is streamed again may be known: by their row, or, where that is just
        being written, by their range.
        """
        known = [one for of_symbol in self._gaps.values() for one in of_symbol]
        rows = {row for one in known for row in one.rows}
        ranges = {(one.symbol, one.start_us, one.end_us) for one in known}
        new = [
            gap
            for gap in gaps
            if _row_of(gap) not in rows and (gap.symbol, gap.start_us, gap.end_us) not in ranges
        ]
        taken_back = self._given_up & Counter(map(_row_of, new))
        self._given_up -= taken_back
        self.opened += len(new) - taken_back.total()  # those were counted as opened before
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
        failures = 0
        looked_s = _now_s()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await self._wake.wait()
            await asyncio.sleep(WRITE_INTERVAL_S)
            self._wake.clear()
            try:
                await self._write()
                if _now_s() - looked_s >= POLL_INTERVAL_S:
                    looked_s = _now_s()
                    await self._look()
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
        """Write what is left, for a clean stop; the next start finds what is missing anyway."""
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
        for first in range(0, len(changed), BATCH):
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._write_batch(changed[first : first + BATCH])

    async def _write_batch(self, batch: Sequence[OpenGap]) -> None:
        connection = await self._connected()
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
                for one in gap.rows
            ],
        )
        left = [gap for gap in batch if gap.given_up is not None and gap not in proven]
        await leave_gaps_async(
            connection, [LeftGap(one, gap.detail) for gap in left for one in gap.rows]
        )
        for gap in batch:
            if gap.changes != seen[gap]:  # it went on meanwhile: the next round writes it
                if gap in proven:
                    gap.written = None  # as another row: this one is closed
                continue
            del self._changed[gap]
            if gap.proven_s is not None:
                self._forget(gap)
                self.closed += 1
            elif gap.given_up is not None:
                self._forget(gap)
                self._leave(gap)

    async def _look(self) -> None:
        """Forget gaps that the table proves filled: by somebody else, or before they were noted.

        Those that it lacks, as a server does that took over, are opened once more.
        """
        open_gaps = [gap for gaps in self._gaps.values() for gap in gaps if gap.rows]
        seen = {gap: gap.changes for gap in open_gaps}
        given_up = list(self._given_up)[:BATCH]
        rows = sorted({one for gap in open_gaps for one in gap.rows})
        if not rows and not given_up:
            return
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            connection = await self._connected()
            closed, gone = await close_proven_gaps_async(connection, rows, others=given_up)
        for gap, changes in seen.items():
            if not gone.isdisjoint(gap.rows):
                gap.rows = [one for one in gap.rows if one not in gone]
                gap.written = None
                gap.changes += 1
                self._change(gap)
            elif gap.changes == changes and gap not in self._changed and closed >= {*gap.rows}:
                self._forget(gap)
                self.closed += 1
        for one in given_up:
            gaps = self._given_up.pop(one, 0)  # 0: taken back meanwhile
            if one in closed or one in gone:
                self.closed += gaps
            elif gaps:
                self._given_up[one] = gaps  # behind the others, whose turn is next

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
            # where it could not be widened a row of the whole range is opened beside it
            gap.written = bounds[gap] if gap.rows[-1] in done else None
        await self._open(connection, [gap for gap in grown if gap.written is None])

    def _forget(self, gap: OpenGap) -> None:
        gaps = self._gaps[gap.symbol]
        gaps.remove(gap)
        if not gaps:
            del self._gaps[gap.symbol]

    def _leave(self, gap: OpenGap) -> None:
        """Its row is of all that it missed; ``_look`` finds when others have closed it."""
        if len(self._given_up) < MAX_GIVEN_UP:
            self._given_up[gap.rows[-1]] += 1

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


def _row_of(gap: Gap) -> GapRow:
    return GapRow(gap.symbol, gap.id, gap.opened_at_us)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
