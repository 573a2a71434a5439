"""Store candles in PostgreSQL: batched, bounded in memory, and retried.

Closed candles are never dropped silently. When the buffer is full because PostgreSQL is away, the
oldest are replaced by requests to REST, which take two integers for each symbol instead of a row
for each minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.candles import CandleCandidate
from include.domain.timeframes import MINUTE_US, from_us
from include.errors import PermanentError, TransientError
from include.store.candles.live import (
    LiveCandle,
    LivePressure,
    rotate_live_async,
    write_live_async,
)
from include.store.candles.merging import store_async
from include.store.postgres.pools import (
    connect_async,
    is_about_the_schema,
    ping_async,
    server_started_async,
)
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.events import BUFFER_FULL, REFUSED_BY_DATABASE
from streamer.runtime.heartbeat import Heartbeat
from streamer.runtime.histogram import Histogram

log = structlog.get_logger(__name__)

LIVE_INTERVAL_S = 0.25
"""Minimum interval between writes of open candles."""
LIVE_SYMBOLS = 50
"""Symbols of one write of open candles; preparing it blocks the event loop for 0.3 to 0.4 ms."""
BACKOFF = Backoff(first_s=0.4, max_s=10.0, min_s=0.05)
CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 60.0
"""Timeout of one batch: a longer statement (a lock, a frozen disk) is cancelled and retried."""
PING_INTERVAL_S = 5.0
"""Interval of the check for a lost database while nothing is written."""
BATCH_ROWS = (1, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
WRITE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)


@dataclass(slots=True)
class DatabaseOutage:
    """A time in which PostgreSQL did not accept writes, by the event loop's clock.

    Attributes:
        written: rows written before it.
        back_s: when writes succeeded again.
    """

    since_s: float
    written: int
    back_s: float | None = None


class CandleWriter:
    """Writes closed and open candles.

    Args:
        database_url: of the role candelabra_streamer.
        aggregators: the aggregators whose open candles are written.
        batch_size: rows of one write.
        flush_timeout_s: longest wait before a write.
        buffer_rows: rows held while PostgreSQL is away.
        on_overflow: called with symbol, start, end (µs) and cause of minutes that were dropped.
        on_stored: called with the candidates of each successful write.
        on_reconnected: called when the database is back and all waiting rows are written.
    """

    def __init__(
        self,
        database_url: str,
        aggregators: Callable[[], Sequence[SymbolAggregator]],
        *,
        batch_size: int,
        flush_timeout_s: float,
        buffer_rows: int,
        on_overflow: Callable[[str, int, int, str], None],
        on_stored: Callable[[Sequence[CandleCandidate]], None] = lambda _candidates: None,
        on_reconnected: Callable[[], None] = lambda: None,
    ) -> None:
        self.written = 0
        self.overflowed = 0
        self.refused = 0
        self.failures = 0
        self.batch_rows = Histogram(BATCH_ROWS)
        self.write_seconds = Histogram(WRITE_SECONDS)
        self.live_pressure: LivePressure | None = None
        self.heartbeat = Heartbeat()
        self._url = database_url
        self._aggregators = aggregators
        self._batch_size = batch_size
        self._flush_timeout_s = flush_timeout_s
        self.buffer_rows = buffer_rows
        self._on_overflow = on_overflow
        self._on_stored = on_stored
        self._on_reconnected = on_reconnected
        self._candidates: deque[CandleCandidate] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._was_connected = False
        self._server_started: datetime | None = None
        self._was_cancelled = False
        """Whether a write was cancelled: its statement may still run on the connection."""
        self._outage: DatabaseOutage | None = None
        self._connection: psycopg.AsyncConnection | None = None
        self._last_live_s = float("-inf")
        self._answered_s: float | None = None

    @property
    def waiting(self) -> int:
        """Number of closed candles not written yet."""
        return len(self._candidates)

    @property
    def answer_age_s(self) -> float | None:
        """Seconds since the database last answered; None while it is away."""
        if self._connection is None or self._connection.closed or self._answered_s is None:
            return None
        return asyncio.get_running_loop().time() - self._answered_s

    def expect_server(self, started: datetime | None) -> None:
        """Set the start time of the server whose rows were read before the first write.

        If another server answers the first write, or the same one after a restart, it may lack
        those rows.
        """
        self._server_started = started

    def enqueue(self, candidate: CandleCandidate) -> None:
        """Queue a closed candle."""
        self._candidates.append(candidate)
        self._drop_overflow()
        self._wake.set()

    def write_now(self) -> None:
        """Write open candles before the usual interval, because minutes have ended."""
        self._last_live_s = float("-inf")
        self._wake.set()

    def _drop_overflow(self) -> None:
        while len(self._candidates) > self.buffer_rows:
            oldest = self._candidates.popleft().candle
            self.overflowed += 1
            start_us = oldest.open_time_us
            self._on_overflow(oldest.symbol, start_us, start_us + MINUTE_US, BUFFER_FULL)

    async def run(self) -> None:
        """Write until cancelled."""
        loop = RetryLoop(BACKOFF, on_failure=self._on_failure, on_retry=self._log_retry)
        await loop.run(self._write_when_due)

    async def _write_when_due(self) -> None:
        self.heartbeat.beat(self._flush_timeout_s + WRITE_TIMEOUT_S)
        # asyncio.timeout rather than wait_for: in Python 3.11 wait_for loses a cancellation that
        # arrives when its call ends, and the streamer would never stop.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._flush_timeout_s):
                await self._wake.wait()
        self._wake.clear()
        try:
            async with self._writing:
                await self._write_once()
            self._report_outage()
        except asyncio.CancelledError:
            self._was_cancelled = True
            raise

    async def _on_failure(self) -> None:
        self.failures += 1
        self._note_outage()
        await self._disconnect()

    def _log_retry(self, *, attempt: int, retry_in_s: float, error: str) -> None:
        log.warning(
            "write_postponed",
            error=error,
            waiting=len(self._candidates),
            attempt=attempt,
            retry_in_s=retry_in_s,
        )
        self.heartbeat.beat(retry_in_s)

    async def wait_for_write(self) -> None:
        """Wait until a running write has ended; later writes do not include removed symbols."""
        async with self._writing:
            pass

    async def flush(self) -> None:
        """Write all waiting candles, for a clean stop.

        Raises:
            TransientError: the database is away; the next start fetches the rest.
        """
        if self._was_cancelled:
            await self._disconnect()
            self._was_cancelled = False
        while self._candidates:
            await self._write_once()
        if self._connection is not None:
            await self._write_live(force=True)
        await self._disconnect()

    async def _write_once(self) -> None:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.closed:
            await self._connect()
            self._answered_s = loop.time()
        await self._write_closed()
        await self._write_live()
        await self._ping()

    async def _write_closed(self) -> None:
        loop = asyncio.get_running_loop()
        while self._candidates:
            # Removed first: an overflow during the write must not drop them a second time.
            size = min(self._batch_size, len(self._candidates))
            batch = [self._candidates.popleft() for _ in range(size)]
            began_s = loop.time()
            self.heartbeat.beat(WRITE_TIMEOUT_S)
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._store(batch)
            except (TransientError, TimeoutError, asyncio.CancelledError):
                self._candidates.extendleft(reversed(batch))
                self._drop_overflow()
                raise
            self._answered_s = loop.time()
            self.written += len(batch)
            if self._outage is not None and self._outage.back_s is None:
                self._outage.back_s = loop.time()
            self.batch_rows.observe(len(batch))
            self.write_seconds.observe(self._answered_s - began_s)

    async def _store(self, batch: Sequence[CandleCandidate]) -> None:
        """Store a batch; split it around a row that PostgreSQL refuses."""
        connection = self._connected()
        try:
            await store_async(connection, batch)
        except PermanentError as error:
            if is_about_the_schema(error):
                raise TransientError(str(error)) from error
            if len(batch) == 1:
                self._refuse(batch[0], error)
                return
            middle = len(batch) // 2
            await self._store(batch[:middle])
            await self._store(batch[middle:])
        else:
            self._on_stored(batch)

    def _refuse(self, candidate: CandleCandidate, error: PermanentError) -> None:
        self.refused += 1
        candle = candidate.candle
        start_us = candle.open_time_us
        log.error(
            "candle_refused",
            symbol=candle.symbol,
            open_time=from_us(start_us).isoformat(),
            error=str(error),
        )
        self._on_overflow(candle.symbol, start_us, start_us + MINUTE_US, REFUSED_BY_DATABASE)

    async def _write_live(self, *, force: bool = False) -> None:
        now_s = asyncio.get_running_loop().time()
        if not force and now_s - self._last_live_s < LIVE_INTERVAL_S:
            return
        self._last_live_s = now_s
        dirty = [aggregator for aggregator in self._aggregators() if aggregator.is_dirty]
        for first in range(0, len(dirty), LIVE_SYMBOLS):
            if len(self._candidates) >= LIVE_SYMBOLS:
                await self._write_closed()  # if few wait, all open candles are written first
            await self._write_live_of(dirty[first : first + LIVE_SYMBOLS])
        if dirty:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                self.live_pressure = await rotate_live_async(self._connected())

    async def _write_live_of(self, aggregators: Sequence[SymbolAggregator]) -> None:
        rows = []
        for aggregator in aggregators:
            aggregator.is_dirty = False
            rows += [
                LiveCandle(candle, is_closed=is_closed, has_quotes=aggregator.quote_volume_is_exact)
                for candle, is_closed in aggregator.live_candles()
            ]
        if not rows:
            return
        self.heartbeat.beat(WRITE_TIMEOUT_S)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await write_live_async(self._connected(), rows)
            self._answered_s = asyncio.get_running_loop().time()
        except (TransientError, TimeoutError, asyncio.CancelledError):
            for aggregator in aggregators:
                aggregator.is_dirty = True
            raise
        except PermanentError as error:
            # Open candles are only for display, and the next state follows soon.
            log.warning("live_candles_refused", rows=len(rows), error=str(error))

    # --- the connection

    async def _connect(self) -> None:
        try:
            self._connection = await connect_async(
                self._url, application_name="candelabra-streamer", timeout_s=CONNECT_TIMEOUT_S
            )
        except PermanentError as error:
            if not self._was_connected:
                raise
            # The login worked before, so a restore, a failover or a password change is in progress.
            raise TransientError(str(error)) from error
        self._was_connected = True
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            started = await server_started_async(self._connection)
        if self._server_started not in {None, started}:
            self._note_outage()
        self._server_started = started

    def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None:
            raise TransientError("no database connection")
        return self._connection

    async def _ping(self) -> None:
        """Check the connection if nothing was written for a while."""
        age_s = self.answer_age_s
        if age_s is not None and age_s > PING_INTERVAL_S:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await ping_async(self._connected())
            self._answered_s = asyncio.get_running_loop().time()

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    def _note_outage(self) -> None:
        if self._outage is None:
            self._outage = DatabaseOutage(asyncio.get_running_loop().time(), self.written)
        self._outage.back_s = None

    def _report_outage(self) -> None:
        """Log the end of an outage once all waiting rows are written."""
        outage, self._outage = self._outage, None
        if outage is None:
            return
        now_s = asyncio.get_running_loop().time()
        back_s = now_s if outage.back_s is None else outage.back_s
        log.info(
            "backlog_written",
            away_s=round(back_s - outage.since_s, 1),
            catch_up_s=round(now_s - back_s, 2),
            rows=self.written - outage.written,
        )
        self._on_reconnected()
