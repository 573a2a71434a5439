"""Reconciling days: the live path, REST, the daily and the monthly file, side by side.

Everybody who has not spoken about a day yet is asked, what they say is merged (the greatest
evidence wins, the losers are kept), and what came of it is one row a symbol and day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from include.binance.dumps import DumpEntry, DumpSite
from include.binance.rest import BinanceRest
from include.config import Settings
from include.domain.candles import Source
from include.domain.instruments import Market, market_of
from include.domain.timeframes import DAY_US, TIMEFRAMES
from include.errors import TransientError
from include.jobs.daily import DayPiece, as_day_piece, dump_pieces, new_monthly_pieces, plan_day
from include.jobs.dump_loading import load_dump_piece
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.minutes import fetch_minutes
from include.jobs.pieces import LoadCounts, Moment, holes_in
from include.store.ledgers import find_dump_file, read_coverage
from include.store.merging import Connection
from include.store.pools import connect
from include.store.reconciliation import (
    DayVerdict,
    compare_day,
    note_live,
    read_verdicts,
    record_verdicts,
)

log = structlog.get_logger(__name__)

MONTH = TIMEFRAMES["1M"]

GROUP_DAYS = 25
"""Days of symbols that one task reconciles: fewer tasks, and a retry repeats little."""


@dataclass(frozen=True, slots=True)
class DayGroup:
    """Days of symbols that are reconciled together."""

    label: str
    pieces: tuple[DayPiece, ...]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What came of reconciling, summable.

    Attributes:
        days: days of symbols by verdict.
        counts: rows that were offered on the way.
    """

    days: dict[str, int] = field(default_factory=dict)
    counts: LoadCounts = field(default_factory=LoadCounts)


def plan_reconciliation(
    *,
    settings: Settings,
    start: Moment,
    end: Moment,
    symbols: str = "",
    market: Market | str = Market.SPOT,
) -> list[DayGroup]:
    """The days that a run reconciles, in groups; see ``daily.plan_day``.

    Raises:
        PermanentError, TransientError: as ``plan_day``.
    """
    pieces = plan_day(settings=settings, start=start, end=end, symbols=symbols, market=market)
    groups = [pieces[first : first + GROUP_DAYS] for first in range(0, len(pieces), GROUP_DAYS)]
    return [DayGroup(_label_of(group), tuple(group)) for group in groups]


def reconcile_group(*, settings: Settings, group: DayGroup | Mapping[str, Any]) -> Reconciled:
    """Ask whoever has not spoken about these days, merge, compare, and keep the verdicts.

    Doing it again asks nobody twice, except for files that were published since.

    Raises:
        TransientError, RateLimitedError: exchange or database are away; what is done stays.
        PermanentError: the exchange does not know a symbol, or a setting is wrong.
    """
    pieces = [as_day_piece(one) for one in _pieces_of(group)]
    url = settings.url_for("jobs")
    total, verdicts = LoadCounts(), Counter[str]()
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        for market in Market:
            of_market = [one for one in pieces if market_of(one.symbol) is market]
            if not of_market:
                continue
            with open_shared_rest(settings, market, url) as rest:
                for piece in of_market:
                    counts, verdict = _reconcile(connection, rest, site, settings, piece)
                    total += counts
                    verdicts[verdict] += 1
    return Reconciled(dict(verdicts), total)


def report(
    *, settings: Settings, groups: Iterable[DayGroup | Mapping[str, Any]], results: Iterable[Any]
) -> Reconciled:
    """Tell in the log how each symbol and day came out, those that want a look first.

    Args:
        groups: of the plan.
        results: what ``reconcile_group`` gave for each.
    """
    pieces = [as_day_piece(one) for group in groups for one in _pieces_of(group)]
    wanted = {(one.symbol, one.day_us) for one in pieces}
    rows: list[DayVerdict] = []
    if pieces:
        days = [one.day_us for one in pieces]
        symbols = sorted({one.symbol for one in pieces})
        with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
            rows = read_verdicts(connection, symbols, min(days), max(days) + DAY_US)
        rows = [one for one in rows if (one.symbol, _day_us(one)) in wanted]
    for row in sorted(rows, key=lambda one: (_ORDER[one.verdict], one.day, one.symbol)):
        figures = asdict(row) | {"day": row.day.isoformat()}
        if row.verdict == "agrees":
            log.info("day_reconciled", **figures)
        else:
            log.warning("day_reconciled", **figures)
    counts = LoadCounts()
    for result in results:
        one = result["counts"] if isinstance(result, Mapping) else asdict(result.counts)
        counts += LoadCounts(**one)
    verdicts = dict(Counter(row.verdict for row in rows))
    log.info("reconciled", days=len(rows), **verdicts, changed_rows=counts.changed)
    return Reconciled(verdicts, counts)


_ORDER = {"differs": 0, "incomplete": 1, "agrees": 2}


def _reconcile(
    connection: Connection,
    rest: BinanceRest,
    site: DumpSite,
    settings: Settings,
    piece: DayPiece,
) -> tuple[LoadCounts, str]:
    """One symbol and day; returns its counts and verdict."""
    start_us, end_us = piece.day_us, piece.day_us + DAY_US
    note_live(connection, piece.symbol, start_us, end_us)
    counts = LoadCounts()
    spoken = read_coverage(connection, piece.symbol, Source.REST, start_us, end_us)
    for first_us, until_us in holes_in(spoken, start_us, end_us):
        counts += fetch_minutes(
            connection, rest, symbol=piece.symbol, start_us=first_us, end_us=until_us
        )
    (dump,) = dump_pieces(pieces=[piece])
    if _is_news(connection, _listed(site, dump.path)):
        counts += load_dump_piece(settings=settings, piece=dump)
    days = [piece.day_us]
    for monthly in new_monthly_pieces(connection, settings, piece.symbol, piece.day_us):
        note_live(connection, piece.symbol, monthly.start_us, monthly.end_us)
        counts += load_dump_piece(settings=settings, piece=monthly)
        days += _known_days(connection, piece.symbol, monthly.start_us, monthly.end_us)
    for day_us in days:
        record_verdicts(connection, compare_day(connection, [piece.symbol], day_us))
    rows = read_verdicts(connection, [piece.symbol], start_us, end_us)
    return counts, rows[0].verdict if rows else "incomplete"


def _listed(site: DumpSite, path: str) -> DumpEntry | None:
    """A file's entry in the site's listing; None where it is not published, or cannot be seen."""
    try:
        return next((one for one in site.list(path) if one.path == path), None)
    except TransientError as error:
        log.warning("dump_not_listed", path=path, error=str(error))
        return None


def _is_news(connection: Connection, entry: DumpEntry | None) -> bool:
    """Whether a file was published, or published anew, since it was loaded."""
    if entry is None:
        return False
    known = find_dump_file(connection, entry.path)
    if known is None or known.verdict != "loaded" or known.published_at_us is None:
        return True
    # HTTP dates have whole seconds
    return entry.published_at_us // 1_000_000 > known.published_at_us // 1_000_000


def _known_days(connection: Connection, symbol: str, start_us: int, end_us: int) -> list[int]:
    """Days of a range that were reconciled before, whose verdict a monthly file may change."""
    return [_day_us(one) for one in read_verdicts(connection, [symbol], start_us, end_us)]


def _day_us(verdict: DayVerdict) -> int:
    return (verdict.day.toordinal() - _EPOCH) * DAY_US


_EPOCH = 719_163
"""Ordinal of 1970-01-01."""


def _pieces_of(group: DayGroup | Mapping[str, Any]) -> Sequence[DayPiece | Mapping[str, Any]]:
    return group["pieces"] if isinstance(group, Mapping) else group.pieces


def _label_of(pieces: Sequence[DayPiece]) -> str:
    first, last = pieces[0], pieces[-1]
    return first.label if len(pieces) == 1 else f"{first.label} … {last.label} ({len(pieces)})"
