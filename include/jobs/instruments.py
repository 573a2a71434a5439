"""The registry of listings: what the exchange trades, since when, with which filters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from include.config import Settings
from include.domain.instruments import Market
from include.jobs.exchange import open_rest
from include.store.instruments import write_instruments
from include.store.pools import connect

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class InstrumentCounts:
    """What one market's answer brought.

    Attributes:
        seen: instruments in the answer.
        trading: those that trade.
        ended: listings that the answer no longer shows.
    """

    market: str
    seen: int
    trading: int
    ended: int


def sync_instruments(
    *, settings: Settings, markets: Iterable[str] = (Market.SPOT, Market.UM)
) -> list[InstrumentCounts]:
    """Write each market's listings to ``market.instruments``.

    Raises:
        TransientError: the exchange or the database is away.
        PermanentError: the region is blocked, or an answer shows hardly any of the symbols.
    """
    url = settings.url_for("jobs")
    counts = []
    with connect(url, application_name="candelabra-jobs") as connection:
        for market in map(Market, markets):
            with open_rest(settings, market, database_url=url) as rest:
                seen_at_us = rest.server_time_us()
                instruments = rest.exchange_info()
            ended = write_instruments(connection, instruments, seen_at_us, whole_market=market)
            trading = sum(instrument.is_trading for instrument in instruments)
            counts.append(InstrumentCounts(market.value, len(instruments), trading, ended))
            log.info("instruments_written", market=market.value, seen=len(instruments), ended=ended)
    return counts
