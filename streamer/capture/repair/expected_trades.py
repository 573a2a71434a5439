"""Find trades that candles contain and raw capture lacks.

A missing trade shows by the id of the next trade. A symbol may trade once in hours, so a lost last
trade may stay unnoticed for as long. Candles reveal it, because each candle is verified against the
exchange's kline. If a stored candle of a quiet symbol extends beyond its stored trades, later
trades are requested from the exchange, as for a symbol that stopped trading. A lagging server may
answer that there are none. While the candle contradicts the answer, the request is repeated at
growing intervals; in the end a gap is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from include.domain.instruments import Market, market_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.errors import PermanentError, TransientError
from include.store.postgres.pools import connect
from include.store.trades.captured import RAW_TABLES
from include.store.trades.ids import CandleBeyond, Reached, candles_beyond
from streamer.candles.silence import is_due
from streamer.capture.intake.ids import IdSequence, MissingRange
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

POLL_INTERVAL_S = 30.0
"""Interval of the check. A symbol with new trades since the last check is not quiet."""
MAX_CALL_S = 300.0
"""Timeout for reading the last candles of all symbols; beyond it PostgreSQL hangs."""
MAX_CHECKS = {Market.SPOT: 65, Market.UM: 3, Market.CM: 3}
"""Checks of one candle before requests end; a gap is then recorded for spot, after half an hour.
On futures nothing is concluded: that candles there leave out the same fills as aggTrades is known
from recordings only."""
NOT_SERVED = "the exchange's candle tells of trades that it does not serve"


@dataclass(slots=True)
class _Contradiction:
    """A candle that extends beyond the trades, and the number of checks that found it."""

    candle: CandleBeyond
    checks: int = 0


class ExpectedTrades:
    """Finds candles that extend beyond the captured trades.

    Args:
        database_url: PostgreSQL with the candles and the trades.
        sequences: ids by dataset and symbol, for rows that can be refetched by id.
        is_checked: whether a symbol is captured, or was until it stopped trading, and its last
            stored row is known.
        since_us: candles before this time are ignored.
        on_beyond: receives dataset, symbol and the end (µs) of a minute with missing trades, which
            are to be requested from the exchange.
        is_pending: whether a request for a symbol is pending already.
        on_given_up: receives dataset, symbol, the missing trades and the reason, if the exchange
            never returned them.
    """

    def __init__(
        self,
        database_url: str,
        sequences: Mapping[tuple[str, str], IdSequence],
        *,
        is_checked: Callable[[str], bool],
        since_us: Callable[[], int],
        on_beyond: Callable[[str, str, int], None],
        is_pending: Callable[[str, str], bool],
        on_given_up: Callable[[str, str, MissingRange, str], None],
    ) -> None:
        self._url = database_url
        self._sequences = sequences
        self._is_checked = is_checked
        self._since_us = since_us
        self._on_beyond = on_beyond
        self._is_pending = is_pending
        self._on_given_up = on_given_up
        self._before: dict[tuple[str, str], int] = {}
        """Highest ids at the last check."""
        self._contradictions: dict[tuple[str, str], _Contradiction] = {}

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self.check()
            except (TransientError, PermanentError, TimeoutError) as error:
                log.info("candles_not_checked", error=str(error) or f"hangs for {MAX_CALL_S:g} s")

    async def check(self) -> None:
        """Check once; report symbols without new trades since the last check.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL failed.
        """
        before, self._before = self._before, {}
        quiet: dict[str, list[Reached]] = {}
        for (dataset, symbol), sequence in self._sequences.items():
            if sequence.highest is None or not self._is_checked(symbol):
                continue
            self._before[dataset, symbol] = sequence.highest
            if before.get((dataset, symbol)) == sequence.highest:
                last = Reached(symbol, sequence.highest, sequence.highest_us)
                quiet.setdefault(dataset, []).append(last)
        for dataset, reached in quiet.items():
            async with asyncio.timeout(MAX_CALL_S):
                beyond = await in_thread(
                    partial(self._beyond, dataset, reached), name="capture_evidence"
                )
            for one in reached:
                if (candle := beyond.get(one.symbol)) is None:
                    self._contradictions.pop((dataset, one.symbol), None)
                elif not self._is_pending(dataset, one.symbol):
                    self._request_later(dataset, one, candle)

    def _request_later(self, dataset: str, last: Reached, candle: CandleBeyond) -> None:
        """Request later trades of a symbol if the next request is due."""
        symbol, end_us = last.symbol, candle.open_us + MINUTE_US
        contradiction = self._contradictions.get((dataset, symbol))
        if contradiction is None or contradiction.candle != candle:
            contradiction = self._contradictions[dataset, symbol] = _Contradiction(candle)
        contradiction.checks += 1
        market = market_of(symbol)
        if contradiction.checks == MAX_CHECKS[market] and market is Market.SPOT:
            missing_range = MissingRange(last.last_id + 1, last.last_id, last.last_us, end_us)
            self._on_given_up(dataset, symbol, missing_range, NOT_SERVED)
        elif contradiction.checks < MAX_CHECKS[market] and is_due(contradiction.checks):
            minute = from_us(candle.open_us).isoformat()
            log.info("trades_unseen", table=dataset, symbol=symbol, minute=minute)
            self._on_beyond(dataset, symbol, end_us)

    def _beyond(self, dataset: str, reached: list[Reached]) -> dict[str, CandleBeyond]:
        since_us = minute_of(self._since_us())
        with connect(self._url, application_name="candelabra-capture") as connection:
            return candles_beyond(connection, RAW_TABLES[dataset], reached, since_us)
