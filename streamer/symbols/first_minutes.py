"""Where to begin symbols of which the table has no row, or not their first ones.

Most are new to the streamer, not to the exchange: they are streamed from now on, and what lies
before is a backfill's. Three kinds are not. One was streamed until the process was killed, before a
row of it was written: its ledgers tell, though perhaps of later minutes alone, as the first ones
still waited to be written. One was listed while nobody streamed. And of one there are rows, but not
the first ones, as the process was killed before it wrote that it lacked them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog

from include.backoff import Backoff
from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError
from include.jobs.exchange import open_shared_rest
from include.store.candles.minutes import first_minutes
from include.store.ledgers.gaps import unknown_since
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

MAX_ASKED = 100
"""Symbols of a market and of a kind whose first minute is asked for at the start, each for a weight
of 2, or of 6 where nobody has traded: where more have no row, or their first one, others are wanted
than before, and no market lists so many in a day."""
TIMES_ASKED = 3
"""A server that is behind others has no minute of a symbol that has just begun: that nobody has
traded is believed when it is said so often."""
FIRST_ROWS = 10
"""More than the first: a page may lack its last ones."""
BACKOFF = Backoff(first_s=1.0, max_s=2.0, min_s=0.5)
SEEN_BEFORE_US = 60 * MINUTE_US
"""A symbol listed so long before the last stored minute of its market may have been taken up by
the streamer that stored it, or not seen as lists could not be read, and been lost with it. A list
that came out of a cache may lack it as well."""


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
        told_us = unknown_since(connection, [one.symbol for one in new], since_us)
    begins: dict[str, int] = {}
    for market, market_us in now_us.items():
        horizon_us = minute_of(market_us) - lookback_us
        of_market = [one for one in new if one.market is market]
        lasts = [
            stored_us[one.symbol]
            for one in instruments
            if one.market is market and one.symbol in stored_us
        ]
        told = [one for one in of_market if one.symbol in told_us]
        untold = [one for one in of_market if one.is_trading and one.symbol not in told_us]
        firsts = _first_minutes(settings, market, told)
        if lasts:
            firsts |= _first_minutes(settings, market, untold)
        for one in of_market:
            begin_us = begin_of(
                firsts.get(one.symbol), told_us.get(one.symbol), max(lasts, default=market_us)
            )
            if begin_us is not None:
                begins[one.symbol] = max(begin_us, horizon_us)
    return begins


def begin_of(first_us: int | None, told_us: int | None, seen_us: int) -> int | None:
    """The minute (µs) to begin a symbol without a row with; None: nothing tells of one to have.

    Args:
        first_us: its first minute, as REST knows it; None where it does not.
        told_us: the first minute that its ledgers lack; None where they tell nothing of it.
        seen_us: when it was perhaps not there yet: first minutes long before are a backfill's.
    """
    told = [] if told_us is None else [told_us]
    if first_us is not None and first_us >= min([seen_us, *told]) - SEEN_BEFORE_US:
        return min([first_us, *told])
    return told_us


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
        firsts = _first_minutes(settings, market, asked, have_traded=True)
        found |= {
            symbol: (first_us, stored_us[symbol])
            for symbol, first_us in firsts.items()
            if horizon_us <= first_us < stored_us[symbol]
        }
    return found


def ask_first_minutes(
    rest: BinanceRest, instruments: Sequence[Instrument]
) -> tuple[dict[str, int], dict[str, str]]:
    """The first minutes (µs) of those that have traded, and why REST refused others.

    Of those in neither nobody has traded yet, as several answers say.

    Raises:
        TransientError: PostgreSQL or the exchange is away.
    """
    firsts: dict[str, int] = {}
    refused: dict[str, str] = {}
    left = list(instruments)
    for asked in range(TIMES_ASKED):
        if asked and left:
            time.sleep(BACKOFF.wait_s(asked))
        for one in left:
            try:
                first_us = _first_minute(rest, one)
            except PermanentError as error:
                refused[one.symbol] = str(error)
            else:
                if first_us is not None:
                    firsts[one.symbol] = first_us
        left = [one for one in left if one.symbol not in firsts and one.symbol not in refused]
    return firsts, refused


def _first_minutes(
    settings: Settings,
    market: Market,
    instruments: Sequence[Instrument],
    *,
    have_traded: bool = False,
) -> dict[str, int]:
    """The first minutes (µs) of those that tell one; of none where they are too many."""
    if not 0 < len(instruments) <= MAX_ASKED:
        return {}
    with open_shared_rest(settings, market, settings.url_for("streamer")) as rest:
        firsts, unknown = ask_first_minutes(rest, instruments)
    if have_traded:
        silent = [one.symbol for one in instruments if one.symbol not in firsts.keys() | unknown]
        unknown |= dict.fromkeys(silent, "REST has no kline of it")
    for symbol, error in unknown.items():
        # What is known of the others must not wait for it; it is streamed all the same.
        log.warning("first_minute_unknown", symbol=symbol, error=error)
    return firsts


def _first_minute(rest: BinanceRest, one: Instrument) -> int | None:
    """The first minute as one answer tells it, if it does."""
    page = rest.klines(one.exchange_symbol, "1m", 0, limit=FIRST_ROWS)
    if page.candles:
        return page.candles[0].open_time_us
    # it is open, or has just ended
    return minute_of(page.server_time_us) - MINUTE_US if page.unsettled else None
