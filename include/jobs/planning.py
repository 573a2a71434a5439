"""Planning a backfill: which minutes are missing, and the cheapest sure source of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from include.binance.dumps import DumpEntry, DumpSite, daily_path, klines_prefix, monthly_path
from include.binance.klines import settled_until
from include.binance.rest import BinanceRest
from include.config import Settings
from include.domain.candles import Source
from include.domain.instruments import Market, exchange_symbol_of, market_of, unknown_symbol
from include.domain.timeframes import DAY_US, MINUTE_US, TIMEFRAMES, from_us, minute_of, to_us
from include.errors import RateLimitedError, TransientError, UnknownSymbolError
from include.jobs.dump_loading import window_of
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.pieces import (
    BackfillPlan,
    DumpPiece,
    Moment,
    Ranges,
    RestPiece,
    first_minute,
    holes_in,
    label_of,
    market_from,
    minutes_in,
    symbols_of,
)
from include.store.candles import missing_minutes
from include.store.health import server_time
from include.store.ledgers import find_dump_file
from include.store.merging import Connection
from include.store.pools import connect

log = structlog.get_logger(__name__)

MONTH = TIMEFRAMES["1M"]
DAY = TIMEFRAMES["1d"]

LEAST_DAYS_FOR_A_MONTH = 8
"""Days of a month that must be missing for the monthly file to be cheaper than daily ones."""

LEAST_MINUTES_FOR_A_DAY = 720
"""Missing minutes of a day for which its file is cheaper than a page of REST."""

REST_PIECE_MINUTES = 10_000
"""Longest range of one REST piece: ten pages on spot."""

JOINED_HOLES_MINUTES = 500
"""Holes that lie closer are asked for together: half a page of known rows costs nothing."""


def plan_backfill(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: Market | str,
    start: Moment,
    end: Moment | None = None,
    verify: bool = False,
    in_part: bool = False,
) -> BackfillPlan:
    """Find what is missing and plan where to take it from.

    Missing are minutes between the symbol's first and last row at the exchange that have neither
    an outage nor a verified row: what the exchange has not confirmed is asked for too. Months of
    which most is missing come from monthly dumps, days from daily ones, the tail and the holes
    from REST. Dump files that were re-issued since they were loaded are planned again. Nothing is
    written.

    Args:
        symbols: names as people type them; see ``symbols_of``.
        start, end: half-open; ``end`` None is the last minute that REST has settled.
        verify: plan the dumps of the whole range, even where nothing is missing, so that they
            are compared with what is stored.
        in_part: where REST does not answer for a symbol, plan its dump files and the other
            symbols, and name it in ``unplanned``, instead of raising.

    Raises:
        PermanentError: an unknown symbol, a time that cannot be read, or nothing to plan.
        TransientError, RateLimitedError: the exchange or the database are away.
    """
    place = market_from(market)
    names = symbols_of(symbols, place)
    start_us = first_minute(start, name="start")
    end_us = None if end is None else first_minute(end, name="end")
    url = settings.url_for("jobs")
    plan = BackfillPlan()
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        for each in Market:
            of_market = [name for name in names if market_of(name) is each]
            if not of_market:
                continue
            with open_shared_rest(settings, each, url) as rest:
                planner = _Planner(connection, rest, site, verify=verify)
                for symbol in of_market:
                    try:
                        plan += planner.plan(symbol, start_us, end_us, in_part=in_part)
                    except UnknownSymbolError as error:
                        listed = [one.symbol for one in rest.exchange_info()]
                        raise UnknownSymbolError(unknown_symbol(symbol, listed)) from error
    log.info(
        "backfill_planned",
        symbols=len(names),
        missing_minutes=plan.missing_minutes,
        dumps=len(plan.dumps),
        rest=len(plan.rest),
    )
    return plan


class _Planner:
    """Plans symbols of one market."""

    def __init__(
        self, connection: Connection, rest: BinanceRest, site: DumpSite, *, verify: bool
    ) -> None:
        self._connection = connection
        self._rest = rest
        self._site = site
        self._verify = verify

    def plan(
        self, symbol: str, start_us: int, end_us: int | None, *, in_part: bool = False
    ) -> BackfillPlan:
        """What one symbol needs; with ``in_part`` only its dumps where REST does not answer."""
        try:
            span = self._span_at_exchange(symbol, start_us, end_us)
        except RateLimitedError:
            raise  # the whole address has to wait
        except TransientError as error:
            if not in_part:
                raise
            log.warning("rest_does_not_answer", symbol=symbol, error=str(error))
            return self._plan_of_dumps(symbol, start_us, end_us, error)
        if span is None:
            return BackfillPlan(notes=(f"{symbol}: the exchange has no rows in this range",))
        start_us, end_us = span
        missing = missing_minutes(self._connection, symbol, start_us, end_us, unsure=True)
        notes: tuple[str, ...] = ()
        monthly: dict[str, DumpEntry] = {}
        daily: dict[str, DumpEntry] = {}
        try:
            monthly = self._listed(symbol, "monthly", start_us, end_us)
            daily = self._listed(symbol, "daily", start_us, end_us)
        except TransientError as error:
            notes = (f"{symbol}: no dumps, since their site does not answer: {error}",)
            log.warning("dumps_not_listed", symbol=symbol, error=str(error))
        dumps = self._dumps(symbol, missing, (start_us, end_us), monthly, daily)
        covered = sorted((piece.start_us, piece.end_us) for piece in dumps)
        rest = [part for hole in missing for part in holes_in(covered, *hole)]
        return BackfillPlan(
            tuple(dumps), tuple(_rest_pieces(symbol, rest)), minutes_in(missing), notes
        )

    def _plan_of_dumps(
        self, symbol: str, start_us: int, end_us: int | None, reason: TransientError
    ) -> BackfillPlan:
        """The published files of a range, where only they can say what the exchange has."""
        if end_us is None:
            end_us = minute_of(to_us(server_time(self._connection)))
        try:
            monthly = self._listed(symbol, "monthly", start_us, end_us)
            daily = self._listed(symbol, "daily", start_us, end_us)
        except TransientError:
            return BackfillPlan(unplanned=(f"{symbol}: {reason}",))
        missing = missing_minutes(self._connection, symbol, start_us, end_us, unsure=True)
        dumps = self._dumps(symbol, missing, (start_us, end_us), monthly, daily)
        covered = sum((piece.end_us - piece.start_us) // MINUTE_US for piece in dumps)
        return BackfillPlan(
            tuple(dumps),
            missing_minutes=covered,
            unplanned=(f"{symbol}: only its dump files are planned, since {reason}",),
        )

    def _span_at_exchange(
        self, symbol: str, start_us: int, end_us: int | None
    ) -> tuple[int, int] | None:
        """The range, cut to the symbol's first and last settled row at the exchange."""
        name = exchange_symbol_of(symbol)
        oldest = self._rest.klines(name, "1m", start_us, None, limit=1).candles
        newest = self._rest.klines(name, "1m", None, None, limit=1)
        if not oldest:
            return None
        first_us = oldest[0].open_time_us
        if first_us > start_us and self._rest.klines(name, "1m", None, start_us, limit=1).candles:
            first_us = start_us  # the range begins inside an outage, not before the listing
        last_us = minute_of(settled_until(newest.server_time_us))
        if newest.candles and last_us - newest.candles[0].open_time_us > DAY_US:
            last_us = newest.candles[0].open_time_us + MINUTE_US  # it trades no more
        if end_us is not None:
            last_us = min(last_us, end_us)
        return (first_us, last_us) if first_us < last_us else None

    def _listed(self, symbol: str, period: str, start_us: int, end_us: int) -> dict[str, DumpEntry]:
        """Published files that touch the range, by path."""
        make = daily_path if period == "daily" else monthly_path
        frame = DAY if period == "daily" else MONTH
        before = make(symbol, from_us(frame.open_time_us(start_us) - 1))
        until = make(symbol, from_us(frame.next_open_us(frame.open_time_us(end_us - 1))))
        entries = self._site.list(klines_prefix(symbol, period), after=before, until=until)
        return {entry.path: entry for entry in entries if entry.path.endswith(".zip")}

    def _dumps(
        self,
        symbol: str,
        missing: Ranges,
        span: tuple[int, int],
        monthly: dict[str, DumpEntry],
        daily: dict[str, DumpEntry],
    ) -> list[DumpPiece]:
        by_day = _minutes_by_day([span] if self._verify else missing)
        by_month: dict[int, list[int]] = {}
        for day_us, minutes in by_day.items():
            if minutes >= LEAST_MINUTES_FOR_A_DAY:
                by_month.setdefault(MONTH.open_time_us(day_us), []).append(day_us)
        chosen: dict[str, DumpPiece] = {}
        for month_us, days in by_month.items():
            path = monthly_path(symbol, from_us(month_us))
            if len(days) >= LEAST_DAYS_FOR_A_MONTH and path in monthly and not self._verify:
                chosen[path] = _dump_piece(symbol, path, Source.DUMP_MONTHLY, span)
                continue
            for day_us in days:
                path = daily_path(symbol, from_us(day_us))
                if path in daily:
                    chosen[path] = _dump_piece(symbol, path, Source.DUMP_DAILY, span)
        for entries, source in ((monthly, Source.DUMP_MONTHLY), (daily, Source.DUMP_DAILY)):
            for path in self._reissued(entries):
                chosen.setdefault(path, _dump_piece(symbol, path, source, span))
        return list(chosen.values())

    def _reissued(self, entries: dict[str, DumpEntry]) -> list[str]:
        """Files published anew since the ledger last saw them."""
        paths = []
        for path, entry in entries.items():
            known = find_dump_file(self._connection, path)
            if known is None or known.published_at_us is None:
                continue
            # HTTP dates have whole seconds
            if entry.published_at_us // 1_000_000 > known.published_at_us // 1_000_000:
                paths.append(path)
        return paths


def _minutes_by_day(ranges: Ranges) -> dict[int, int]:
    """Minutes of ranges in each UTC day."""
    days: dict[int, int] = {}
    for start_us, end_us in ranges:
        cursor = start_us
        while cursor < end_us:
            day_us = DAY.open_time_us(cursor)
            stop = min(end_us, day_us + DAY_US)
            days[day_us] = days.get(day_us, 0) + (stop - cursor) // MINUTE_US
            cursor = stop
    return days


def _dump_piece(symbol: str, path: str, source: Source, span: tuple[int, int]) -> DumpPiece:
    start_us, end_us = window_of(path)
    period = path.removesuffix(".zip").rsplit("-1m-", 1)[1]
    return DumpPiece(
        symbol=symbol,
        label=f"{symbol} {period}",
        path=path,
        source=source.value,
        start_us=max(start_us, span[0]),
        end_us=min(end_us, span[1]),
    )


def _rest_pieces(symbol: str, holes: Ranges) -> Iterable[RestPiece]:
    """Ranges for REST: near holes joined, long ones cut."""
    joined: Ranges = []
    for start_us, end_us in sorted(holes):
        if joined and start_us - joined[-1][1] < JOINED_HOLES_MINUTES * MINUTE_US:
            joined[-1] = (joined[-1][0], end_us)
        else:
            joined.append((start_us, end_us))
    for start_us, end_us in joined:
        for cursor in range(start_us, end_us, REST_PIECE_MINUTES * MINUTE_US):
            stop = min(end_us, cursor + REST_PIECE_MINUTES * MINUTE_US)
            yield RestPiece(symbol, label_of(symbol, cursor, stop), cursor, stop)
