"""Trades that raw capture missed, asked for by id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from include.binance.frames import microseconds
from include.binance.rest import MAX_TRADES, BinanceRest
from include.config import Settings
from include.domain.instruments import Market, exchange_symbol_of, market_of
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError, TransientError
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.store.gaps import open_gap
from include.store.pools import connect
from include.store.raw import AGG_TRADES, TRADES, write_raw

PUBLIC_DATA_HOST = "data-api.binance.vision"


@dataclass(frozen=True, slots=True)
class FetchCounts:
    """What a fetch did.

    Attributes:
        pages: requests.
        void: ids under which the exchange has no trade.
        written: rows that were new.
    """

    pages: int
    void: int
    written: int


@dataclass(frozen=True, slots=True)
class RawGap:
    """What raw capture of a symbol misses for good; times in µs."""

    dataset: str
    symbol: str
    from_us: int
    to_us: int
    cause: str
    detail: Mapping[str, object] = field(default_factory=dict)


def fetch_trades(
    *,
    settings: Settings,
    dataset: str,
    symbol: str,
    first_id: int,
    last_id: int,
    database_url: str | None = None,
) -> FetchCounts:
    """Ask the exchange for the trades with these ids and store them, page by page.

    Args:
        dataset: ``agg_trades`` (both markets) or ``trades`` (spot).
        first_id, last_id: both included.
        database_url: of the caller's role; None for the jobs' own.

    Raises:
        TransientError, RateLimitedError: worth another try later; pages that came are stored.
        PermanentError: the exchange does not serve these trades.
    """
    refuse_unserved(settings, dataset, symbol)
    url = database_url or settings.url_for("jobs")
    table = AGG_TRADES if dataset == AGG_TRADES.name else TRADES
    pages = void = written = 0
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_shared_rest(settings, market_of(symbol), url) as rest,
    ):
        for lines, void_ids in _pages(rest, dataset, symbol, first_id, last_id):
            pages += 1
            void += void_ids
            if lines:
                written += write_raw(connection, table, lines)
    return FetchCounts(pages, void, written)


def refuse_unserved(settings: Settings, dataset: str, symbol: str) -> None:
    """Say why the exchange cannot be asked for these trades by id, where that is so.

    Raises:
        PermanentError: quotes, single trades of USD-M, or a host without ``historicalTrades``.
    """
    if dataset not in (AGG_TRADES.name, TRADES.name):
        raise PermanentError(f"the exchange serves no past {dataset}")
    if dataset == AGG_TRADES.name:
        return
    if market_of(symbol) is Market.UM:
        raise PermanentError(
            f"{symbol}: ids of single USD-M trades skip by design and are served with an API key "
            "alone; capture agg_trades, whose ids do not skip"
        )
    if urlsplit(settings.binance_rest_url).hostname == PUBLIC_DATA_HOST:
        raise PermanentError(
            f"{PUBLIC_DATA_HOST} has no historicalTrades: set "
            "BINANCE_REST_URL=https://api.binance.com, or capture agg_trades"
        )


def record_raw_gaps(*, database_url: str, gaps: Sequence[RawGap]) -> None:
    """Note in ``ops.gaps`` what raw capture misses for good."""
    with (
        connect(database_url, application_name=APPLICATION_NAME) as connection,
        connection.transaction(),
    ):
        for gap in gaps:
            open_gap(
                connection,
                symbol=gap.symbol,
                start_us=minute_of(gap.from_us),
                end_us=minute_of(max(gap.from_us, gap.to_us)) + MINUTE_US,
                cause=gap.cause,
                detail=gap.detail,
                dataset=gap.dataset,
            )


def _pages(
    rest: BinanceRest, dataset: str, symbol: str, first_id: int, last_id: int
) -> Iterator[tuple[list[str], int]]:
    """Lines of each page, and how many void ids were among them."""
    page_of = _agg_trades if dataset == AGG_TRADES.name else _trades
    next_id = first_id
    while next_id <= last_id:
        limit = min(MAX_TRADES, last_id - next_id + 1)
        found = [one for one in page_of(rest, symbol, next_id, limit) if one[0] >= next_id]
        if not found:
            raise TransientError(
                f"{symbol}: the exchange serves no {dataset} from id {next_id} on yet; "
                f"wanted up to {last_id}"
            )
        wanted = [line for number, line in found if number <= last_id]
        yield [line for line in wanted if line], sum(not line for line in wanted)
        next_id = found[-1][0] + 1


def _agg_trades(rest: BinanceRest, symbol: str, from_id: int, limit: int) -> list[tuple[int, str]]:
    """Ids and lines; a void one's line is empty."""
    rows = rest.agg_trades(exchange_symbol_of(symbol), from_id=from_id, limit=limit)
    return [
        (
            row.id,
            ""
            if row.is_void
            else AGG_TRADES.line(
                (
                    symbol, row.id, row.price, row.quantity, row.first_trade_id,
                    row.last_trade_id, microseconds(row.trade_time), row.is_buyer_maker,
                )
            ),
        )
        for row in rows
    ]  # fmt: skip


def _trades(rest: BinanceRest, symbol: str, from_id: int, limit: int) -> list[tuple[int, str]]:
    """Ids and lines; a void one's line is empty."""
    rows = rest.trades(exchange_symbol_of(symbol), from_id=from_id, limit=limit)
    return [
        (
            row.id,
            ""
            if row.is_void
            else TRADES.line(
                (
                    symbol, row.id, row.price, row.quantity, row.quote_quantity,
                    microseconds(row.trade_time), row.is_buyer_maker,
                )
            ),
        )
        for row in rows
    ]  # fmt: skip
