"""Minutes fetched from REST: what the streamer and the gap ledger ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from include.binance.klines import settled_until
from include.binance.rest import BinanceRest
from include.config import Settings
from include.domain.candles import Candle, Offer, Source, Status
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from include.jobs.exchange import open_rest
from include.store.gaps import open_gap
from include.store.ledgers import add_coverage, record_outage
from include.store.live import remove_settled_live
from include.store.merging import Connection, MergeCounts, merge_offers
from include.store.pools import connect

OUTAGE_CAUSE = "the exchange has no candle"
_UNSETTLED = "the newest minutes are not settled yet; REST counts 30 s after a minute's end"


@dataclass(frozen=True, slots=True)
class FetchCounts:
    """What a range of minutes brought.

    Attributes:
        merged: counts of the merge.
        outage_minutes: minutes between the exchange's rows for which it has none.
    """

    merged: MergeCounts
    outage_minutes: int


def repair_minutes(
    *, settings: Settings, database_url: str, symbol: str, start_us: int, end_us: int
) -> FetchCounts:
    """Fetch the exchange's klines of a half-open range of minutes and merge them.

    A settled minute for which the exchange has no row is an outage.

    Args:
        database_url: of the role that writes.
        symbol: platform symbol.

    Raises:
        TransientError: the exchange or the database is away, or the newest minutes are not
            settled yet; what was fetched is stored all the same.
        PermanentError: the exchange does not know the symbol.
    """
    market = market_of(symbol)
    with (
        connect(database_url, application_name="candelabra-repair") as connection,
        open_rest(settings, market, database_url=database_url) as rest,
    ):
        return fetch_minutes(connection, rest, symbol, start_us, end_us)


def fetch_minutes(
    connection: Connection, rest: BinanceRest, symbol: str, start_us: int, end_us: int
) -> FetchCounts:
    """As ``repair_minutes``, with a connection and a client that are open."""
    total = MergeCounts()
    outage_minutes = 0
    next_us: int | None = start_us
    while next_us is not None and next_us < end_us:
        page = rest.klines(exchange_symbol_of(symbol), "1m", next_us, end_us)
        offers = [
            Offer(candle, Status.VERIFIED, Source.REST, page.server_time_us)
            for candle in page.candles
        ]
        total += merge_offers(connection, offers)
        if page.unsettled:
            raise TransientError(f"{symbol}: {_UNSETTLED}")
        sure_until_us = page.next_start_us or end_us
        if sure_until_us > settled_until(page.server_time_us):
            raise TransientError(f"{symbol}: {_UNSETTLED}")
        holes = list(missing_ranges(page.candles, next_us, sure_until_us))
        for hole_start_us, hole_end_us in holes:
            record_outage(
                connection,
                market=market_of(symbol),
                symbol=symbol,
                start_us=hole_start_us,
                end_us=hole_end_us,
                cause=OUTAGE_CAUSE,
            )
            outage_minutes += (hole_end_us - hole_start_us) // MINUTE_US
        add_coverage(connection, symbol, Source.REST, [(next_us, sure_until_us)])
        next_us = page.next_start_us
    remove_settled_live(connection, symbol, start_us, end_us)
    return FetchCounts(total, outage_minutes)


def missing_ranges(
    candles: Iterable[Candle], start_us: int, end_us: int
) -> Iterable[tuple[int, int]]:
    """Half-open ranges of minutes in which no candle opens."""
    next_us = start_us
    for candle in candles:
        if candle.open_time_us > next_us:
            yield next_us, candle.open_time_us
        next_us = candle.open_time_us + MINUTE_US
    if next_us < end_us:
        yield next_us, end_us


def record_gap(*, database_url: str, symbol: str, start_us: int, end_us: int, cause: str) -> None:
    """Leave a range of minutes to the gap ledger, from which the DAGs repair."""
    with connect(database_url, application_name="candelabra-repair") as connection:
        open_gap(connection, symbol=symbol, start_us=start_us, end_us=end_us, cause=cause)
