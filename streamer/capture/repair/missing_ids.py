"""Fetch missing trades of raw capture by id until they are stored or given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from include.binance.rest.client import MAX_TRADES
from include.domain.instruments import market_of
from include.domain.timeframes import from_us
from include.jobs.trades.by_id import FetchCounts
from streamer.capture.intake.ids import IdSequence, MissingRange
from streamer.capture.repair.trade_calls import trade_calls
from streamer.runtime.rest_queue import (
    Failures,
    RestCalls,
    RestQueue,
    RestRequest,
    RetryLaterError,
)

log = structlog.get_logger(__name__)

POLL_S = 0.5
ABSENT = "the exchange passes over these ids"
REUSED = "the ticker was given to another instrument"
NOT_RUNNING = "nobody captured"
MAX_IDS_AT_ONCE = 50 * MAX_TRADES
"""Maximum ids of one request. The last ids of a longer range are requested first: the exchange may
not serve the older ones."""


@dataclass
class MissingIdsQueue:
    """Requests the missing ids of all sequences, one range after the other.

    Attributes:
        sequences: ids by dataset and symbol.
        fetch: receives dataset, symbol, first and last id, and the time of a later trade (µs);
            blocking. Raises TransientError to retry later, PermanentError if the exchange does not
            serve the ids.
        on_given_up: receives dataset, symbol, the missing ids and the reason.
        horizon_us: how far back a start reads rows. Older parts of a long range are not requested.
            If the exchange fails or refuses for long, ids that a start at that time would skip are
            given up as well.
        calls: timeout, retries and refusals, shared by all requests.
    """

    sequences: Mapping[tuple[str, str], IdSequence]
    fetch: Callable[[str, str, int, int, int], FetchCounts]
    on_given_up: Callable[[str, str, MissingRange, str], None]
    horizon_us: Callable[[], int] = lambda: 0
    calls: RestCalls = field(default_factory=trade_calls)
    filled_rows: int = 0
    given_up: int = 0
    _in_flight: tuple[str, str, MissingRange] | None = None
    _failures: Failures = field(default_factory=Failures)
    """Failures of the current request; those of PostgreSQL count over all ranges."""
    _round: Iterator[tuple[tuple[str, str], IdSequence]] = field(default_factory=lambda: iter(()))
    """Sequences not visited yet in this round; each gets one request."""
    _began_s: float = 0.0
    """Monotonic time at which requests began."""

    @property
    def missing(self) -> list[tuple[str, str, MissingRange]]:
        """Return missing ids that are not given up, by dataset and symbol.

        They include ids being requested and losses not reported yet.
        """
        missing_ranges = [
            (dataset, symbol, missing_range)
            for (dataset, symbol), sequence in self.sequences.items()
            for missing_range in sequence.missing
        ]
        return missing_ranges if self._in_flight is None else [*missing_ranges, self._in_flight]

    @property
    def waiting_ids(self) -> int:
        """Number of missing ids, including ids being requested."""
        missing_ranges = [
            missing_range
            for sequence in self.sequences.values()
            for missing_range in sequence.missing_ranges
        ]
        if self._in_flight is not None:
            missing_ranges.append(self._in_flight[2])
        return sum(missing_range.ids for missing_range in missing_ranges)

    async def run(self) -> None:
        """Request missing ids until cancelled."""
        self._began_s = asyncio.get_running_loop().time()
        await RestQueue(self.calls, self._request_due, poll_s=POLL_S).run()

    def _request_due(self, now_s: float) -> RestRequest[FetchCounts] | None:
        for (dataset, symbol), sequence in self._round:
            for lost in sequence.take_lost():
                self._give_up(dataset, symbol, lost, REUSED)
            if not sequence.missing_ranges:
                continue
            refusal = self.calls.refusal_by(market_of(symbol), now_s)
            if refusal is not None:
                if refusal.is_lasting:
                    self._let_go(dataset, symbol, sequence, refusal.reason)
                continue
            missing_range = sequence.take_due(now_s, MAX_TRADES)
            if missing_range is not None:
                return self._request(dataset, symbol, sequence, missing_range)
        self._round = iter(list(self.sequences.items()))
        return None

    def _request(
        self, dataset: str, symbol: str, sequence: IdSequence, missing_range: MissingRange
    ) -> RestRequest[FetchCounts]:
        self._in_flight = (dataset, symbol, missing_range)
        self._failures.exchange = missing_range.attempts
        first_id = max(missing_range.first_id, missing_range.last_id + 1 - MAX_IDS_AT_ONCE)
        source = dataset, symbol, sequence, missing_range
        return RestRequest(
            market_of(symbol),
            self._failures,
            fetch=lambda: self.fetch(
                dataset, symbol, first_id, missing_range.last_id, missing_range.to_us
            ),
            is_past=lambda: self._is_past(missing_range),
            on_fetched=partial(self._fetched, *source, first_id),
            on_retry=partial(self._postpone, *source),
            on_given_up=partial(self._give_up, dataset, symbol, missing_range),
            on_cancelled=partial(self._put_back, sequence, missing_range),
        )

    def _put_back(self, sequence: IdSequence, missing_range: MissingRange) -> None:
        self._in_flight = None
        sequence.miss(missing_range)

    def _fetched(
        self,
        dataset: str,
        symbol: str,
        sequence: IdSequence,
        missing_range: MissingRange,
        first_id: int,
        counts: FetchCounts,
    ) -> None:
        self._in_flight = None
        self.filled_rows += counts.written
        next_id = missing_range.last_id + 1 if counts.next_id is None else counts.next_id
        log.info(
            "trades_fetched",
            table=dataset,
            symbol=symbol,
            first_id=first_id,
            last_id=next_id - 1,
            written=counts.written,
            void=counts.void,
        )
        if counts.absent:
            absent = replace(missing_range, first_id=first_id, last_id=first_id + counts.absent - 1)
            self.on_given_up(dataset, symbol, absent, ABSENT)
        if next_id <= missing_range.last_id:
            # It failed after some pages; their success makes it a new request.
            sequence.miss(replace(missing_range, first_id=next_id, not_before_s=0.0, attempts=0))
        if missing_range.first_id < first_id:
            self._go_back(dataset, symbol, sequence, missing_range, first_id, counts.first_us)

    def _go_back(
        self,
        dataset: str,
        symbol: str,
        sequence: IdSequence,
        missing_range: MissingRange,
        first_id: int,
        first_us: int | None,
    ) -> None:
        """Record the ids before the fetched ones as missing, or give them up if they are too old.

        ``first_us`` is the time (µs) of the first fetched trade.
        """
        to_us = missing_range.to_us if first_us is None else first_us
        before = replace(
            missing_range, last_id=first_id - 1, to_us=to_us, not_before_s=0.0, attempts=0
        )
        if to_us < self.horizon_us():
            self._give_up(dataset, symbol, before, NOT_RUNNING)
        else:
            sequence.miss(before)

    def _postpone(
        self,
        dataset: str,
        symbol: str,
        sequence: IdSequence,
        missing_range: MissingRange,
        retry: RetryLaterError,
    ) -> None:
        missing_range.attempts = self._failures.exchange
        if retry.is_overdue:
            log.warning(
                "trades_overdue",
                table=dataset,
                symbol=symbol,
                first_id=missing_range.first_id,
                last_id=missing_range.last_id,
                since=from_us(missing_range.from_us).isoformat(),
                error=str(retry),
            )
        missing_range.not_before_s = asyncio.get_running_loop().time() + retry.wait_s
        self._put_back(sequence, missing_range)
        log.info(
            "trades_postponed",
            table=dataset,
            symbol=symbol,
            error=str(retry),
            attempt=missing_range.attempts,
            retry_in_s=round(retry.wait_s, 1),
        )

    def _let_go(self, dataset: str, symbol: str, sequence: IdSequence, reason: str) -> None:
        """Give up ids that are too old, oldest first, without a request for each."""
        while sequence.missing_ranges and self._is_past(sequence.missing_ranges[0]):
            self._give_up(dataset, symbol, sequence.missing_ranges.pop(0), reason)

    def _is_past(self, missing_range: MissingRange) -> bool:
        """Whether a start now would skip the range."""
        now_s = asyncio.get_running_loop().time()
        return missing_range.to_us < self.horizon_us() + (now_s - self._began_s) * 1e6

    def _give_up(self, dataset: str, symbol: str, missing_range: MissingRange, reason: str) -> None:
        if self._in_flight is not None and self._in_flight[2] is missing_range:
            self._in_flight = None
        self.given_up += missing_range.ids
        log.error(
            "trades_not_fetched",
            table=dataset,
            symbol=symbol,
            first_id=missing_range.first_id,
            last_id=missing_range.last_id,
            since=from_us(missing_range.from_us).isoformat(),
            reason=reason,
        )
        self.on_given_up(dataset, symbol, missing_range, reason)
