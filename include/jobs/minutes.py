"""Minutes by REST: fetch, merge, and tell outages from minutes that are not there yet."""

from __future__ import annotations

import structlog

from include.binance.klines import settled_until
from include.binance.rest import BinanceRest
from include.binance.weights import BEST_KLINES
from include.domain.candles import Offer, Source, Status
from include.domain.instruments import exchange_symbol_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.jobs.pieces import LoadCounts, Ranges, holes_in, ranges_of
from include.store.candles import MergeCounts, merge_offers
from include.store.ledgers import add_coverage, record_outage
from include.store.live import remove_settled_live
from include.store.merging import Connection

log = structlog.get_logger(__name__)

INTERVAL = "1m"
OUTAGE_CAUSE = "the exchange has no candle"

HALT_IS_SURE_US = 5 * MINUTE_US
"""REST lags by seconds: after so long without any row, a symbol is halted, not late."""


def fetch_minutes(
    connection: Connection, rest: BinanceRest, *, symbol: str, start_us: int, end_us: int
) -> LoadCounts:
    """Ask REST for the candles of a range, merge them, and record what the exchange lacks.

    A minute without a row is an outage where the exchange has a row before it, and one after it
    or none for minutes (a halt that goes on). Before the symbol's first row it is nothing;
    otherwise its row may still come, and it counts as pending.

    Args:
        start_us, end_us: half-open range of open times.

    Raises:
        PermanentError, RateLimitedError, TransientError: as ``BinanceRest.klines``, and of the
            database; what was merged before stays.
    """
    merged = MergeCounts()
    answered: Ranges = []
    pages, server_time_us = 0, 0
    cursor: int | None = start_us
    while cursor is not None and cursor < end_us:
        limit = min(BEST_KLINES[rest.market], (end_us - cursor) // MINUTE_US)
        page = rest.klines(exchange_symbol_of(symbol), INTERVAL, cursor, end_us, limit=limit)
        pages, server_time_us = pages + 1, page.server_time_us
        offers = [
            Offer(candle, Status.VERIFIED, Source.REST, page.server_time_us)
            for candle in page.candles
        ]
        merged += merge_offers(connection, offers)
        found = ranges_of(candle.open_time_us for candle in page.candles)
        add_coverage(connection, symbol, Source.REST, found)
        answered += found
        cursor = page.next_start_us
    remove_settled_live(connection, symbol, start_us, end_us)
    counts = LoadCounts.of(merged, rest_pages=pages)
    ripe_us = max(start_us, min(end_us, minute_of(settled_until(server_time_us))))
    for hole in holes_in(answered, start_us, ripe_us):
        counts += _judge(connection, rest, symbol, hole, answered, server_time_us)
    return counts + LoadCounts(pending_minutes=(end_us - ripe_us) // MINUTE_US)


def _judge(
    connection: Connection,
    rest: BinanceRest,
    symbol: str,
    hole: tuple[int, int],
    answered: Ranges,
    server_time_us: int,
) -> LoadCounts:
    """Tell what settled minutes without a row are, and record an outage."""
    start_us, end_us = hole
    minutes = (end_us - start_us) // MINUTE_US
    name = exchange_symbol_of(symbol)
    has_earlier = any(end <= start_us for _, end in answered) or bool(
        rest.klines(name, INTERVAL, None, start_us, limit=1).candles
    )
    if not has_earlier:
        return LoadCounts(unlisted_minutes=minutes)
    is_over = any(start >= end_us for start, _ in answered) or bool(
        rest.klines(name, INTERVAL, end_us, None, limit=1).candles
    )
    if not is_over and end_us > server_time_us - HALT_IS_SURE_US:
        return LoadCounts(pending_minutes=minutes)
    record_outage(
        connection,
        market=rest.market,
        symbol=symbol,
        start_us=start_us,
        end_us=end_us,
        cause=OUTAGE_CAUSE,
    )
    add_coverage(connection, symbol, Source.REST, [hole])
    log.info(
        "outage_recorded",
        symbol=symbol,
        start=from_us(start_us).isoformat(),
        minutes=minutes,
    )
    return LoadCounts(outage_minutes=minutes)
