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

import psycopg
import structlog

from include.backoff import Backoff
from include.domain.candles import Offer
from include.domain.timeframes import MINUTE_US, from_us
from include.errors import PermanentError, TransientError
from include.store.live import LiveCandle, settle_async, write_live_async
from include.store.pools import connect_async
from streamer.aggregation import SymbolAggregator

log = structlog.get_logger(__name__)

LIVE_INTERVAL_S = 0.25
"""Open candles are written at most this often."""
BACKOFF = Backoff(first_s=0.4, most_s=10.0, least_s=0.05)
CONNECT_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 60.0


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
        on_written: Callable[[Sequence[Offer]], None] = lambda _offers: None,
    ) -> None:
        self.written = 0
        self.overflowed = 0
        self._url = database_url
        self._aggregators = aggregators
        self._batch_size = batch_size
        self._flush_timeout_s = flush_timeout_s
        self._buffer_rows = buffer_rows
        self._on_overflow = on_overflow
        self._on_written = on_written
        self._offers: deque[Offer] = deque()
        self._wake = asyncio.Event()
        self._connection: psycopg.AsyncConnection | None = None
        self._last_live_s = 0.0

    @property
    def waiting(self) -> int:
        """Settled candles not written yet."""
        return len(self._offers)

    def add(self, offer: Offer) -> None:
        """Take a settled candle."""
        self._offers.append(offer)
        self._keep_bound()
        self._wake.set()

    def _keep_bound(self) -> None:
        while len(self._offers) > self._buffer_rows:
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
            # asyncio.timeout, not wait_for: in Python 3.11 that one loses a cancel that comes in
            # the very moment in which its call ends, and the streamer would never stop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_timeout_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._write_once()
                failures = 0
            except (TransientError, TimeoutError) as error:
                failures += 1
                await self._disconnect()
                wait_s = BACKOFF.wait_s(failures)
                log.warning(
                    "write_postponed",
                    error=str(error) or type(error).__name__,
                    waiting=len(self._offers),
                    retry_in_s=round(wait_s, 2),
                )
                await asyncio.sleep(wait_s)

    async def flush(self) -> None:
        """Write all that is left, for a clean stop.

        Raises:
            TransientError: the database is away; what is left is fetched at the next start.
        """
        while self._offers:
            await self._write_once()
        if self._connection is not None:
            await self._write_live(force=True)
        await self._disconnect()

    async def _write_once(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await connect_async(
                self._url, application_name="candelabra-streamer", timeout_s=CONNECT_TIMEOUT_S
            )
        while self._offers:
            # Taken out first: an overflow during the write must not take them a second time.
            size = min(self._batch_size, len(self._offers))
            batch = [self._offers.popleft() for _ in range(size)]
            try:
                await self._settle(batch)
            except (TransientError, asyncio.CancelledError):
                self._offers.extendleft(reversed(batch))
                self._keep_bound()
                raise
            self.written += len(batch)
        await self._write_live()

    async def _settle(self, batch: Sequence[Offer]) -> None:
        """Write a batch; a row that PostgreSQL refuses does not take its neighbours with it."""
        connection = self._connected()
        try:
            await settle_async(connection, batch)
        except PermanentError as error:
            if len(batch) == 1:
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
        rows = []
        for aggregator in dirty:
            aggregator.is_dirty = False
            rows += [
                LiveCandle(candle, is_closed=is_closed, has_quotes=aggregator.quotes_fold)
                for candle, is_closed in aggregator.live_candles()
            ]
        if not rows:
            return
        try:
            await write_live_async(self._connected(), rows)
        except (TransientError, asyncio.CancelledError):
            for aggregator in dirty:
                aggregator.is_dirty = True
            raise
        except PermanentError as error:
            # Open candles are shown, not kept: the next state comes in a moment.
            log.warning("live_candles_refused", rows=len(rows), error=str(error))

    def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None:
            raise TransientError("no database connection")
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
