"""Minutes by REST: fetch, merge, and tell outages from minutes that are not there yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from include.backoff import Backoff
from include.binance.klines import settled_until
from include.binance.rest import BinanceRest
from include.binance.weights import BEST_KLINES
from include.domain.candles import Candle, Offer, Source, Status
from include.domain.instruments import exchange_symbol_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.jobs.pieces import LoadCounts, Ranges, holes_in, minutes_in, ranges_of
from include.store.candles import MergeCounts, merge_offers, missing_minutes, read_candles
from include.store.ledgers import add_coverage, read_outages, record_outage
from include.store.live import remove_settled_live
from include.store.merging import Connection

log = structlog.get_logger(__name__)

OnMerged = Callable[[Sequence[Offer]], None]

INTERVAL = "1m"
OUTAGE_CAUSE = "the exchange has no candle"

HALT_IS_SURE_US = 5 * MINUTE_US
"""REST lags by seconds: after so long without any row, a symbol is halted, not late."""

PAGES_A_MERGE = 5
"""Pages merged together: a transaction costs as much as a thousand rows."""

LOOK_ROWS = 99
"""Rows looked for beyond a hole: pages may lack their last ones, and fewer than a hundred cost
the least weight in both markets."""

TIMES_ASKED_AGAIN = 3
"""A server that is behind others lacks the last row before a halt: that nothing lies behind a hole
is believed when it is said so often again."""
BACKOFF = Backoff(first_s=1.0, most_s=2.0, least_s=0.5)


@dataclass(slots=True)
class _Answers:
    """What REST answered so far."""

    merged: MergeCounts = field(default_factory=MergeCounts)
    waiting: list[Offer] = field(default_factory=list)
    """Rows of the last pages, to be merged together."""
    ranges: Ranges = field(default_factory=list)
    pages: int = 0
    server_time_us: int = 0
    is_over: bool = True
    """Whether there are rows behind the range, or it was answered to its end."""


def fetch_minutes(
    connection: Connection,
    rest: BinanceRest,
    *,
    symbol: str,
    start_us: int,
    end_us: int,
    on_merged: OnMerged = lambda _offers: None,
) -> LoadCounts:
    """Ask REST for the candles of a range, merge them, and record what the exchange lacks.

    A minute without a row is an outage where the exchange has a row before it, and one after it
    or none for minutes (a halt that goes on). Before the symbol's first row it is nothing;
    otherwise its row may still come, and it counts as pending. A page may lack its last rows, so
    the end of a page proves nothing: only rows behind a hole do. Where there are none, a halt is
    believed when it is said several times, and never of minutes up to a stored row.

    Args:
        start_us, end_us: half-open range of open times.
        on_merged: given what REST said, once it is in the table.

    Raises:
        PermanentError, RateLimitedError, TransientError: as ``BinanceRest.klines``, and of the
            database; what was merged before stays.
    """
    answers = _Answers()
    try:
        _ask(connection, rest, symbol, start_us, end_us, answers, on_merged)
    finally:  # also where a later page failed: what came before it stays
        _merge(connection, symbol, answers, on_merged)
    remove_settled_live(connection, symbol, start_us, end_us)
    counts = LoadCounts.of(answers.merged, rest_pages=answers.pages)
    ripe_us = max(start_us, min(end_us, minute_of(settled_until(answers.server_time_us))))
    for hole in holes_in(answers.ranges, start_us, ripe_us):
        counts += _judge(connection, rest, symbol, hole, answers)
    return counts + LoadCounts(pending_minutes=(end_us - ripe_us) // MINUTE_US)


def _ask(
    connection: Connection,
    rest: BinanceRest,
    symbol: str,
    start_us: int,
    end_us: int,
    answers: _Answers,
    on_merged: OnMerged,
) -> None:
    """Page through a range; where a page is empty, look beyond the range."""
    name = exchange_symbol_of(symbol)
    cursor = start_us
    while cursor < end_us:
        limit = min(BEST_KLINES[rest.market], (end_us - cursor) // MINUTE_US)
        page = rest.klines(name, INTERVAL, cursor, end_us, limit=limit)
        found = page.candles
        answers.pages += 1
        answers.server_time_us = page.server_time_us
        if not found and not page.unsettled:
            is_old = end_us <= answers.server_time_us - HALT_IS_SURE_US
            # a halt that is known goes on, and is no news
            is_news = is_old and not read_outages(connection, symbol, cursor - MINUTE_US, cursor)
            beyond = _rows_behind(rest, name, cursor, again=TIMES_ASKED_AGAIN if is_news else 0)
            found = [one for one in beyond if one.open_time_us < end_us]
            if not found:
                answers.is_over = bool(beyond)
                break
        answers.waiting += [
            Offer(candle, Status.VERIFIED, Source.REST, answers.server_time_us) for candle in found
        ]
        answers.ranges += ranges_of(candle.open_time_us for candle in found)
        if answers.pages % PAGES_A_MERGE == 0:
            _merge(connection, symbol, answers, on_merged)
        if page.unsettled or not found:
            break
        cursor = found[-1].open_time_us + MINUTE_US


def _rows_behind(rest: BinanceRest, name: str, start_us: int, *, again: int) -> list[Candle]:
    """Rows from an empty page's start on; where there are none, asked again so many times."""
    asked = 0
    while True:
        page = rest.klines(name, INTERVAL, start_us, None, limit=LOOK_ROWS)
        asked += 1
        if page.candles or page.unsettled or asked > again:
            return page.candles
        time.sleep(BACKOFF.wait_s(asked))


def _merge(connection: Connection, symbol: str, answers: _Answers, on_merged: OnMerged) -> None:
    """Store the rows that wait, and that REST has spoken of their minutes."""
    offers, answers.waiting = answers.waiting, []
    if not offers:
        return
    answers.merged += merge_offers(connection, offers)
    minutes = ranges_of(offer.candle.open_time_us for offer in offers)
    add_coverage(connection, symbol, Source.REST, minutes)
    on_merged(offers)


def _judge(
    connection: Connection,
    rest: BinanceRest,
    symbol: str,
    hole: tuple[int, int],
    answers: _Answers,
) -> LoadCounts:
    """Tell what settled minutes without a row are, and record an outage."""
    start_us, end_us = hole
    is_over = answers.is_over or any(start >= end_us for start, _ in answers.ranges)
    if not is_over and end_us > answers.server_time_us - HALT_IS_SURE_US:
        return LoadCounts(pending_minutes=minutes_in([hole]))
    stored = ranges_of([one.open_time_us for one in read_candles(connection, symbol, *hole)])
    is_behind = bool(stored) and not is_over
    has_earlier = is_behind or any(end <= start_us for _, end in answers.ranges)
    if not has_earlier:
        page = rest.klines(exchange_symbol_of(symbol), INTERVAL, None, start_us, limit=LOOK_ROWS)
        if not page.candles:
            return LoadCounts(unlisted_minutes=minutes_in([hole]))
    if stored:
        log.warning(
            "rest_lacks_stored_minutes",
            symbol=symbol,
            start=from_us(stored[0][0]).isoformat(),
            minutes=minutes_in(stored),
        )
    # A stored row with nothing behind it tells that REST is late; a halt can only begin after it.
    halted_us = stored[-1][1] if is_behind else start_us
    late = missing_minutes(connection, symbol, start_us, halted_us, unsure=True)
    rowless = holes_in(stored, halted_us, end_us)  # a minute with a row is no outage
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
