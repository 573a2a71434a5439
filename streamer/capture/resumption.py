"""Going on from what the tables have: for the first symbols, and for those that join later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from include.backoff import Backoff
from include.domain.instruments import Market, market_of
from include.errors import PermanentError, TransientError
from include.store.pools import connect
from include.store.raw import BOOK_TICKERS, RAW_TABLES, TRADES
from include.store.raw_ids import IdHole, last_rows, stored_ids
from streamer.capture.holes import NOT_RUNNING
from streamer.capture.ids import Hole
from streamer.capture.intake import Intake
from streamer.capture.losses import Loss, Losses
from streamer.capture.spool import Spool
from streamer.threads import in_thread

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first_s=1.0, most_s=30.0, least_s=0.1)
SPOOL_POLL_S = 0.5
MOST_CALL_S = 600.0
"""For the ids of a day of all symbols; longer than that, PostgreSQL hangs."""


def cannot_be_asked(dataset: str, market: Market) -> bool:
    """Whether the exchange serves no past rows of it by id."""
    return dataset == BOOK_TICKERS.name or (dataset == TRADES.name and market is Market.UM)


class Resumption:
    """Looks at the stored rows of symbols that join, once for each joining.

    Args:
        now_us: wall clock.
    """

    def __init__(
        self,
        database_url: str,
        datasets: Sequence[str],
        intake: Intake,
        spool: Spool,
        losses: Losses,
        *,
        now_us: Callable[[], int],
    ) -> None:
        self._url = database_url
        self._datasets = datasets
        self._intake = intake
        self._spool = spool
        self._losses = losses
        self._now_us = now_us
        self._joined: dict[str, int] = {}
        """Symbols whose earlier rows have not been looked at, and when they joined: µs after
        the start."""
        self._has_joined = asyncio.Event()
        self.since_us = 0
        """Rows since then are looked at, and what is missing since then is asked for."""
        self._began_us = self._exchange_began_us = 0

    def begin(self, *, exchange_us: int, lookback_us: int) -> None:
        """Note the time of the start.

        Args:
            exchange_us: the exchange's time.
            lookback_us: how far back rows are looked at.
        """
        self._began_us, self._exchange_began_us = self._now_us(), exchange_us
        self.since_us = min(self._began_us, exchange_us) - lookback_us

    def join(self, symbols: Sequence[str]) -> None:
        """Look at the rows of these."""
        after_us = self._now_us() - self._began_us
        self._joined |= dict.fromkeys(symbols, after_us)
        self._has_joined.set()

    def is_done(self, symbol: str) -> bool:
        """Whether the rows of a symbol have been looked at."""
        return symbol not in self._joined

    async def run(self) -> None:
        """Look until cancelled."""
        failures = 0
        while True:
            await self._has_joined.wait()
            joined = dict(self._joined)
            try:
                await self._look_back(list(joined), min(joined.values(), default=0))
            except (TransientError, PermanentError, TimeoutError) as error:
                failures += 1  # a right that is missing may be granted yet
                wait_s = BACKOFF.wait_s(failures, error)
                log.warning(
                    "capture_resume_postponed",
                    error=str(error) or f"hangs for {MOST_CALL_S:g} s",
                    retry_in_s=round(wait_s),
                )
                await asyncio.sleep(wait_s)
                continue
            failures = 0
            for name, after_us in joined.items():
                if self._joined.get(name) == after_us:
                    del self._joined[name]
            if not self._joined:
                self._has_joined.clear()

    # --- inside

    async def _look_back(self, symbols: Sequence[str], after_us: int) -> None:
        """Ids after the last stored ones and those missing between; what nobody captured.

        Args:
            after_us: how long after the start of this process they joined.
        """
        loop = asyncio.get_running_loop()
        for dataset in self._datasets:
            asked = [name for name in symbols if self._is_asked(dataset, name)]
            if not asked:
                continue
            async with asyncio.timeout(MOST_CALL_S):
                last, missing = await in_thread(
                    partial(self._stored, dataset, asked), name="capture_start"
                )
            for symbol, (number, moment_us) in last.items():
                self._intake.sequence(dataset, symbol).resume(number, moment_us, loop.time())
            for hole in missing:
                self._intake.sequence(dataset, hole.symbol).miss(
                    Hole(hole.first_id, hole.last_id, hole.from_us, hole.to_us, loop.time())
                )
            log.info("capture_resumed", table=dataset, symbols=len(last), holes=len(missing))
        # What waits on the disk was captured before this start, and is no loss.
        while not self._spool.is_empty:  # noqa: ASYNC110 - another thread empties it
            await asyncio.sleep(SPOOL_POLL_S)
        for dataset in self._datasets:
            async with asyncio.timeout(MOST_CALL_S):
                lost = await in_thread(
                    partial(self._not_captured, dataset, symbols, after_us), name="capture_start"
                )
            self._losses.add(lost)

    def _stored(
        self, dataset: str, symbols: Sequence[str]
    ) -> tuple[dict[str, tuple[int, int]], list[IdHole]]:
        """Last rows of symbols, however old, and ids that are missing before them."""
        table = RAW_TABLES[dataset]
        with connect(self._url, application_name="candelabra-capture") as connection:
            last, holes = stored_ids(connection, table, symbols, self.since_us)
            others = [symbol for symbol in symbols if symbol not in last]
            return last | last_rows(connection, table, others, None), holes

    def _not_captured(self, dataset: str, joined: Sequence[str], after_us: int) -> list[Loss]:
        """What came about between the last row of an earlier time and the joining of symbols."""
        symbols = [name for name in joined if not self._is_asked(dataset, name)]
        if not symbols:
            return []
        # Quotes bear the time of their receipt, trades the exchange's.
        is_quotes = dataset == BOOK_TICKERS.name
        began_us = (self._began_us if is_quotes else self._exchange_began_us) + after_us
        with connect(self._url, application_name="candelabra-capture") as connection:
            last = last_rows(connection, RAW_TABLES[dataset], symbols, None, before_us=began_us)
        return [
            Loss(dataset, symbol, NOT_RUNNING, moment_us, began_us)
            for symbol, (_, moment_us) in last.items()
        ]

    def _is_asked(self, dataset: str, symbol: str) -> bool:
        return not cannot_be_asked(dataset, market_of(symbol))
