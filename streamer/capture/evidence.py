"""What the candles say was traded, and raw capture does not have.

Missing trades show by the id of the next one. A symbol may trade once in hours, and until then
nothing tells of one that got lost behind its last. Its candles do: each is held to the exchange's
kline. Where a stored candle reaches further than the stored
trades of a symbol that brings no more, the exchange is asked for what it has behind them, as it is
where a symbol has stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.errors import PermanentError, TransientError
from include.store.pools import connect
from include.store.raw import RAW_TABLES
from include.store.raw_ids import CandleBeyond, Reached, candles_beyond
from streamer.capture.ids import IdSequence
from streamer.threads import in_thread

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 30.0
"""A symbol that brought something since the last look is quiet no longer."""
MOST_CALL_S = 300.0
"""For the last candles of all symbols; longer than that, PostgreSQL hangs."""


class CandleEvidence:
    """Looks for candles that reach beyond the captured trades.

    Args:
        database_url: PostgreSQL with the candles and the trades.
        sequences: ids by dataset and symbol, of those that can be asked for by id.
        is_looked_at: whether a symbol is captured, and its last stored row is known.
        since_us: candles before this time are not looked at.
        on_beyond: given dataset, symbol and the end (µs) of a minute in which something was
            traded that did not come.
    """

    def __init__(
        self,
        database_url: str,
        sequences: Mapping[tuple[str, str], IdSequence],
        *,
        is_looked_at: Callable[[str], bool],
        since_us: Callable[[], int],
        on_beyond: Callable[[str, str, int], None],
    ) -> None:
        self._url = database_url
        self._sequences = sequences
        self._is_looked_at = is_looked_at
        self._since_us = since_us
        self._on_beyond = on_beyond
        self._before: dict[tuple[str, str], int] = {}
        """Highest ids at the last look."""
        self._told: dict[tuple[str, str], CandleBeyond] = {}
        """Last candles that were told: what the exchange says then is the last word."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                await self.look()
            except (TransientError, PermanentError, TimeoutError) as error:
                log.info(
                    "candles_not_looked_at", error=str(error) or f"hangs for {MOST_CALL_S:g} s"
                )

    async def look(self) -> None:
        """Look once; tells of symbols without anything new since the last look.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL does not answer as it should.
        """
        before, self._before = self._before, {}
        quiet: dict[str, list[Reached]] = {}
        for (dataset, symbol), sequence in self._sequences.items():
            if sequence.highest is None or not self._is_looked_at(symbol):
                continue
            self._before[dataset, symbol] = sequence.highest
            if before.get((dataset, symbol)) == sequence.highest:
                last = Reached(symbol, sequence.highest, sequence.highest_us)
                quiet.setdefault(dataset, []).append(last)
        for dataset, reached in quiet.items():
            async with asyncio.timeout(MOST_CALL_S):
                beyond = await in_thread(
                    partial(self._beyond, dataset, reached), name="capture_evidence"
                )
            for symbol, candle in beyond.items():
                if self._told.get((dataset, symbol)) != candle:
                    self._told[dataset, symbol] = candle
                    minute = from_us(candle.open_us).isoformat()
                    log.info("trades_unseen", table=dataset, symbol=symbol, minute=minute)
                    self._on_beyond(dataset, symbol, candle.open_us + MINUTE_US)

    def _beyond(self, dataset: str, reached: list[Reached]) -> dict[str, CandleBeyond]:
        since_us = minute_of(self._since_us())
        with connect(self._url, application_name="candelabra-capture") as connection:
            return candles_beyond(connection, RAW_TABLES[dataset], reached, since_us)
