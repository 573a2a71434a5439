"""Plan the daily runs: symbols, days and files, and whether the files are published yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from include.binance.files.dumps import DumpSite, daily_path, monthly_path
from include.config import Settings
from include.domain.candles import Source
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, TIMEFRAMES, from_us
from include.errors import PermanentError
from include.jobs.exchange import APPLICATION_NAME, open_dump_site
from include.jobs.groups import label_of_group, split
from include.jobs.klines.backfill import load_all
from include.jobs.klines.dump_loading import KIND
from include.jobs.klines.pieces import (
    BackfillPlan,
    DayGroup,
    DayPiece,
    DumpPiece,
    LoadCounts,
    Moment,
    moment_us,
    symbols_of,
)
from include.store.candles.merging import Connection
from include.store.ledgers.reconciliation import expected_symbols, has_rows
from include.store.ledgers.verdicts import find_loaded, read_verdicts
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

DAY = TIMEFRAMES["1d"]
MONTH = TIMEFRAMES["1M"]

CATCH_UP_DAYS = 7
"""Days before a run's own range that are caught up if they were not fully reconciled."""

GROUP_DAYS = 25
"""Usual symbol days of one task: few tasks, and a retry repeats little."""

MONTHS_BACK = 3
"""Monthly files are published up to mid-month, sometimes later."""


def plan_day(
    *,
    settings: Settings,
    start: Moment,
    end: Moment,
    symbols: str = "",
    market: Market | str = Market.SPOT,
) -> list[DayPiece]:
    """Return the days of symbols for a daily run, oldest first.

    These are the days of the run's range. For symbols that are loaded every day, days of the week
    before that were not fully reconciled are added, so that missed runs are caught up.

    Args:
        start, end: the run's data interval; only its whole UTC days count.
        symbols: names as users type them; empty for all with rows in these days or in the week
            before.
        market: of symbols without ``.P``.

    Raises:
        PermanentError: the range contains no whole UTC day, or a symbol is invalid.
        TransientError: the database is away.
    """
    first_us, end_us = _days_of(start, end)
    named = symbols_of(symbols, market) if symbols.strip() else None
    pieces: list[DayPiece] = []
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        since_us = first_us if named else first_us - CATCH_UP_DAYS * DAY_US
        for day_us in range(since_us, end_us, DAY_US):
            wanted = named or expected_symbols(connection, day_us, day_us + DAY_US)
            if day_us < first_us:
                verdicts = read_verdicts(connection, wanted, day_us, day_us + DAY_US)
                done = {one.symbol for one in verdicts if one.is_complete}
                wanted = [symbol for symbol in wanted if symbol not in done]
            pieces += [_day_piece(symbol, day_us) for symbol in wanted]
    log.info(
        "day_planned",
        start=from_us(first_us).date().isoformat(),
        end=from_us(end_us).date().isoformat(),
        symbols=len({piece.symbol for piece in pieces}),
        days=len({piece.day_us for piece in pieces}),
        caught_up=sum(piece.day_us < first_us for piece in pieces),
    )
    return pieces


def plan_dumps(
    *,
    settings: Settings,
    start: Moment,
    end: Moment,
    symbols: str = "",
    market: Market | str = Market.SPOT,
) -> list[DayGroup]:
    """Return the days of a run in groups; see ``plan_day``.

    Raises:
        PermanentError, TransientError: as ``plan_day``.
    """
    return day_groups(
        plan_day(settings=settings, start=start, end=end, symbols=symbols, market=market)
    )


def day_groups(pieces: Sequence[DayPiece]) -> list[DayGroup]:
    """Group days, so that one task works on several."""
    return [
        DayGroup(label_of_group([piece.label for piece in run]), tuple(run))
        for run in split(pieces, usual=GROUP_DAYS)
    ]


def load_days(*, settings: Settings, group: DayGroup) -> LoadCounts:
    """Load the daily files of a group.

    Raises:
        TransientError, PermanentError: as ``load_all``.
    """
    dumps = tuple(piece.dump for piece in group.pieces)
    return load_all(settings=settings, plan=BackfillPlan(dumps=dumps))


def paths_of(*, plan: Iterable[DayGroup], since_us: int) -> list[str]:
    """Return a plan's files whose days start at ``since_us`` or later."""
    days = (day for group in plan for day in group.pieces)
    return [day.path for day in days if day.day_us >= since_us]


def unpublished(*, settings: Settings, paths: Sequence[str]) -> list[str]:
    """Return the files that the dump site does not have yet.

    Raises:
        TransientError, PermanentError: the site does not answer, or refuses to.
    """
    with open_dump_site(settings) as site:
        return [path for path in paths if not site.is_published(path)]


def monthly_pieces(symbol: str, day_us: int) -> list[DumpPiece]:
    """Return the monthly files of the last months that ended before a day, newest first."""
    pieces = []
    month_us = MONTH.open_time_us(day_us)
    for _ in range(MONTHS_BACK):
        month_us = MONTH.open_time_us(month_us - 1)
        path = monthly_path(symbol, from_us(month_us))
        label = f"{symbol} {from_us(month_us):%Y-%m}"
        end_us = MONTH.next_open_us(month_us)
        pieces.append(DumpPiece(symbol, label, path, Source.DUMP_MONTHLY.value, month_us, end_us))
    return pieces


def is_new_month(connection: Connection, site: DumpSite, piece: DumpPiece) -> bool:
    """Whether a monthly file is published but not fully loaded, and the table has rows of its
    month.

    Raises:
        TransientError, PermanentError: the site or the database does not answer.
    """
    span = (piece.start_us, piece.end_us)
    return (
        find_loaded(connection, piece.path, *span, kind=KIND) is None
        and has_rows(connection, piece.symbol, *span)
        and site.is_published(piece.path)
    )


def _day_piece(symbol: str, day_us: int) -> DayPiece:
    day = from_us(day_us)
    return DayPiece(symbol, f"{symbol} {day:%Y-%m-%d}", day_us, daily_path(symbol, day))


def _days_of(start: Moment, end: Moment) -> tuple[int, int]:
    start_us, end_us = moment_us(start, name="start"), moment_us(end, name="end")
    first_us, until_us = DAY.open_time_us(start_us + DAY_US - 1), DAY.open_time_us(end_us)
    if first_us >= until_us:
        raise PermanentError(
            f"{from_us(start_us).isoformat()} to {from_us(end_us).isoformat()} contains no whole "
            "UTC day"
        )
    return first_us, until_us
