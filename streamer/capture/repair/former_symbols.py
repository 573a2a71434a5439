"""Also check symbols that an earlier process captured and that no longer trade.

That process may have been killed before it had fetched their last trades, and this one captures
only symbols that trade. The registry knows which do not. If they have recent rows, their last ids
are read, so that ``ExpectedTrades`` compares them with the candles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from include.domain.timeframes import DAY_US
from include.errors import PermanentError, TransientError
from include.store.instruments import symbols_not_trading
from include.store.postgres.pools import connect
from include.store.trades.captured import RAW_TABLES
from include.store.trades.ids import last_rows
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

POLL_INTERVAL_S = 30.0
FREQUENT_CHECKS = 20
"""Successful checks after a start; within these ten minutes the registry is synchronised."""
LATER_INTERVAL_S = 3_600.0
MAX_CALL_S = 60.0
RECENT_US = 2 * DAY_US
"""Age of rows that are checked at each start, in µs."""


class FormerSymbols:
    """Symbols with captured rows that do not trade and are not captured now.

    Args:
        database_url: PostgreSQL with the registry and the rows.
        datasets: whose rows are looked up.
        is_captured: whether a symbol is captured now.
        since_us: rows of days before this exchange time are ignored.
        now_us: the exchange's time.
        resume: receives symbols whose last ids are to be read.
    """

    def __init__(
        self,
        database_url: str,
        datasets: Sequence[str],
        *,
        is_captured: Callable[[str], bool],
        since_us: Callable[[], int],
        now_us: Callable[[], int],
        resume: Callable[[Sequence[str]], object],
    ) -> None:
        self._url = database_url
        self._datasets = datasets
        self._is_captured = is_captured
        self._since_us = since_us
        self._now_us = now_us
        self._resume = resume
        self._symbols: dict[str, int | None] = {}
        """Each with the exchange's time at which it did not trade; None once it trades again."""

    def __contains__(self, symbol: str) -> bool:
        return self._symbols.get(symbol) is not None

    def drop_if_trading(self, symbol: str, end_us: int) -> bool:
        """Drop a symbol with a candle that ended after it was found; return whether it was dropped.

        It trades again, and another streamer may capture it.
        """
        found_us = self._symbols.get(symbol)
        if found_us is None or end_us <= found_us:
            return False
        self._symbols[symbol] = None
        return True

    async def run(self) -> None:
        """Check often after the start, then hourly, until cancelled."""
        checks = 0
        while True:
            try:
                await self.check()
                checks += 1
            except (TransientError, PermanentError, TimeoutError) as error:
                reason = str(error) or f"hangs for {MAX_CALL_S:g} s"
                log.info("former_symbols_not_read", error=reason)
            is_early = checks < FREQUENT_CHECKS
            await asyncio.sleep(POLL_INTERVAL_S if is_early else LATER_INTERVAL_S)

    async def check(self) -> None:
        """Look up the symbols once.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL failed.
        """
        async with asyncio.timeout(MAX_CALL_S):
            found = await in_thread(partial(self._found, self._since_us()), name="capture_former")
        if found:
            log.info("former_symbols_checked", symbols=found)
            self._symbols.update(dict.fromkeys(found, self._now_us()))
            self._resume(found)

    def _found(self, since_us: int) -> list[str]:
        with connect(self._url, application_name="candelabra-capture") as connection:
            candidates = [
                one
                for one in symbols_not_trading(connection)
                if one not in self._symbols and not self._is_captured(one)
            ]
            with_rows: set[str] = set()
            for dataset in self._datasets if candidates else ():
                with_rows |= last_rows(connection, RAW_TABLES[dataset], candidates, since_us).keys()
        return sorted(with_rows)
