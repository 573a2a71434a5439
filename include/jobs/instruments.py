"""Synchronise the registry with the exchange's list of instruments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from include.config import Settings
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.jobs.klines.pieces import market_from
from include.store.candles.merging import Connection
from include.store.instruments import part_reused, read_instruments, write_instruments
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

MAX_NAMED = 100
"""Symbols named in one line of the log; more are counted."""

IDS_LOOKED_AT_US = 3 * DAY_US
"""Age of minutes checked for restarted ids; the job runs daily."""


@dataclass(frozen=True, slots=True)
class InstrumentCounts:
    """Result of a synchronisation.

    Attributes:
        listed: instruments in the exchange's list, by market.
        trading: those that trade, by market.
        ended: listings that left the list, or whose ticker now belongs to another instrument.
    """

    listed: dict[str, int]
    trading: dict[str, int]
    ended: int


def sync_instruments(
    *, settings: Settings, markets: Sequence[Market | str] = (Market.SPOT, Market.UM)
) -> InstrumentCounts:
    """Write what the exchange lists to ``market.instruments``.

    Raises:
        TransientError, RateLimitedError: the exchange or the database are away.
        PermanentError: a blocked region, or an answer that lacks most of the market.
    """
    url = settings.url_for("jobs")
    listed: dict[str, int] = {}
    trading: dict[str, int] = {}
    ended = 0
    with connect(url, application_name=APPLICATION_NAME) as connection:
        for name in markets:
            market = market_from(name)
            with open_shared_rest(settings, market, url) as rest:
                # before the answer, so that an older answer never looks like the newer one
                seen_at_us = rest.server_time_us()
                instruments = rest.exchange_info()
            known = {one.symbol: one.status for one in read_instruments(connection, market=market)}
            ended += write_instruments(connection, instruments, seen_at_us, whole_market=market)
            if market is Market.SPOT:
                ended += _part_reused(connection, seen_at_us)
            listed[market.value] = len(instruments)
            trading[market.value] = sum(one.is_trading for one in instruments)
            if known:
                _tell_changes(market, known, {one.symbol: one.status for one in instruments})
    log.info("instruments_synchronised", listed=listed, trading=trading, ended=ended)
    return InstrumentCounts(listed, trading, ended)


def _part_reused(connection: Connection, seen_at_us: int) -> int:
    """Count tickers that were given to another instrument, which spot's list does not show; see
    ``part_reused``."""
    since_us = seen_at_us - IDS_LOOKED_AT_US
    reused = part_reused(connection, Market.SPOT, since_us=since_us, seen_at_us=seen_at_us)
    if reused:
        log.info("tickers_reused", count=len(reused), symbols=reused[:MAX_NAMED])
    return len(reused)


def _tell_changes(market: Market, known: dict[str, str], now: dict[str, str]) -> None:
    """Log new symbols, and those that started or stopped trading."""
    new = sorted(now.keys() - known.keys())
    if new:
        log.info("instruments_new", market=market.value, count=len(new), symbols=new[:MAX_NAMED])
    changed = {
        symbol: f"{known[symbol]} -> {status}"
        for symbol, status in sorted(now.items())
        if known.get(symbol, status) != status
    }
    if changed:
        log.info(
            "instrument_status_changed",
            market=market.value,
            count=len(changed),
            symbols=dict(list(changed.items())[:MAX_NAMED]),
        )
