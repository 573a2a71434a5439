"""Fetch minutes by REST, merge them, and distinguish outages from minutes not served yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from include.backoff import Backoff
from include.binance.rest.client import BinanceRest
from include.binance.rest.klines import KlinePage, final_until
from include.binance.rest.weights import klines_rows
from include.domain.candles import CandleCandidate, Source, Status
from include.domain.instruments import exchange_symbol_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.jobs.klines.pieces import LoadCounts, Ranges, gaps_in, minutes_in, ranges_of
from include.store.candles.live import remove_closed_live
from include.store.candles.merging import Connection
from include.store.candles.minutes import (
    MergeCounts,
    merge_candidates,
    missing_minutes,
    read_candles,
)
from include.store.ledgers.files import add_coverage, read_outages, record_outage

log = structlog.get_logger(__name__)

OnMerged = Callable[[Sequence[CandleCandidate]], None]

INTERVAL = "1m"
OUTAGE_CAUSE = "the exchange has no candle"

HALT_IS_SURE_US = 5 * MINUTE_US
"""REST lags by seconds: a symbol without a row for this long is halted, not late."""

PAGES_A_MERGE = 5
"""Pages merged together; the overhead of a transaction equals a thousand rows."""

ROWS_BEYOND = 99
"""Rows requested beyond a gap. Pages may lack their last rows; requests of fewer than 100 rows cost
the least weight in both markets."""

HALT_RETRIES = 3
"""Repeated requests whose equal answers prove a halt. A lagging server may lack the last row before
a halt or return it unfinished, so one answer is not enough."""
BACKOFF = Backoff(first_s=1.0, max_s=2.0, min_s=0.5)


@dataclass(slots=True)
class _Answers:
    """Accumulated answers of REST for one range."""

    merged: MergeCounts = field(default_factory=MergeCounts)
    waiting: list[CandleCandidate] = field(default_factory=list)
    """Rows of the last pages, not merged yet."""
    ranges: Ranges = field(default_factory=list)
    pages: int = 0
    server_time_us: int = 0
    is_over: bool = True
    """Whether REST has rows after the range, or answered for the whole range."""
    unsure_us: int | None = None
    """Open time of the last row, which a lagging server may have sent unfinished."""

    def doubt(self, page: KlinePage) -> None:
        """Remember a page's last row if it is not proven final."""
        if not page.is_last_final and page.candles:
            self.unsure_us = page.candles[-1].open_time_us

    def sure_until_us(self, end_us: int) -> int:
        """Return the end of the part of a range whose rows are proven final."""
        answered_us = self.ranges[-1][1] if self.ranges else 0
        if self.unsure_us is None or self.unsure_us < answered_us:
            return end_us  # a later answer has confirmed that row
        return min(self.unsure_us, end_us)


def fetch_minutes(
    connection: Connection,
    rest: BinanceRest,
    *,
    symbol: str,
    start_us: int,
    end_us: int,
    on_merged: OnMerged = lambda _candidates: None,
) -> LoadCounts:
    """Fetch the candles of a range by REST, merge them, and record outages of the exchange.

    A minute without a row is

    - an outage, if the exchange has a row before the minute and either has one after it, or has had
      none for several minutes (a halt that continues);
    - ignored, if it is before the symbol's first row;
    - pending otherwise: its row may still come.

    A page may lack its last rows, so only rows after a gap prove the gap. Without such rows, a halt
    is recorded after several equal answers, and never for minutes before a stored row.

    The last row of a page is not proven final either: a lagging server returns the open minute with
    the trades so far. A row is final if another one follows it in the same answer, if it is older
    than any lag, or, before a halt, if several answers minutes later agree on it. Until then the
    row is not stored, and it and the minutes after it are pending.

    Args:
        start_us, end_us: half-open range of open times.
        on_merged: receives the candidates once they are in the table.

    Raises:
        PermanentError, RateLimitedError, TransientError: as ``BinanceRest.klines``, and of the
            database; rows merged before stay.
    """
    answers = _Answers()
    try:
        _ask(connection, rest, symbol, start_us, end_us, answers, on_merged)
    finally:  # also after a failed page: earlier pages are stored
        _merge(connection, symbol, answers, on_merged)
    remove_closed_live(connection, symbol, start_us, end_us)
    counts = LoadCounts.of(answers.merged, rest_pages=answers.pages)
    ripe_us = max(start_us, min(end_us, minute_of(final_until(answers.server_time_us))))
    sure_us = answers.sure_until_us(ripe_us)
    for gap in gaps_in(answers.ranges, start_us, sure_us):
        counts += _classify_missing(connection, rest, symbol, gap, answers)
    late = missing_minutes(connection, symbol, sure_us, ripe_us, unsure=True)
    pending = (end_us - ripe_us) // MINUTE_US + minutes_in(late)
    return counts + LoadCounts(pending_minutes=pending)


def _ask(
    connection: Connection,
    rest: BinanceRest,
    symbol: str,
    start_us: int,
    end_us: int,
    answers: _Answers,
    on_merged: OnMerged,
) -> None:
    """Page through a range; if a page proves nothing, request rows beyond the range."""
    name = exchange_symbol_of(symbol)
    cursor = start_us
    while cursor < end_us:
        limit = klines_rows(rest.market, (end_us - cursor) // MINUTE_US)
        page = rest.klines(name, INTERVAL, cursor, end_us, limit=limit, with_next=True)
        answers.pages += 1
        answers.server_time_us = page.server_time_us
        answers.doubt(page)
        if not page.sure and not page.is_followed:
            page = _fetch_beyond(connection, rest, symbol, page, cursor, end_us)
            answers.doubt(page)
            answers.is_over = page.is_followed or bool(page.candles)
        found = [one for one in page.sure if one.open_time_us < end_us]
        answers.waiting += [
            CandleCandidate(candle, Status.VERIFIED, Source.REST, answers.server_time_us)
            for candle in found
        ]
        answers.ranges += ranges_of(candle.open_time_us for candle in found)
        if answers.pages % PAGES_A_MERGE == 0:
            _merge(connection, symbol, answers, on_merged)
        if page.is_followed or not found:
            break
        cursor = found[-1].open_time_us + MINUTE_US


def _fetch_beyond(
    connection: Connection,
    rest: BinanceRest,
    symbol: str,
    page: KlinePage,
    start_us: int,
    end_us: int,
) -> KlinePage:
    """Request rows from the start of a page that is empty or has one unproven row.

    If the page is minutes old and still no rows follow, a halt has probably begun: the request is
    repeated several times, and the row is proven final if all answers agree on it.
    """
    answered_us = page.candles[-1].open_time_us + MINUTE_US if page.candles else end_us
    is_old = answered_us <= page.server_time_us - HALT_IS_SURE_US
    # A halt recorded before goes on: no need to prove it again.
    is_new = is_old and (
        bool(page.candles) or not read_outages(connection, symbol, start_us - MINUTE_US, start_us)
    )
    retries = HALT_RETRIES if is_new else 0
    attempt, is_agreed = 0, is_old
    while True:
        beyond = rest.klines(
            exchange_symbol_of(symbol), INTERVAL, start_us, None, limit=ROWS_BEYOND
        )
        attempt += 1
        if beyond.sure or beyond.is_followed:
            return beyond
        is_agreed = is_agreed and beyond.candles == page.candles
        if attempt > retries:
            return replace(beyond, is_last_final=is_agreed)
        time.sleep(BACKOFF.wait_s(attempt))


def _merge(connection: Connection, symbol: str, answers: _Answers, on_merged: OnMerged) -> None:
    """Store the waiting rows, and record that REST has answered for their minutes."""
    candidates, answers.waiting = answers.waiting, []
    if not candidates:
        return
    minutes = ranges_of(candidate.candle.open_time_us for candidate in candidates)
    record = partial(add_coverage, connection, symbol, Source.REST, minutes)
    answers.merged += merge_candidates(connection, candidates, record=record)
    on_merged(candidates)


def _classify_missing(
    connection: Connection,
    rest: BinanceRest,
    symbol: str,
    gap: tuple[int, int],
    answers: _Answers,
) -> LoadCounts:
    """Classify closed minutes without a row, and record outages."""
    start_us, end_us = gap
    is_over = answers.is_over or any(start >= end_us for start, _ in answers.ranges)
    if not is_over and end_us > answers.server_time_us - HALT_IS_SURE_US:
        return LoadCounts(pending_minutes=minutes_in([gap]))
    stored = ranges_of([one.open_time_us for one in read_candles(connection, symbol, *gap)])
    is_behind = bool(stored) and not is_over
    has_earlier = is_behind or any(end <= start_us for _, end in answers.ranges)
    if not has_earlier:
        page = rest.klines(exchange_symbol_of(symbol), INTERVAL, None, start_us, limit=ROWS_BEYOND)
        if not page.candles:
            return LoadCounts(unlisted_minutes=minutes_in([gap]))
    if stored:
        log.warning(
            "rest_lacks_stored_minutes",
            symbol=symbol,
            start=from_us(stored[0][0]).isoformat(),
            minutes=minutes_in(stored),
        )
    # A stored row after REST's last row shows that REST lags; a halt can only begin after it.
    halted_us = stored[-1][1] if is_behind else start_us
    late = missing_minutes(connection, symbol, start_us, halted_us, unsure=True)
    rowless = gaps_in(stored, halted_us, end_us)  # a minute with a row is no outage
    for first_us, until_us in rowless:
        record_outage(
            connection,
            market=rest.market,
            symbol=symbol,
            start_us=first_us,
            end_us=until_us,
            cause=OUTAGE_CAUSE,
        )
    if rowless:
        add_coverage(connection, symbol, Source.REST, rowless)
        log.info(
            "outage_recorded",
            symbol=symbol,
            start=from_us(rowless[0][0]).isoformat(),
            minutes=minutes_in(rowless),
        )
    return LoadCounts(outage_minutes=minutes_in(rowless), pending_minutes=minutes_in(late))
