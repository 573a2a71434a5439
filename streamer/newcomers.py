"""Where to begin symbols of which the table has no row, or not their first ones.

Most are new to the streamer, not to the exchange: they are streamed from now on, and what lies
before is a backfill's. Three kinds are not. One was streamed until the process was killed, before a
row of it was written: its ledgers tell. One was listed while nobody streamed. And of one there are
rows, but not the first ones, as the process was killed before it wrote that it lacked them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog

from include.backoff import Backoff
from include.binance.rest import BinanceRest
from include.config import Settings
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError
from include.jobs.exchange import open_shared_rest
from include.store.candles import first_minutes
from include.store.gaps import unknown_since
from include.store.pools import connect

log = structlog.get_logger(__name__)

MOST_ASKED = 100
"""Symbols of a market whose first minute is asked for, each for a weight of 2, or of 6 where nobody
has traded: where more have no row, or their first one, others are wanted than before, and no market
lists so many in a day."""
TIMES_ASKED = 3
"""A server that is behind others has no minute of a symbol that has just begun: that nobody has
traded is believed when it is said so often."""
FIRST_ROWS = 10
"""More than the first: a page may lack its last ones."""
BACKOFF = Backoff(first_s=1.0, most_s=2.0, least_s=0.5)
SEEN_BEFORE_US = 60 * MINUTE_US
"""A symbol listed so long before the last stored minute of its market may have been taken up by
the streamer that stored it, or not seen as lists could not be read, and been lost with it."""


def begin_newcomers(
    settings: Settings,
    instruments: Sequence[Instrument],
    stored_us: Mapping[str, int],
    now_us: Mapping[Market, int],
) -> dict[str, int]:
    """The first minutes (µs) to have of symbols without a row; those to begin now are left out.

    Args:
        instruments: all that are streamed.
        stored_us: open time of the newest row of each that has any.
        now_us: the exchange's time, by market.

    Raises:
        TransientError: PostgreSQL or the exchange is away.
    """
    new = [one for one in instruments if one.symbol not in stored_us]
    lookback_us = settings.fill_lookback_minutes * MINUTE_US
    since_us = min(now_us.values()) - lookback_us
    with connect(
        settings.url_for("streamer"), application_name="candelabra-streamer"
    ) as connection:
        begins = unknown_since(connection, [one.symbol for one in new], since_us)
    for market, market_us in now_us.items():
        horizon_us = minute_of(market_us) - lookback_us
        of_market = [one for one in instruments if one.market is market]
        lasts = [stored_us[one.symbol] for one in of_market if one.symbol in stored_us]
        asked = [
            one
            for one in of_market
            if one.is_trading and one.symbol not in stored_us and one.symbol not in begins
        ]
        if lasts:
            begins |= _listed_since(settings, market, asked, max(lasts) - SEEN_BEFORE_US)
        for one in of_market:
            if one.symbol in begins:
                begins[one.symbol] = max(begins[one.symbol], horizon_us)
    return begins


def missed_beginnings(
    settings: Settings, instruments: Sequence[Instrument], now_us: Mapping[Market, int]
) -> dict[str, tuple[int, int]]:
    """Minutes between the first one of a new listing and its first row, as half-open ranges (µs).

    Nothing in the table tells that a symbol lacks its beginning.

    Args:
        instruments: all that are streamed.
        now_us: the exchange's time, by market.

    Raises:
        TransientError: PostgreSQL or the exchange is away.
    """
    url = settings.url_for("streamer")
    found: dict[str, tuple[int, int]] = {}
    for market, market_us in now_us.items():
        horizon_us = minute_of(market_us) - settings.fill_lookback_minutes * MINUTE_US
        of_market = {one.symbol: one for one in instruments if one.market is market}
        with connect(url, application_name="candelabra-streamer") as connection:
            stored_us = first_minutes(connection, of_market, horizon_us)
        asked = [of_market[symbol] for symbol in sorted(stored_us)]
        firsts = _listed_since(settings, market, asked, horizon_us, have_traded=True)
        found |= {
            symbol: (first_us, stored_us[symbol])
            for symbol, first_us in firsts.items()
            if first_us < stored_us[symbol]
        }
    return found


def _listed_since(
    settings: Settings,
    market: Market,
    instruments: Sequence[Instrument],
    since_us: int,
    *,
    have_traded: bool = False,
) -> dict[str, int]:
    """The first minutes of those whose first one is not earlier; none where they are too many."""
    firsts: dict[str, int] = {}
    if not 0 < len(instruments) <= MOST_ASKED:
        return firsts
    left = list(instruments)
    with open_shared_rest(settings, market, settings.url_for("streamer")) as rest:
        for asked in range(TIMES_ASKED):
            if asked and left:
                time.sleep(BACKOFF.wait_s(asked))
            left = [one for one in left if not _ask_first_minute(rest, one, firsts)]
    if have_traded:
        for one in left:
            log.warning("first_minute_unknown", symbol=one.symbol, error="REST has no kline of it")
    return {symbol: first_us for symbol, first_us in firsts.items() if first_us >= since_us}


def _ask_first_minute(rest: BinanceRest, one: Instrument, firsts: dict[str, int]) -> bool:
    """Ask for a symbol's first minute, and note it; False where it is to be asked for again."""
    try:
        page = rest.klines(one.exchange_symbol, "1m", 0, limit=FIRST_ROWS)
    except PermanentError as error:
        # What is known of the others must not wait for it; it is streamed from now on.
        log.warning("first_minute_unknown", symbol=one.symbol, error=str(error))
        return True
    if page.candles:
        firsts[one.symbol] = page.candles[0].open_time_us
    elif page.unsettled:  # it is open, or has just ended
        firsts[one.symbol] = minute_of(page.server_time_us) - MINUTE_US
    return one.symbol in firsts
