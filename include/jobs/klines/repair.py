"""Repair minutes that the live path missed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass

import structlog

from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.domain.instruments import Market, market_of
from include.errors import PermanentError
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.jobs.klines.minutes import fetch_minutes
from include.jobs.klines.pieces import LoadCounts
from include.jobs.klines.repairs import Repairs
from include.store.candles.merging import Connection
from include.store.ledgers.gaps import (
    Gap,
    claim_gaps,
    close_gap,
    close_proven_gaps,
    release_gap,
)
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RepairSummary:
    """Result of a round of repairs.

    Attributes:
        repaired, left: gaps closed, and gaps released for another attempt.
        counts: rows and outages.
    """

    repaired: int
    left: int
    counts: LoadCounts


def repair_minutes(
    *,
    settings: Settings,
    symbol: str,
    start_us: int,
    end_us: int,
    database_url: str | None = None,
) -> LoadCounts:
    """Fetch the candles of a range and merge them.

    Args:
        start_us, end_us: half-open range of open times; only minutes that closed 30 s ago count.
        database_url: of the caller's role; None for the jobs' own.

    Raises:
        TransientError, RateLimitedError: retry later; complete minutes of the range are stored
            nevertheless.
        PermanentError: the exchange does not know the symbol, or a setting is wrong.
    """
    repairs = Repairs(settings, database_url or settings.url_for("jobs"))
    try:
        return repairs.repair(symbol, start_us, end_us)
    finally:
        repairs.close()


def repair_gaps(
    *, settings: Settings, worker: str, older_than_s: float = 600.0, limit: int = 100
) -> RepairSummary:
    """Repair open gaps that no other worker has claimed.

    A gap that the exchange cannot fill (unknown symbol) is released with the reason, and so is a
    gap that is still incomplete. Gaps whose minutes are all stored are closed without a request.

    Args:
        worker: name for the claim, such as the run's id.
        older_than_s: the streamer repairs younger gaps.
        limit: maximum gaps of one call.

    Raises:
        TransientError: exchange or database is away; remaining claims expire.
    """
    url = settings.url_for("jobs")
    total, repaired, left = LoadCounts(), 0, 0
    with connect(url, application_name=APPLICATION_NAME) as connection:
        by_market: dict[Market, list[Gap]] = defaultdict(list)
        repaired = close_proven_gaps(connection)
        gaps = claim_gaps(connection, worker=worker, older_than_s=older_than_s, limit=limit)
        for gap in gaps:
            by_market[market_of(gap.symbol)].append(gap)
        for market, some in by_market.items():
            with open_shared_rest(settings, market, url) as rest:
                for gap in some:
                    counts = _repair(connection, rest, gap)
                    is_whole = counts is not None and counts.pending_minutes == 0
                    repaired, left = repaired + is_whole, left + (not is_whole)
                    total += counts or LoadCounts()
    positive = {name: count for name, count in asdict(total).items() if count}
    log.info("gaps_repaired", repaired=repaired, left=left, **positive)
    return RepairSummary(repaired, left, total)


def _repair(connection: Connection, rest: BinanceRest, gap: Gap) -> LoadCounts | None:
    """Repair one claimed gap; None if the exchange refuses its symbol."""
    try:
        counts = fetch_minutes(
            connection, rest, symbol=gap.symbol, start_us=gap.start_us, end_us=gap.end_us
        )
    except PermanentError as error:
        log.warning("gap_not_repairable", gap=gap.id, symbol=gap.symbol, error=str(error))
        release_gap(connection, gap.id, detail={"error": str(error)})
        return None
    detail = {"rows": counts.offered, "outage_minutes": counts.outage_minutes}
    if counts.pending_minutes:
        release_gap(connection, gap.id, detail={**detail, "pending": counts.pending_minutes})
    else:
        close_gap(connection, gap.id, detail=detail)
    return counts
