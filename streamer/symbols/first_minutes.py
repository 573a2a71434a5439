"""Find the first minute of symbols that have no stored rows, or lack their earliest ones.

Most of these symbols are new to the streamer, not to the exchange: they are streamed from now on,
and a backfill may load earlier minutes. There are three exceptions:

- The process was killed before it wrote a row of the symbol. The gap ledger has the symbol, though
  perhaps only later minutes, because the first ones were not written yet.
- The symbol was listed while no streamer ran.
- The symbol has rows but lacks the first ones, because the process was killed before it recorded
  their gap.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from include.backoff import Backoff
from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.errors import PermanentError, RefusedAddressError
from include.jobs.exchange import open_shared_rest
from include.store.candles.minutes import first_minutes
from include.store.ledgers.gaps import open_gap, unknown_since
from include.store.postgres.pools import connect
from streamer.candles.events import NOT_STREAMED

log = structlog.get_logger(__name__)

MAX_REQUESTS = 100
"""Maximum symbols of a market whose first minute is requested at the start, with weight 2 each,
or 6 if all three answers are empty. More symbols mean that the user changed the selection, because
no market lists so many in a day; then none is requested."""
ATTEMPTS = 3
"""Empty answers after which a symbol counts as not traded yet: a lagging server may not know it."""
BEFORE_LOOKBACK = "older than FILL_LOOKBACK_MINUTES at the streamer's start; left to repair_gaps"
FIRST_ROWS = 10  # more than one, since a page may lack its last rows
BACKOFF = Backoff(first_s=1.0, max_s=2.0, min_s=0.5)
SEEN_BEFORE_US = 60 * MINUTE_US
"""A symbol counts as newly listed if its first minute is at most this long before the newest stored
minute of its market. The streamer that stored that minute may have lost the symbol's rows when it
was killed, or may not have seen the symbol in a list that was cached or could not be read."""


LeftMinutes = Mapping[str, Sequence[tuple[int, int]]]
"""By symbol, half-open ranges (µs) that are left to the DAG ``repair_gaps``."""


@dataclass(frozen=True, slots=True)
class Beginnings:
    """Where streaming begins.

    Attributes:
        begins_us: the first minute of each symbol that does not begin now.
        refused: the reason for each symbol that REST refused.
        left_us: missed minutes older than the lookback, each recorded as an open gap.
    """

    begins_us: dict[str, int]
    refused: dict[str, str]
    left_us: LeftMinutes


def find_begins(
    settings: Settings,
    added: Sequence[Instrument],
    last_us: Mapping[str, int],
    now_us: Mapping[Market, int],
    unlisted_us: Mapping[str, int] | None = None,
) -> Beginnings:
    """Find the minute (µs) with which each added symbol begins.

    A symbol with rows continues after its newest row. The first minute of a symbol without rows is
    in the gap ledger or is requested from REST. No symbol begins earlier than
    ``FILL_LOOKBACK_MINUTES`` ago: missed minutes before are recorded as an open gap.

    Args:
        added: symbols to stream, at a start all of them.
        last_us: open time of the newest row of each symbol with rows.
        now_us: exchange time by market.
        unlisted_us: last exchange time at which each symbol was not listed or selected yet; None at
            a start, where the newest stored row of the market is used instead.

    Raises:
        TransientError: PostgreSQL or the exchange does not answer.
    """
    lookback_us = settings.fill_lookback_minutes * MINUTE_US
    new = [one for one in added if one.symbol not in last_us]
    since_us = min([*now_us.values(), *(unlisted_us or {}).values()]) - lookback_us
    with connect(
        settings.url_for("streamer"), application_name="candelabra-streamer"
    ) as connection:
        gaps_us = unknown_since(connection, [one.symbol for one in new], since_us)
    begins: dict[str, int] = {}
    refused: dict[str, str] = {}
    left_us: dict[str, list[tuple[int, int]]] = {}
    for market, market_us in now_us.items():
        symbols = [one.symbol for one in added if one.market is market]
        lasts_us = {symbol: last_us[symbol] for symbol in symbols if symbol in last_us}
        begins |= {symbol: at_us + MINUTE_US for symbol, at_us in lasts_us.items()}
        of_market = [one for one in new if one.market is market]
        candidates = (
            of_market if unlisted_us else _requested_at_start(of_market, gaps_us, bool(lasts_us))
        )
        firsts_us, unknown = _fetch_first_minutes(settings, market, candidates)
        refused |= unknown
        for symbol in (one.symbol for one in of_market):
            first_us = firsts_us.get(symbol)
            seen_us = (unlisted_us or {}).get(symbol) or max(lasts_us.values(), default=market_us)
            begin_us = begin_of(first_us, gaps_us.get(symbol), seen_us)
            if begin_us is None and unlisted_us:  # it has not traded yet, or its history is long
                begin_us = minute_of(market_us if first_us is None else seen_us)
            if begin_us is not None:
                begins[symbol] = begin_us
        horizon_us = minute_of(market_us) - lookback_us
        early = [one for one in symbols if begins.get(one, horizon_us) < horizon_us]
        missed_us = {one: begins[one] for one in early if begins[one] != gaps_us.get(one)}
        left_us |= {symbol: [(start_us, horizon_us)] for symbol, start_us in missed_us.items()}
        begins |= dict.fromkeys(early, horizon_us)
    leave_to_jobs(settings, left_us)
    return Beginnings(begins, refused, left_us)


def leave_to_jobs(settings: Settings, ranges_us: LeftMinutes) -> None:
    """Record missed minutes as open gaps that ``repair_gaps`` repairs."""
    ranges = [(symbol, *one) for symbol, of_symbol in ranges_us.items() for one in of_symbol]
    if not ranges:
        return
    with connect(
        settings.url_for("streamer"), application_name="candelabra-streamer"
    ) as connection:
        for symbol, start_us, end_us in ranges:
            open_gap(
                connection,
                symbol=symbol,
                start_us=start_us,
                end_us=end_us,
                cause=NOT_STREAMED,
                detail={"error": BEFORE_LOOKBACK},
            )
    log.warning(
        "minutes_before_lookback",
        symbols=len(ranges_us),
        since=from_us(min(start_us for _, start_us, _ in ranges)).isoformat(),
        until=from_us(max(end_us for _, _, end_us in ranges)).isoformat(),
        minutes=sum(end_us - start_us for _, start_us, end_us in ranges) // MINUTE_US,
        remedy="the DAG repair_gaps fills them, or candelabra backfill",
    )


def _requested_at_start(
    new: Sequence[Instrument], gaps_us: Mapping[str, int], has_rows: bool
) -> list[Instrument]:
    """Return the symbols whose first minute to request; of each kind, ``MAX_REQUESTS`` or none."""
    with_gaps = [one for one in new if one.symbol in gaps_us]
    others = [one for one in new if has_rows and one.is_trading and one.symbol not in gaps_us]
    return [one for some in (with_gaps, others) if len(some) <= MAX_REQUESTS for one in some]


def begin_of(first_us: int | None, gap_us: int | None, seen_us: int) -> int | None:
    """Return the first minute (µs) of a symbol without rows; None if it begins now.

    Args:
        first_us: its first minute according to REST; None if unknown.
        gap_us: the first minute of its open gaps; None without gaps.
        seen_us: last time at which the symbol may have been unlisted. If its first minute is much
            earlier, only a backfill loads its history.
    """
    gaps = [] if gap_us is None else [gap_us]
    if first_us is not None and first_us >= min([seen_us, *gaps]) - SEEN_BEFORE_US:
        return min([first_us, *gaps])
    return gap_us


def find_missing_beginnings(
    settings: Settings,
    instruments: Sequence[Instrument],
    now_us: Mapping[Market, int],
    since_us: int,
) -> dict[str, tuple[int, int]]:
    """Find the minutes between a new listing's first minute and its first row, half-open (µs).

    The table does not show that a symbol lacks its beginning.

    Args:
        instruments: all streamed symbols.
        now_us: exchange time by market.
        since_us: only listings since this minute are new.

    Raises:
        TransientError: PostgreSQL or the exchange does not answer.
    """
    url = settings.url_for("streamer")
    found: dict[str, tuple[int, int]] = {}
    for market in now_us:
        of_market = {one.symbol: one for one in instruments if one.market is market}
        with connect(url, application_name="candelabra-streamer") as connection:
            stored_us = first_minutes(connection, of_market, since_us)
        incomplete = [of_market[symbol] for symbol in sorted(stored_us)]
        if len(incomplete) > MAX_REQUESTS:
            continue
        firsts, unknown = _fetch_first_minutes(settings, market, incomplete)
        silent = stored_us.keys() - firsts.keys() - unknown.keys()
        log_unknown(unknown | dict.fromkeys(sorted(silent), "REST has no kline"))
        found |= {
            symbol: (first_us, stored_us[symbol])
            for symbol, first_us in firsts.items()
            if since_us <= first_us < stored_us[symbol]
        }
    return found


def log_unknown(reasons: Mapping[str, str]) -> None:
    """Log symbols whose first minute is unknown; they are streamed nevertheless."""
    for symbol, reason in reasons.items():
        log.warning("first_minute_unknown", symbol=symbol, error=reason)


def fetch_first_minutes(
    rest: BinanceRest, instruments: Sequence[Instrument]
) -> tuple[dict[str, int], dict[str, str]]:
    """Fetch the first minutes (µs) of symbols, and the reasons why REST refused some.

    Symbols in neither have not traded yet, according to several answers.

    Raises:
        TransientError: PostgreSQL or the exchange does not answer.
    """
    firsts: dict[str, int] = {}
    refused: dict[str, str] = {}
    left = list(instruments)
    for attempt in range(ATTEMPTS):
        if attempt and left:
            time.sleep(BACKOFF.wait_s(attempt))
        for one in left:
            try:
                first_us = _first_minute(rest, one)
            except RefusedAddressError:
                raise  # it tells nothing of the symbol
            except PermanentError as error:
                refused[one.symbol] = str(error)
            else:
                if first_us is not None:
                    firsts[one.symbol] = first_us
        left = [one for one in left if one.symbol not in firsts and one.symbol not in refused]
    return firsts, refused


def _fetch_first_minutes(
    settings: Settings, market: Market, instruments: Sequence[Instrument]
) -> tuple[dict[str, int], dict[str, str]]:
    if not instruments:
        return {}, {}
    with open_shared_rest(settings, market, settings.url_for("streamer")) as rest:
        return fetch_first_minutes(rest, instruments)


def _first_minute(rest: BinanceRest, one: Instrument) -> int | None:
    """Return the first minute according to one answer, if it has any."""
    page = rest.klines(one.exchange_symbol, "1m", 0, limit=FIRST_ROWS)
    if page.candles:
        return page.candles[0].open_time_us
    # The first minute is open, or has just ended.
    return minute_of(page.server_time_us) - MINUTE_US if page.not_final else None
