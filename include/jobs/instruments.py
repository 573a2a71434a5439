"""Synchronise ``market.instruments`` with the exchange's list of instruments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US
from include.errors import PermanentError, RateLimitedError, TransientError
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.jobs.klines.pieces import market_from
from include.store.candles.merging import Connection
from include.store.instruments import (
    pairs_to_settle,
    part_reused,
    read_instruments,
    write_instruments,
    write_settlement_prices,
)
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

MAX_NAMED = 100
"""Maximum symbols named in one log line; the count covers all."""

IDS_CHECKED_US = 3 * DAY_US
"""Age of minutes checked for restarted ids; the job runs daily."""


@dataclass(frozen=True, slots=True)
class InstrumentCounts:
    """Result of a synchronisation.

    Attributes:
        listed: instruments in the exchange's list, by market.
        trading: those that trade, by market.
        ended: listings that left the list, were delivered, or whose ticker now belongs to another
            instrument, and such ends that were corrected.
        refused: instruments of the list that could not be used, and keep their rows.
        settled: delivered contracts whose settlement price became known.
    """

    listed: dict[str, int]
    trading: dict[str, int]
    ended: int
    refused: int = 0
    settled: int = 0


def sync_instruments(
    *,
    settings: Settings,
    markets: Sequence[Market | str] = tuple(Market),
    url: str | None = None,
) -> InstrumentCounts:
    """Write the exchange's list of instruments to ``market.instruments``.

    Args:
        url: of the database; by default that of the role candelabra_jobs.

    Raises:
        TransientError, RateLimitedError: the exchange or the database is away.
        PermanentError: a blocked region, or an answer that lacks most of the market.
    """
    url = url or settings.url_for("jobs")
    listed: dict[str, int] = {}
    trading: dict[str, int] = {}
    ended = refused = settled = 0
    with connect(url, application_name=APPLICATION_NAME) as connection:
        for name in markets:
            market = market_from(name)
            with open_shared_rest(settings, market, url) as rest:
                # Read before the list: an older answer must not get a later time than a newer one.
                seen_at_us = rest.server_time_us()
                answer = rest.listed()
                instruments = answer.instruments
            known = {one.symbol: one.status for one in read_instruments(connection, market=market)}
            ended += write_instruments(
                connection,
                instruments,
                seen_at_us,
                whole_market=market,
                refused=answer.refused,
            )
            refused += len(answer.refused)
            if market.is_futures:
                with open_shared_rest(settings, market, url) as rest:
                    settled += _settle(connection, rest, seen_at_us)
            if market is Market.SPOT:
                ended += _part_reused(connection, seen_at_us)
            listed[market.value] = len(instruments)
            trading[market.value] = sum(one.is_trading for one in instruments)
            if known:
                _log_changes(market, known, {one.symbol: one.status for one in instruments})
    log.info(
        "instruments_synchronised",
        listed=listed,
        trading=trading,
        ended=ended,
        refused=refused,
        settled=settled,
    )
    return InstrumentCounts(listed, trading, ended, refused, settled)


def _settle(connection: Connection, rest: BinanceRest, now_us: int) -> int:
    """Write the settlement prices of delivered contracts; return how many became known.

    They are requested again by the next synchronisation if the exchange does not answer.
    """
    market = rest.market
    settled = 0
    for pair in pairs_to_settle(connection, market, now_us):
        try:
            prices = rest.delivery_prices(pair)
        except RateLimitedError:
            raise  # the limit applies to all requests
        except (PermanentError, TransientError) as error:
            log.warning("settlement_unknown", market=market.value, pair=pair, error=str(error))
        else:
            settled += write_settlement_prices(connection, market, pair, prices)
    return settled


def _part_reused(connection: Connection, seen_at_us: int) -> int:
    """Split listings of reused spot tickers, which the exchange's list does not show.

    See ``part_reused``. Return how many listings ended by it.
    """
    since_us = seen_at_us - IDS_CHECKED_US
    reused = part_reused(connection, Market.SPOT, since_us=since_us, seen_at_us=seen_at_us)
    if reused.split:
        log.info("tickers_reused", count=len(reused.split), symbols=reused.split[:MAX_NAMED])
    if reused.moved:
        log.info("listings_moved", count=len(reused.moved), symbols=reused.moved[:MAX_NAMED])
    return len(reused.split)


def _log_changes(market: Market, known: dict[str, str], now: dict[str, str]) -> None:
    """Log new symbols, and symbols that started or stopped trading."""
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
