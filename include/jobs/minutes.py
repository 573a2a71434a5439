"""Minutes by REST: fetch, merge, and tell outages from minutes that are not there yet."""

from __future__ import annotations

import structlog

from include.binance.klines import settled_until
from include.binance.rest import BinanceRest
from include.binance.weights import BEST_KLINES
from include.domain.candles import Offer, Source, Status
from include.domain.instruments import exchange_symbol_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.jobs.pieces import LoadCounts, Ranges, holes_in, minutes_in, ranges_of
from include.store.candles import MergeCounts, merge_offers
from include.store.ledgers import add_coverage, record_outage
from include.store.merging import Connection

log = structlog.get_logger(__name__)

INTERVAL = "1m"
OUTAGE_CAUSE = "the exchange has no candle"


def fetch_minutes(
    connection: Connection, rest: BinanceRest, *, symbol: str, start_us: int, end_us: int
) -> LoadCounts:
    """Ask REST for the candles of a range, merge them, and record what the exchange lacks.

    A minute without a row is an outage only where the exchange has rows before and after it.
    Otherwise the symbol was not listed yet, or the row may still come; then nothing is recorded.

    Args:
        start_us, end_us: half-open range of open times.

    Raises:
        PermanentError, RateLimitedError, TransientError: as ``BinanceRest.klines``, and of the
            database; what was merged before stays.
    """
    merged = MergeCounts()
    answered: Ranges = []
    pages = 0
    cursor: int | None = start_us
    ripe_us = start_us
    while cursor is not None and cursor < end_us:
        limit = min(BEST_KLINES[rest.market], (end_us - cursor) // MINUTE_US)
        page = rest.klines(exchange_symbol_of(symbol), INTERVAL, cursor, end_us, limit=limit)
        pages += 1
        offers = [
            Offer(candle, Status.VERIFIED, Source.REST, page.server_time_us)
            for candle in page.candles
        ]
        merged += merge_offers(connection, offers)
        found = ranges_of(candle.open_time_us for candle in page.candles)
        add_coverage(connection, symbol, Source.REST, found)
        answered += found
        ripe_us = minute_of(settled_until(page.server_time_us))
        cursor = page.next_start_us
    holes = holes_in(answered, start_us, min(end_us, ripe_us))
    outages = [hole for hole in holes if _is_outage(rest, symbol, hole, answered)]
    for start, end in outages:
        record_outage(
            connection,
            market=rest.market,
            symbol=symbol,
            start_us=start,
            end_us=end,
            cause=OUTAGE_CAUSE,
        )
        log.info(
            "outage_recorded",
            symbol=symbol,
            start=from_us(start).isoformat(),
            minutes=(end - start) // MINUTE_US,
        )
    add_coverage(connection, symbol, Source.REST, outages)
    outage_minutes = minutes_in(outages)
    unanswered = (end_us - start_us) // MINUTE_US - minutes_in(answered) - outage_minutes
    return LoadCounts.of(
        merged,
        rest_pages=pages,
        outage_minutes=outage_minutes,
        unanswered_minutes=unanswered,
    )


def _is_outage(rest: BinanceRest, symbol: str, hole: tuple[int, int], answered: Ranges) -> bool:
    """Whether the exchange has rows on both sides of a hole."""
    start_us, end_us = hole
    name = exchange_symbol_of(symbol)
    has_later = any(start >= end_us for start, _ in answered) or bool(
        rest.klines(name, INTERVAL, end_us, None, limit=1).candles
    )
    if not has_later:
        return False
    return any(end <= start_us for _, end in answered) or bool(
        rest.klines(name, INTERVAL, None, start_us, limit=1).candles
    )
