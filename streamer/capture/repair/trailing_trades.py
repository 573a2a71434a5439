"""Fetch the last trades of symbols that have stopped trading.

Missing trades before a halt show by the ids of the first trade after it. No id follows the last
trade of a delisted symbol, and a halted symbol looks the same. So later trades are requested from
the exchange until it answers that there are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from include.domain.instruments import market_of
from include.domain.timeframes import HOUR_US
from include.jobs.trades.by_id import Tail
from streamer.capture.intake.ids import IdSequence, MissingRange
from streamer.runtime.rest_queue import (
    Failures,
    RestCalls,
    RestQueue,
    RestRequest,
    RetryLaterError,
)

log = structlog.get_logger(__name__)

POLL_S = 0.5
REST_DELAY_S = 5.0
"""Delay of the first request; REST has the last trades by then."""
PACE_S = 0.5
"""Pause between two requests: all symbols of a market may halt together, and nothing is urgent."""
MAX_S = 86_400.0
"""Seconds of retries while the exchange fails; equals the default lookback of a start."""
PROOFS = 2
"""Answers without a further trade that end the requests: a single one may come from a lagging
cache."""
TRADES_AGAIN_US = HOUR_US
"""Time after the stop, in µs; a later trade shows that the symbol trades again."""


@dataclass(slots=True)
class _Pending:
    """A symbol whose later trades are to be requested.

    Attributes:
        stopped_us: when the symbol was found not to trade.
        due_s: earliest time of the next request; monotonic.
        until_s: end of the attempts if the exchange fails; monotonic.
        proofs: consecutive answers without later trades.
    """

    stopped_us: int
    due_s: float
    until_s: float
    failures: Failures = field(default_factory=Failures)
    proofs: int = 0


class TrailingTrades:
    """Fetches the trades after the last captured ones of symbols that do not trade.

    Args:
        sequences: ids by dataset and symbol.
        is_known: whether a symbol's stored rows have been read, so that its last id is known.
        fetch: receives dataset, symbol, id and time (µs) of the last known trade; blocking. Raises
            TransientError to retry later, PermanentError if the exchange does not serve them.
        on_given_up: receives dataset, symbol, the trades that may be missing and the reason.
        calls: timeout, retries and refusals, shared by all requests.
    """

    def __init__(
        self,
        sequences: Mapping[tuple[str, str], IdSequence],
        is_known: Callable[[str], bool],
        fetch: Callable[[str, str, int, int], Tail],
        on_given_up: Callable[[str, str, MissingRange, str], None],
        calls: RestCalls,
    ) -> None:
        self.filled_rows = 0
        self._sequences = sequences
        self._is_known = is_known
        self._fetch = fetch
        self._on_given_up = on_given_up
        self._calls = calls
        self._pending: dict[tuple[str, str], _Pending] = {}
        self._round: Iterator[tuple[tuple[str, str], _Pending]] = iter(())
        """Symbols not visited yet in this round; each gets one request."""

    @property
    def waiting(self) -> int:
        """Number of symbols and datasets with pending requests."""
        return len(self._pending)

    def is_pending(self, dataset: str, symbol: str) -> bool:
        """Whether requests for a symbol are pending."""
        return (dataset, symbol) in self._pending

    def stopped(self, dataset: str, symbol: str, stopped_us: int) -> None:
        """Request the last trades of a symbol that stopped trading by this exchange time (µs)."""
        now_s = asyncio.get_running_loop().time()
        self._pending[dataset, symbol] = _Pending(stopped_us, now_s + REST_DELAY_S, now_s + MAX_S)

    async def run(self) -> None:
        """Request trades until cancelled."""
        await RestQueue(self._calls, self._request_due, poll_s=POLL_S, pause_s=PACE_S).run()

    def _request_due(self, now_s: float) -> RestRequest[Tail] | None:
        for (dataset, symbol), pending in self._round:
            if pending.due_s > now_s or not self._is_known(symbol):
                continue
            sequence = self._sequences.get((dataset, symbol))
            if sequence is None or sequence.highest is None:
                self._done(dataset, symbol, pending)  # no row of the symbol was ever captured
                continue
            after = sequence.highest, sequence.highest_us
            refusal = self._calls.refusal_by(market_of(symbol), now_s)
            if refusal is None:
                return self._request(dataset, symbol, pending, after)
            if now_s >= pending.until_s:
                self._give_up(dataset, symbol, pending, after, refusal.reason)
        self._round = iter(list(self._pending.items()))
        return None

    def _request(
        self, dataset: str, symbol: str, pending: _Pending, after: tuple[int, int]
    ) -> RestRequest[Tail]:
        loop = asyncio.get_running_loop()
        source = dataset, symbol, pending
        return RestRequest(
            market_of(symbol),
            pending.failures,
            fetch=lambda: self._fetch(dataset, symbol, *after),
            is_past=lambda: loop.time() >= pending.until_s,
            on_fetched=partial(self._fetched, *source, after[0]),
            on_retry=partial(self._postpone, *source, after[0]),
            on_given_up=partial(self._give_up, *source, after),
        )

    def _postpone(
        self, dataset: str, symbol: str, pending: _Pending, after_id: int, retry: RetryLaterError
    ) -> None:
        if retry.is_overdue:
            log.warning(
                "trades_overdue",
                table=dataset,
                symbol=symbol,
                first_id=after_id + 1,
                error=str(retry),
            )
        if not retry.is_refused:  # a refusal pauses the market, not this symbol
            pending.due_s = asyncio.get_running_loop().time() + retry.wait_s
        log.info(
            "tail_postponed",
            table=dataset,
            symbol=symbol,
            error=str(retry),
            attempt=pending.failures.exchange,
            retry_in_s=round(retry.wait_s, 1),
        )

    def _fetched(
        self, dataset: str, symbol: str, pending: _Pending, after_id: int, tail: Tail
    ) -> None:
        self.filled_rows += tail.counts.written
        sequence = self._sequences[dataset, symbol]
        sequence.advance(tail.last_id, tail.last_us)
        log.info(
            "tail_fetched",
            table=dataset,
            symbol=symbol,
            last_id=tail.last_id,
            written=tail.counts.written,
            void=tail.counts.void,
        )
        pending.proofs = pending.proofs + 1 if tail.last_id == after_id else 0
        if tail.last_us > pending.stopped_us + TRADES_AGAIN_US:
            self._done(dataset, symbol, pending)
        elif pending.proofs >= PROOFS:
            sequence.prove(tail.last_id)
            self._done(dataset, symbol, pending)
        else:
            pending.due_s = asyncio.get_running_loop().time() + REST_DELAY_S

    def _give_up(
        self, dataset: str, symbol: str, pending: _Pending, after: tuple[int, int], reason: str
    ) -> None:
        self._done(dataset, symbol, pending)
        last_id, last_us = after
        missing_range = MissingRange(
            last_id + 1, last_id, last_us, max(last_us, pending.stopped_us)
        )
        self._on_given_up(dataset, symbol, missing_range, reason)

    def _done(self, dataset: str, symbol: str, pending: _Pending) -> None:
        if (
            self._pending.get((dataset, symbol)) is pending
        ):  # otherwise the symbol has stopped again
            del self._pending[dataset, symbol]
