"""Fetch trades that raw capture missed, by their ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog

from include.binance.rest.client import MAX_TRADES, BinanceRest
from include.binance.streams.messages import microseconds
from include.config import Settings
from include.domain.instruments import REUSED_AFTER_US, exchange_symbol_of, market_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.errors import PermanentError, RefusedAddressError, TransientError
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.store.ledgers.gaps import count_gap_rows, open_gap
from include.store.postgres.pools import connect, translated
from include.store.trades.captured import AGG_TRADES, TRADES, write_raw

PUBLIC_DATA_HOST = "data-api.binance.vision"
MAX_FETCH_S = 300.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FetchCounts:
    """Result of a fetch.

    Attributes:
        pages: requests.
        void: ids for which the exchange returned a void row.
        written: new rows.
        absent: ids that the exchange skips.
        first_us: time (µs) of the first trade; None if there was none.
        next_id: id to continue with, if the fetch ended after some pages; None if all is done.
    """

    pages: int
    void: int
    written: int
    absent: int = 0
    first_us: int | None = None
    next_id: int | None = None


@dataclass(frozen=True, slots=True)
class Tail:
    """Trades after a given one, of a symbol that stopped trading.

    Attributes:
        last_id, last_us: the exchange's last trade and its time (µs); the given trade if there is
            no later one.
        counts: of the fetch.
    """

    last_id: int
    last_us: int
    counts: FetchCounts


@dataclass(frozen=True, slots=True)
class RawGap:
    """Trades of a symbol that raw capture has lost for good; times in µs."""

    dataset: str
    symbol: str
    from_us: int
    to_us: int
    cause: str
    detail: Mapping[str, object] = field(default_factory=dict)

    @property
    def stretch(self) -> str:
        """Return the interval in ISO 8601."""
        return f"{from_us(self.from_us).isoformat()}/{from_us(self.to_us).isoformat()}"


def fetch_trades(
    *,
    settings: Settings,
    dataset: str,
    symbol: str,
    first_id: int,
    last_id: int,
    until_us: int | None = None,
    database_url: str | None = None,
) -> FetchCounts:
    """Fetch the trades with these ids from the exchange and store them, page by page.

    A failure after some pages ends the fetch early, so that no page is requested twice. So does the
    first page after ``MAX_FETCH_S``: a small budget of weight makes each page wait.

    Args:
        dataset: ``agg_trades`` (both markets) or ``trades`` (spot).
        first_id, last_id: both included.
        until_us: time of a trade that followed; a much later trade belongs to another instrument
            with the same name.
        database_url: of the caller's role; None for the jobs' own.

    Raises:
        TransientError, RateLimitedError: retry later; no page was fetched.
        PermanentError: the exchange does not serve these trades, or another instrument has these
            ids by now.
    """
    pages = void = written = served = 0
    first_us: int | None = None
    next_id: int | None = None
    until_s = time.monotonic() + MAX_FETCH_S
    limit_us = None if until_us is None else until_us + REUSED_AFTER_US
    with _trade_source(settings, dataset, symbol, database_url) as (store, page):
        try:
            for found in _pages(page, f"{symbol} {dataset}", first_id, last_id):
                if limit_us is not None and any(one.time_us > limit_us for one in found):
                    raise PermanentError(_of_another(symbol, dataset, first_id))
                lines = [one.line for one in found if one.line]
                written += store(lines)
                pages += 1
                void += len(found) - len(lines)
                # A void row may have the id of a real trade: count ids, not rows.
                served += len({one.number for one in found})
                if first_us is None and found:
                    first_us = found[0].time_us
                next_id = found[-1].number + 1 if found else None
                if next_id is not None and next_id <= last_id and time.monotonic() > until_s:
                    break
            else:
                next_id = None
        except (TransientError, RefusedAddressError) as error:
            if next_id is None:
                raise
            log.info("fetch_interrupted", symbol=symbol, next_id=next_id, error=str(error))
    wanted = (last_id + 1 if next_id is None else next_id) - first_id
    return FetchCounts(pages, void, written, wanted - served, first_us, next_id)


def fetch_trailing(
    *,
    settings: Settings,
    dataset: str,
    symbol: str,
    after_id: int,
    after_us: int,
    database_url: str | None = None,
) -> Tail:
    """Fetch and store all trades after a given one, of a symbol that stopped trading.

    The given trade is requested too. If the exchange no longer has it, the name belongs to another
    instrument, and an answer without trades would prove nothing.

    Args:
        after_us: approximate time of that trade.

    Raises:
        TransientError, RateLimitedError: as ``fetch_trades``.
        PermanentError: as ``fetch_trades``.
    """
    pages = void = written = 0
    last_id, last_us = after_id, after_us
    with _trade_source(settings, dataset, symbol, database_url) as (store, page):
        while True:
            rows = page(last_id, MAX_TRADES)
            found = _proven(rows)
            if not found:
                raise TransientError(
                    f"{symbol} {dataset}: the exchange does not serve id {last_id}, which was "
                    "received before"
                )
            if found[0].number != last_id or abs(found[0].time_us - last_us) > REUSED_AFTER_US:
                raise PermanentError(_of_another(symbol, dataset, last_id))
            pages += 1
            behind = found[1:]
            lines = [one.line for one in behind if one.line]
            void += len(behind) - len(lines)
            written += store(lines)
            last_id, last_us = found[-1].number, found[-1].time_us
            if len(rows) < MAX_TRADES:
                return Tail(last_id, last_us, FetchCounts(pages, void, written))


def _of_another(symbol: str, dataset: str, first_id: int) -> str:
    return (
        f"{symbol}: the exchange's {dataset} from id {first_id} on belong to another "
        "instrument, which has taken over the name"
    )


def refuse_unserved(settings: Settings, dataset: str, symbol: str) -> None:
    """Raise if the exchange cannot serve these trades by id.

    Raises:
        PermanentError: book tickers, single trades of futures, or a host without
            ``historicalTrades``.
    """
    if dataset not in (AGG_TRADES.name, TRADES.name):
        raise PermanentError(f"the exchange serves no past {dataset}")
    if dataset == AGG_TRADES.name:
        return
    if market_of(symbol).is_futures:
        raise PermanentError(
            f"{symbol}: ids of single trades of futures skip by design and are served only "
            "with an API key; capture agg_trades, whose ids do not skip"
        )
    if urlsplit(settings.binance_rest_url).hostname == PUBLIC_DATA_HOST:
        raise PermanentError(
            f"{PUBLIC_DATA_HOST} has no historicalTrades: set "
            "BINANCE_REST_URL=https://api.binance.com, or capture agg_trades"
        )


def record_raw_gaps(*, database_url: str, gaps: Sequence[RawGap]) -> None:
    """Record in ``ops.gaps`` the trades that raw capture has lost for good.

    A gap covers full minutes, and one minute may have several lost ranges. The gap's detail maps
    each exact range (``from/to``, ISO 8601) to its number of lost rows, null if unknown; ``rows``
    is the sum of the known numbers.
    """
    with (
        connect(database_url, application_name=APPLICATION_NAME) as connection,
        translated(connection),
        connection.transaction(),
    ):
        for gap in gaps:
            gap_id = open_gap(
                connection,
                symbol=gap.symbol,
                start_us=minute_of(gap.from_us),
                end_us=minute_of(max(gap.from_us, gap.to_us)) + MINUTE_US,
                cause=gap.cause,
                detail={**gap.detail, gap.stretch: gap.detail.get("rows")},
                dataset=gap.dataset,
            )
            count_gap_rows(connection, gap_id)


class _Served(NamedTuple):
    """A trade as the exchange serves it; a void row has an empty line."""

    number: int
    time_us: int
    line: str


_Page = Callable[[int, int], list[_Served]]
"""Fetches trades from an id on, up to a limit."""


@contextmanager
def _trade_source(
    settings: Settings, dataset: str, symbol: str, database_url: str | None
) -> Iterator[tuple[Callable[[list[str]], int], _Page]]:
    """Yield two functions: store rows and return the number of new ones; request a page."""
    refuse_unserved(settings, dataset, symbol)
    url = database_url or settings.url_for("jobs")
    is_aggregate = dataset == AGG_TRADES.name
    table, page_of = (AGG_TRADES, _agg_trades) if is_aggregate else (TRADES, _trades)
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_shared_rest(settings, market_of(symbol), url) as rest,
    ):
        yield (
            lambda lines: write_raw(connection, table, lines) if lines else 0,
            lambda from_id, limit: [
                one for one in page_of(rest, symbol, from_id, limit) if one.number >= from_id
            ],
        )


def _pages(page: _Page, what: str, first_id: int, last_id: int) -> Iterator[list[_Served]]:
    """Yield the rows with the wanted ids, page by page.

    The page size allows for one void row before each row, and one row after them.
    """
    next_id = first_id
    while next_id <= last_id:
        found = _proven(page(next_id, min(MAX_TRADES, 2 * (last_id - next_id + 1) + 1)))
        if not found:
            raise TransientError(
                f"{what}: the exchange serves none from id {next_id} on yet; last wanted {last_id}"
            )
        yield [one for one in found if one.number <= last_id]
        next_id = found[-1].number + 1


def _proven(rows: list[_Served]) -> list[_Served]:
    """Drop a void row at a page's end, with all rows of its id.

    A void row may have the id of the real trade after it, so at the end of a page it proves
    nothing.
    """
    if rows and not rows[-1].line:
        return [one for one in rows if one.number != rows[-1].number]
    return rows


def _agg_trades(rest: BinanceRest, symbol: str, from_id: int, limit: int) -> list[_Served]:
    rows = rest.agg_trades(exchange_symbol_of(symbol), from_id=from_id, limit=limit)
    return [
        _Served(
            row.id,
            time_us := microseconds(row.trade_time),
            ""
            if row.is_void
            else AGG_TRADES.line(
                (
                    symbol, row.id, row.price, row.quantity, row.first_trade_id,
                    row.last_trade_id, time_us, row.is_buyer_maker,
                )
            ),
        )
        for row in rows
    ]  # fmt: skip


def _trades(rest: BinanceRest, symbol: str, from_id: int, limit: int) -> list[_Served]:
    rows = rest.trades(exchange_symbol_of(symbol), from_id=from_id, limit=limit)
    return [
        _Served(
            row.id,
            time_us := microseconds(row.trade_time),
            ""
            if row.is_void
            else TRADES.line(
                (
                    symbol, row.id, row.price, row.quantity, row.quote_quantity, time_us,
                    row.is_buyer_maker,
                )
            ),
        )
        for row in rows
    ]  # fmt: skip
