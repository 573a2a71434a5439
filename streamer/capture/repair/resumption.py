"""Continue after the stored rows, for the first symbols and for symbols added later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.instruments import Market, market_of
from include.domain.timeframes import DAY_US
from include.errors import PermanentError, TransientError
from include.store.postgres.pools import connect
from include.store.trades.captured import (
    BOOK_TICKERS,
    DEPTH_DIFFS,
    DEPTH_SNAPSHOTS,
    LIQUIDATIONS,
    RAW_TABLES,
    TRADES,
)
from include.store.trades.ids import (
    MAX_MISSING_RANGES,
    MissingIdRange,
    first_rows,
    last_rows,
    missing_ids,
    stored_ids,
)
from streamer.capture.intake.ids import MissingRange
from streamer.capture.intake.rows import Intake
from streamer.capture.repair.missing_ids import NOT_RUNNING
from streamer.capture.spool.losses import Loss, Losses
from streamer.capture.spool.spool import Spool
from streamer.runtime.supervisor import run_together
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=1.0, max_s=30.0, min_s=0.1)
POLL_S = 0.5
MAX_CALL_S = 600.0
"""Timeout for reading a day's ids of all symbols; beyond it PostgreSQL hangs."""


NEVER_SERVED = frozenset(
    {BOOK_TICKERS.name, LIQUIDATIONS.name, DEPTH_DIFFS.name, DEPTH_SNAPSHOTS.name}
)
FUTURES_ONLY = frozenset({LIQUIDATIONS.name})


def is_streamed(dataset: str, market: Market) -> bool:
    """Whether the exchange has this dataset for a market."""
    return dataset not in FUTURES_ONLY or market.is_futures


def cannot_be_requested(dataset: str, market: Market) -> bool:
    """Whether the exchange cannot serve past rows of this dataset by id."""
    return dataset in NEVER_SERVED or (dataset == TRADES.name and market.is_futures)


class CaptureResumption:
    """Reads the stored rows of symbols when they join.

    Rows with ids show what is missing. Other rows are lost between the last row of an earlier
    process and the first row that arrives now. This is recorded on disk as an open loss before the
    first row is stored, because the process may be killed at any moment. The open loss is closed
    once the table and the rows waiting on disk can be read.

    Args:
        delivers_since_us: since when (wall clock) the exchange delivers a dataset of a symbol; None
            while it does not, 0 if unknown.
        now_us: wall clock.
        on_read: receives the dataset and the last stored rows by symbol, as id and time (µs).
    """

    def __init__(
        self,
        database_url: str,
        datasets: Sequence[str],
        intake: Intake,
        spool: Spool,
        losses: Losses,
        *,
        delivers_since_us: Callable[[str, str], int | None],
        now_us: Callable[[], int],
        on_read: Callable[[str, Mapping[str, tuple[int, int]]], None] = lambda *_: None,
    ) -> None:
        self._url = database_url
        self._datasets = datasets
        self._intake = intake
        self._spool = spool
        self._losses = losses
        self._delivers_since_us = delivers_since_us
        self._now_us = now_us
        self._on_read = on_read
        self._joined: dict[str, int] = {}
        """Symbols whose earlier rows have not been read, and when they joined: µs after the start.
        """
        self._has_joined = asyncio.Event()
        self._own: set[Loss] = set()
        """Open losses that this process recorded; others belong to ended processes."""
        self.since_us = 0
        """Time since which rows are read and missing ids are requested."""
        self._lookback_us = self._check_since_us = 0
        self._complete_until_us: int | None = None
        self._began_us = self._exchange_began_us = 0
        self._has_begun = self._is_cut_short = False

    @property
    def is_complete(self) -> bool:
        """Whether all missing rows of the symbols that joined are known."""
        return self._has_begun and not self._joined and not self._is_cut_short

    def begin(
        self, *, exchange_us: int, lookback_us: int, complete_until_us: int | None = None
    ) -> None:
        """Record the time of the start.

        Args:
            exchange_us: the exchange's time.
            lookback_us: how far back rows are read.
            complete_until_us: up to when earlier processes knew all that is missing; None if
                unknown. Rows of that day and of the next are read as well, because the last such
                process ended soon after.
        """
        self._began_us, self._exchange_began_us = self._now_us(), exchange_us
        self.since_us = min(self._began_us, exchange_us) - lookback_us
        self._lookback_us, self._check_since_us = lookback_us, self.since_us
        self._complete_until_us = complete_until_us
        self._has_begun = True

    def join(self, symbols: Sequence[str]) -> None:
        """Start reading the rows of these symbols."""
        after_us = self.read_rows(symbols)
        opened = [
            Loss(dataset, symbol, NOT_RUNNING, None, self._clock_us(dataset, after_us))
            for dataset in self._datasets
            for symbol in symbols
            if cannot_be_requested(dataset, market_of(symbol))
            and is_streamed(dataset, market_of(symbol))
            # The next snapshot of a book replaces those that nobody took.
            and dataset != DEPTH_SNAPSHOTS.name
        ]
        self._losses.add(opened)
        self._own.update(opened)

    def read_rows(self, symbols: Sequence[str]) -> int:
        """Start reading the rows of these symbols, of which no further rows may arrive.

        Returns:
            µs since the start.
        """
        after_us = self._now_us() - self._began_us
        self._joined |= dict.fromkeys(symbols, after_us)
        self._has_joined.set()
        return after_us

    def check_again(self, symbols: Sequence[str]) -> None:
        """Read the rows of these symbols again as a start would: PostgreSQL may have lost some.

        If all rows since then were read before, the ids that earlier processes missed are known.
        Reading those days again would only find ids that wait to be requested or were given up.
        """
        if self.is_complete:
            self._complete_until_us = None
        after_us = self._now_us() - self._began_us
        now_us = min(self._began_us, self._exchange_began_us) + after_us
        self._check_since_us = now_us - self._lookback_us
        self._joined |= dict.fromkeys(symbols, after_us)
        self._has_joined.set()

    def is_done(self, symbol: str) -> bool:
        """Whether the rows of a symbol have been read."""
        return symbol not in self._joined

    async def run(self) -> None:
        """Read until cancelled."""
        await run_together(_retry(self._check_back), _retry(self._close), name="capture_resumption")

    # --- inside

    async def _check_back(self) -> None:
        """Read the last stored ids, and the missing ids before them."""
        await self._has_joined.wait()
        loop = asyncio.get_running_loop()
        joined = dict(self._joined)
        for dataset in self._datasets:
            requestable = [
                name for name in joined if not cannot_be_requested(dataset, market_of(name))
            ]
            if not requestable:
                continue
            async with asyncio.timeout(MAX_CALL_S):
                last, missing = await in_thread(
                    partial(self._stored, dataset, requestable), name="capture_start"
                )
            self._on_read(dataset, last)
            async with asyncio.timeout(MAX_CALL_S):
                missing += await in_thread(
                    partial(self._missing_earlier, dataset, requestable), name="capture_start"
                )
            if len(missing) >= MAX_MISSING_RANGES:
                self._is_cut_short = True  # the next start finds more
            for symbol, (number, moment_us) in last.items():
                self._intake.sequence(dataset, symbol).resume(number, moment_us, loop.time())
            for missing_range in missing:
                self._intake.sequence(dataset, missing_range.symbol).miss(
                    MissingRange(
                        missing_range.first_id,
                        missing_range.last_id,
                        missing_range.from_us,
                        missing_range.to_us,
                        loop.time(),
                    )
                )
            log.info(
                "capture_resumed", table=dataset, symbols=len(last), missing_ranges=len(missing)
            )
        for name, after_us in joined.items():
            if self._joined.get(name) == after_us:
                del self._joined[name]
        if not self._joined:
            self._has_joined.clear()

    async def _close(self) -> None:
        """Set the start and end of open losses."""
        await asyncio.sleep(POLL_S)
        # Rows waiting on disk arrived before, and are not lost.
        if not self._losses.open or not self._spool.is_empty:
            return
        ends = {loss: self._end_us(loss) for loss in self._losses.open}
        known = {loss: end_us for loss, end_us in ends.items() if end_us is not None}
        if not known:
            return
        async with asyncio.timeout(MAX_CALL_S):
            spans, last = await in_thread(partial(self._spans, known), name="capture_start")
        for dataset, rows in last:
            self._on_read(dataset, rows)
        for loss, (start_us, end_us) in spans.items():
            self._losses.close(loss, start_us, end_us)
            self._own.discard(loss)

    def _end_us(self, loss: Loss) -> int | None:
        """Return the latest time at which rows arrive again; None while they do not."""
        if loss not in self._own:
            return loss.to_us
        since_us = self._delivers_since_us(loss.dataset, loss.symbol)
        if since_us is None:
            return None
        return max(loss.to_us, self._clock_us(loss.dataset, since_us - self._began_us))

    def _clock_us(self, dataset: str, after_us: int) -> int:
        """Return a time (µs) after the start: the exchange's for trades, else time of receipt."""
        is_receipt = RAW_TABLES[dataset].time_column == "received_at"
        return (self._began_us if is_receipt else self._exchange_began_us) + after_us

    def _stored(
        self, dataset: str, symbols: Sequence[str]
    ) -> tuple[dict[str, tuple[int, int]], list[MissingIdRange]]:
        """Read the last rows of symbols, however old, and the ids that are missing before them."""
        table = RAW_TABLES[dataset]
        with connect(self._url, application_name="candelabra-capture") as connection:
            last, missing_ranges = stored_ids(connection, table, symbols, self._check_since_us)
            others = [symbol for symbol in symbols if symbol not in last]
            return last | last_rows(connection, table, others, None), missing_ranges

    def _missing_earlier(self, dataset: str, symbols: Sequence[str]) -> list[MissingIdRange]:
        """Return ids that earlier processes had not yet detected as missing when they ended."""
        from_us = self._complete_until_us
        if from_us is None or from_us >= self._check_since_us:
            return []
        with connect(self._url, application_name="candelabra-capture") as connection:
            return missing_ids(connection, RAW_TABLES[dataset], symbols, from_us, from_us + DAY_US)

    def _spans(
        self, losses: Mapping[Loss, int]
    ) -> tuple[dict[Loss, tuple[int | None, int]], list[tuple[str, dict[str, tuple[int, int]]]]]:
        """Return the times of the last row before losses (None if there is none) and the first one
        after; and the last rows themselves by dataset and symbol.

        Args:
            losses: each with its latest end.
        """
        spans: dict[Loss, tuple[int | None, int]] = {}
        read: list[tuple[str, dict[str, tuple[int, int]]]] = []
        own, complete_until_us = self._own.copy(), self._complete_until_us
        together: dict[tuple[str, int], list[Loss]] = {}
        for loss in losses:
            together.setdefault((loss.dataset, loss.to_us), []).append(loss)
        with connect(self._url, application_name="candelabra-capture") as connection:
            for (dataset, until_us), some in together.items():
                table, symbols = RAW_TABLES[dataset], [loss.symbol for loss in some]
                last = last_rows(connection, table, symbols, None, before_us=until_us)
                read.append((dataset, last))
                first = first_rows(connection, table, list(last), until_us)
                for loss in some:
                    start_us = last[loss.symbol][1] if loss.symbol in last else None
                    if start_us is None and dataset == LIQUIDATIONS.name:
                        # Most symbols have none for days, captured or not.
                        start_us = complete_until_us
                    end_us = first.get(loss.symbol, losses[loss])
                    # For ended processes the table is the only source.
                    spans[loss] = (start_us, min(end_us, losses[loss]) if loss in own else end_us)
        return spans, read


async def _retry(step: Callable[[], Awaitable[None]]) -> None:
    """Run a step until cancelled; wait after a failure."""
    loop = RetryLoop(
        BACKOFF,
        # Permanent errors too: an operator may grant the privilege later.
        retry_on=(TransientError, PermanentError, TimeoutError),
        on_retry=partial(log.warning, "capture_resume_postponed"),
        timeout_text=f"no answer within {MAX_CALL_S:g} s",
    )
    await loop.run(step)
