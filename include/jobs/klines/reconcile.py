"""Reconcile days: compare the live path, REST, the daily and the monthly file.

Sources that were not compared yet are read and merged: the most authoritative row wins, and the
other values are stored as discrepancies. The result is one row for each symbol and day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, time

import structlog

from include.binance.files.dumps import DumpEntry, DumpSite
from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.counts import counted
from include.domain.instruments import Market, market_of
from include.domain.timeframes import DAY_US, to_us
from include.errors import PermanentError, TransientError, UnknownSymbolError
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.klines.daily import day_groups, is_new_month, monthly_pieces, plan_day
from include.jobs.klines.dump_loading import KIND, load_dump_piece
from include.jobs.klines.minutes import fetch_minutes
from include.jobs.klines.pieces import (
    DayGroup,
    DayPiece,
    DumpPiece,
    LoadCounts,
    Moment,
    Reconciled,
    gaps_in,
)
from include.store.candles.merging import Connection
from include.store.ledgers.reconciliation import (
    DayVerdict,
    answered_by_rest,
    compare_day,
    note_live,
)
from include.store.ledgers.verdicts import (
    days_before_file,
    find_loaded,
    read_verdicts,
    record_verdicts,
)
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)


def plan_reconciliation(
    *,
    settings: Settings,
    start: Moment,
    end: Moment,
    symbols: str = "",
    market: Market | str = Market.SPOT,
) -> list[DayGroup]:
    """Return the days that a run reconciles, in groups; see ``daily.plan_day``.

    Raises:
        PermanentError, TransientError: as ``plan_day``.
    """
    pieces = plan_day(settings=settings, start=start, end=end, symbols=symbols, market=market)
    return day_groups(pieces)


def reconcile_group(*, settings: Settings, group: DayGroup) -> Reconciled:
    """Read the sources that are not compared yet, merge, compare, and store the verdicts.

    Repeating it reads only files published since, and REST for minutes that other sources have and
    REST lacked.

    Raises:
        TransientError, RateLimitedError: exchange or database is away; finished days stay.
        PermanentError: some days could not be reconciled; the others were.
    """
    url = settings.url_for("jobs")
    total, verdicts = LoadCounts(), Counter[str]()
    refused: list[str] = []
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        for market in Market:
            of_market = [one for one in group.pieces if market_of(one.symbol) is market]
            if not of_market:
                continue
            with open_shared_rest(settings, market, url) as rest:
                for piece in of_market:
                    try:
                        counts, verdict = _reconcile(connection, rest, site, settings, piece)
                    except PermanentError as error:  # concerns one symbol; reconcile the others
                        log.warning("day_not_reconciled", day=piece.label, error=str(error))
                        refused.append(f"{piece.label}: {error}")
                        continue
                    total += counts
                    verdicts[verdict] += 1
    if refused:
        raise PermanentError(
            f"{len(refused)} of {counted(len(group.pieces), 'day')}: {'; '.join(refused[:5])}"
        )
    return Reconciled(dict(verdicts), total)


def report(
    *, settings: Settings, groups: Sequence[DayGroup], results: Sequence[Reconciled]
) -> Reconciled:
    """Log the result of each symbol and day, those that need attention first.

    Args:
        groups: of the plan.
        results: what ``reconcile_group`` returned for each group that succeeded.

    Raises:
        PermanentError: groups failed; the results of the others were logged.
    """
    pieces = [one for group in groups for one in group.pieces]
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
    counts = sum((one.counts for one in results), LoadCounts())
    verdicts = dict(Counter(row.verdict for row in rows))
    log.info("reconciled", days=len(rows), **verdicts, changed_rows=counts.changed)
    if len(results) < len(groups):
        raise PermanentError(
            f"{len(groups) - len(results)} of {counted(len(groups), 'group')} of days failed: see "
            "the red tasks of this run"
        )
    return Reconciled(verdicts, counts)


_ORDER = {"differs": 0, "incomplete": 1, "agrees": 2}


def _reconcile(
    connection: Connection,
    rest: BinanceRest,
    site: DumpSite,
    settings: Settings,
    piece: DayPiece,
) -> tuple[LoadCounts, str]:
    """Reconcile one symbol and day; return its counts and verdict."""
    start_us, end_us = piece.day_us, piece.day_us + DAY_US
    note_live(connection, piece.symbol, start_us, end_us)
    counts = LoadCounts()
    counts += _request_rest(connection, rest, piece.symbol, start_us, end_us)
    dump = piece.dump
    if _is_new_issue(connection, dump, _listed(site, dump.path)):
        counts += load_dump_piece(settings=settings, piece=dump)
    days = {piece.day_us}
    for month in monthly_pieces(piece.symbol, piece.day_us):
        if is_new_month(connection, site, month):
            counts += load_dump_piece(settings=settings, piece=month)
        # Includes months of an interrupted run, and months that another process has loaded.
        days.update(
            days_before_file(
                connection, piece.symbol, month.path, month.start_us, month.end_us, kind=KIND
            )
        )
    for day_us in sorted(days):
        record_verdicts(connection, compare_day(connection, [piece.symbol], day_us))
    rows = read_verdicts(connection, [piece.symbol], start_us, end_us)
    return counts, rows[0].verdict if rows else "incomplete"


def _request_rest(
    connection: Connection, rest: BinanceRest, symbol: str, start_us: int, end_us: int
) -> LoadCounts:
    """Fetch by REST the minutes that REST has not confirmed yet, if it still knows the symbol.

    Minutes without a row are requested again once other sources have one.
    """
    counts = LoadCounts()
    answered = answered_by_rest(connection, symbol, start_us, end_us)
    for first_us, until_us in gaps_in(answered, start_us, end_us):
        try:
            counts += fetch_minutes(
                connection, rest, symbol=symbol, start_us=first_us, end_us=until_us
            )
        except UnknownSymbolError as error:
            log.warning("rest_knows_no_more", symbol=symbol, error=str(error))
            break
    return counts


def _listed(site: DumpSite, path: str) -> DumpEntry | None:
    """Return a file's entry in the site's listing; None if unpublished or if the listing fails."""
    try:
        return next((one for one in site.list(path) if one.path == path), None)
    except TransientError as error:
        log.warning("dump_not_listed", path=path, error=str(error))
        return None


def _is_new_issue(connection: Connection, piece: DumpPiece, entry: DumpEntry | None) -> bool:
    """Whether a file was published, or published again, since it was loaded completely."""
    if entry is None:
        return False
    known = find_loaded(connection, piece.path, piece.start_us, piece.end_us, kind=KIND)
    if known is None or known.published_at_us is None:
        return True
    # HTTP dates have whole seconds.
    return entry.published_at_us // 1_000_000 > known.published_at_us // 1_000_000


def _day_us(verdict: DayVerdict) -> int:
    return to_us(datetime.combine(verdict.day, time(), UTC))
