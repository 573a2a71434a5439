"""Candles on their way to PostgreSQL: batched, bounded, tried again.

Settled candles are never dropped silently: when the buffer is full because PostgreSQL is
away, the oldest ones are handed back as minutes to ask REST for, which costs two integers a
symbol instead of a row a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from include.backoff import Backoff
from include.domain.candles import CandleCandidate
from include.domain.timeframes import MINUTE_US, from_us
from include.errors import PermanentError, TransientError
from include.store.candles.live import LiveCandle, write_live_async
from include.store.candles.merging import store_async
from include.store.postgres.pools import connect_async, is_about_the_schema, ping_async
from streamer.candles.aggregation import SymbolAggregator
from streamer.runtime.heartbeat import Heartbeat
from streamer.runtime.histogram import Histogram

log = structlog.get_logger(__name__)

LIVE_INTERVAL_S = 0.25
"""Open candles are written at most this often."""
LIVE_SYMBOLS = 50
"""Symbols of one such statement: to prepare it holds up the event loop for 0.3 to 0.4 ms."""
BACKOFF = Backoff(first_s=0.4, max_s=10.0, min_s=0.05)
CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 60.0
"""Of one batch: a statement that waits longer (a lock, a frozen disk) is given up and repeated."""
PING_INTERVAL_S = 5.0
"""While nothing is written: how soon a database that went away is noticed."""
BATCH_ROWS = (1, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
WRITE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)


@dataclass(slots=True)
class Away:
    """A time in which PostgreSQL did not do as it was asked, by the loop's clock.

    Attributes:
        written: rows written before it.
        back_s: when it did again.
    """

    since_s: float
    written: int
    back_s: float | None = None


class CandleWriter:
    """Writes settled candles and the open ones.

    Args:
        database_url: of the role candelabra_streamer.
        aggregators: asked for their live candles.
        batch_size: rows of one write.
        flush_timeout_s: longest wait before a write.
        buffer_rows: rows kept while PostgreSQL is away.
        on_overflow: given symbol, start, end (µs) and cause of minutes that had to leave.
        on_written: given what is in the table by now.
        on_back: told when the database is back, and all is written that was held.
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
        on_written: Callable[[Sequence[CandleCandidate]], None] = lambda _offers: None,
        on_back: Callable[[], None] = lambda: None,
    ) -> None:
        self.written = 0
        self.overflowed = 0
        self.refused = 0
        self.failures = 0
        self.batch_rows = Histogram(BATCH_ROWS)
        self.write_seconds = Histogram(WRITE_SECONDS)
        self.pulse = Heartbeat()
        self._url = database_url
        self._aggregators = aggregators
        self._batch_size = batch_size
        self._flush_timeout_s = flush_timeout_s
        self.buffer_rows = buffer_rows
        self._on_overflow = on_overflow
        self._on_written = on_written
        self._on_back = on_back
        self._offers: deque[CandleCandidate] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._was_connected = False
        self._is_torn = False
        """Whether a write was cancelled: its statement may be under way on the connection still."""
        self._away: Away | None = None
        self._connection: psycopg.AsyncConnection | None = None
        self._last_live_s = float("-inf")
        self._answered_s: float | None = None

    @property
    def waiting(self) -> int:
        """Settled candles not written yet."""
        return len(self._offers)

    @property
    def answer_age_s(self) -> float | None:
        """Seconds since the database last did as it was asked; None while it is away."""
        if self._connection is None or self._connection.closed or self._answered_s is None:
            return None
        return asyncio.get_running_loop().time() - self._answered_s

    def add(self, offer: CandleCandidate) -> None:
        """Take a settled candle."""
        self._offers.append(offer)
        self._keep_bound()
        self._wake.set()

    def hurry(self) -> None:
        """Minutes are over: show that at once, whatever was written last."""
        self._last_live_s = float("-inf")
        self._wake.set()

    def _keep_bound(self) -> None:
        while len(self._offers) > self.buffer_rows:
            oldest = self._offers.popleft().candle
            self.overflowed += 1
            self._on_overflow(
                oldest.symbol,
                oldest.open_time_us,
                oldest.open_time_us + MINUTE_US,
                "buffer full while the database was away",
            )

    async def run(self) -> None:
        """Write until cancelled."""
        failures = 0
        while True:
            self.pulse.beat(self._flush_timeout_s + WRITE_TIMEOUT_S)
            # asyncio.timeout, not wait_for: in Python 3.11 that one loses a cancel that comes in
            # the very moment in which its call ends, and the streamer would never stop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_timeout_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                async with self._writing:
                    await self._write_once()
                failures = 0
                self._tell_caught_up()
            except (TransientError, TimeoutError) as error:
                failures += 1
                self.failures += 1
                self._note_away()
                await self._disconnect()
                wait_s = BACKOFF.wait_s(failures)
                log.warning(
                    "write_postponed",
                    error=str(error) or type(error).__name__,
                    waiting=len(self._offers),
                    retry_in_s=round(wait_s, 2),
                )
                self.pulse.beat(wait_s)
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                self._is_torn = True
                raise

    async def settled(self) -> None:
        """Wait until a write that has begun is over: none shows then who left before the call."""
        async with self._writing:
            pass

    async def flush(self) -> None:
        """Write all that is left, for a clean stop.

        Raises:
            TransientError: the database is away; what is left is fetched at the next start.
        """
        if self._is_torn:
            await self._disconnect()
            self._is_torn = False
        while self._offers:
            await self._write_once()
        if self._connection is not None:
            await self._write_live(force=True)
        await self._disconnect()

    async def _write_once(self) -> None:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.closed:
            await self._connect()
            self._answered_s = loop.time()
        await self._write_settled()
        await self._write_live()
        await self._ping()

    async def _write_settled(self) -> None:
        loop = asyncio.get_running_loop()
        while self._offers:
            # Taken out first: an overflow during the write must not take them a second time.
            size = min(self._batch_size, len(self._offers))
            batch = [self._offers.popleft() for _ in range(size)]
            began_s = loop.time()
            self.pulse.beat(WRITE_TIMEOUT_S)
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._settle(batch)
            except (TransientError, TimeoutError, asyncio.CancelledError):
                self._offers.extendleft(reversed(batch))
                self._keep_bound()
                raise
            self._answered_s = loop.time()
            self.written += len(batch)
            if self._away is not None and self._away.back_s is None:
                self._away.back_s = loop.time()
            self.batch_rows.observe(len(batch))
            self.write_seconds.observe(self._answered_s - began_s)

    async def _connect(self) -> None:
        try:
            self._connection = await connect_async(
                self._url, application_name="candelabra-streamer", timeout_s=CONNECT_TIMEOUT_S
            )
        except PermanentError as error:
            if not self._was_connected:
                raise
            # It was let in before: a restore, a failover or a change of passwords goes on.
            raise TransientError(str(error)) from error
        self._was_connected = True

    def _note_away(self) -> None:
        if self._away is None:
            self._away = Away(asyncio.get_running_loop().time(), self.written)
        self._away.back_s = None

    def _tell_caught_up(self) -> None:
        """Once all is written that was held."""
        away, self._away = self._away, None
        if away is None:
            return
        now_s = asyncio.get_running_loop().time()
        back_s = now_s if away.back_s is None else away.back_s
        log.info(
            "caught_up",
            away_s=round(back_s - away.since_s, 1),
            catch_up_s=round(now_s - back_s, 2),
            rows=self.written - away.written,
        )
        self._on_back()

    async def _settle(self, batch: Sequence[CandleCandidate]) -> None:
        """Write a batch; a row that PostgreSQL refuses does not take its neighbours with it."""
        connection = self._connected()
        try:
            await store_async(connection, batch)
        except PermanentError as error:
            if is_about_the_schema(error):
                raise TransientError(str(error)) from error
            if len(batch) == 1:
                self.refused += 1
                candle = batch[0].candle
                log.error(  # noqa: TRY400 - the message says it all
                    "candle_refused",
                    symbol=candle.symbol,
                    open_time=from_us(candle.open_time_us).isoformat(),
                    error=str(error),
                )
                start_us = candle.open_time_us
                self._on_overflow(
                    candle.symbol, start_us, start_us + MINUTE_US, "refused by the database"
                )
                return
            middle = len(batch) // 2
            await self._settle(batch[:middle])
            await self._settle(batch[middle:])
        else:
            self._on_written(batch)

    async def _write_live(self, *, force: bool = False) -> None:
        now_s = asyncio.get_running_loop().time()
        if not force and now_s - self._last_live_s < LIVE_INTERVAL_S:
            return
        self._last_live_s = now_s
        dirty = [aggregator for aggregator in self._aggregators() if aggregator.is_dirty]
        for first in range(0, len(dirty), LIVE_SYMBOLS):
            if len(self._offers) >= LIVE_SYMBOLS:
                await self._write_settled()  # many wait; a few can, until all open ones are shown
            await self._write_live_of(dirty[first : first + LIVE_SYMBOLS])

    async def _write_live_of(self, aggregators: Sequence[SymbolAggregator]) -> None:
        rows = []
        for aggregator in aggregators:
            aggregator.is_dirty = False
            rows += [
                LiveCandle(candle, is_closed=is_closed, has_quotes=aggregator.quotes_fold)
                for candle, is_closed in aggregator.live_candles()
            ]
        if not rows:
            return
        self.pulse.beat(WRITE_TIMEOUT_S)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await write_live_async(self._connected(), rows)
            self._answered_s = asyncio.get_running_loop().time()
        except (TransientError, TimeoutError, asyncio.CancelledError):
            for aggregator in aggregators:
                aggregator.is_dirty = True
            raise
        except PermanentError as error:
            # Open candles are shown, not kept: the next state comes in a moment.
            log.warning("live_candles_refused", rows=len(rows), error=str(error))

    async def _ping(self) -> None:
        """Ask for a sign of life where nothing was written for a while."""
        age_s = self.answer_age_s
        if age_s is not None and age_s > PING_INTERVAL_S:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await ping_async(self._connected())
            self._answered_s = asyncio.get_running_loop().time()

    def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None:
            raise TransientError("no database connection")
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
