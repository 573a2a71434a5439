"""Load plans of derivative series, and keep what was loaded once up to date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from include.config import Settings
from include.domain.series.kinds import Series
from include.domain.timeframes import DAY_US, MINUTE_US, to_us
from include.jobs.derivatives.loading import load_series_piece
from include.jobs.derivatives.pieces import SeriesGroup, SeriesPiece, SeriesPlan
from include.jobs.derivatives.planning import plan_series
from include.jobs.exchange import APPLICATION_NAME
from include.jobs.groups import KLINE_PIECES_A_TASK, label_of_group, split
from include.jobs.klines.backfill import TASK_WORKERS, WORKERS, raise_if_failed
from include.jobs.klines.pieces import LoadCounts, Moment
from include.jobs.piece_loading import BackfillProgress, load_concurrently
from include.store.ledgers.health import server_time
from include.store.postgres.pools import connect
from include.store.series.coverage import covered_series

SYNC_DAYS = 35
"""A sync plans the last month, so that the file of a month that ended is found."""


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """Result of a load.

    Attributes:
        failed: pieces that could not be loaded, and symbols that could not be planned, with the
            reason; another run plans them again.
    """

    counts: LoadCounts
    failed: tuple[str, ...]


def load_series_pieces(
    *,
    settings: Settings,
    plan: SeriesPlan,
    workers: int = WORKERS,
    on_progress: Callable[[BackfillProgress], None] | None = None,
) -> SeriesSummary:
    """Load the pieces of a plan concurrently.

    Args:
        on_progress: called in this thread after each piece.

    Raises:
        PermanentError: the exchange does not know a symbol, or a setting is wrong.
    """
    counts, failed = load_concurrently(
        plan.pieces,
        lambda piece: load_series_piece(settings=settings, piece=piece),
        minutes=_minutes,
        workers=workers,
        on_progress=on_progress,
    )
    return SeriesSummary(counts, (*plan.unplanned, *failed))


def plan_series_groups(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: str,
    series: str | Sequence[str],
    start: Moment | None,
    end: Moment,
) -> list[SeriesGroup]:
    """Plan a load in groups of pieces, one for each task.

    Args:
        symbols: empty for what is new of each symbol and series that was ever loaded; then the
            other arguments do not matter.

    Raises:
        PermanentError, TransientError, RateLimitedError: as ``plan_series``.
    """
    if not symbols or (isinstance(symbols, str) and not symbols.strip()):
        plan = plan_sync(settings=settings)
    else:
        plan = plan_series(
            settings=settings, symbols=symbols, market=market, series=series, start=start, end=end
        )
        raise_if_failed(plan.unplanned, pieces=len(plan.pieces) + len(plan.unplanned))
    return [
        SeriesGroup(label_of_group([one.label for one in pieces]), tuple(pieces))
        for pieces in split(plan.pieces, usual=KLINE_PIECES_A_TASK)
    ]


def plan_sync(*, settings: Settings) -> SeriesPlan:
    """Plan what is new of each symbol and series that was ever loaded.

    A series that cannot be planned is logged, and planned again by the next run.

    Raises:
        TransientError: the database is away.
        RateLimitedError: the exchange demands a pause.
        PermanentError: a setting is wrong.
    """
    with connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection:
        now_us = to_us(server_time(connection))
        wanted: dict[str, list[Series]] = defaultdict(list)
        for symbol, series in covered_series(connection):
            wanted[symbol].append(series)
    plan = SeriesPlan()
    for symbol, of_symbol in wanted.items():
        plan += plan_series(
            settings=settings,
            symbols=symbol,
            series=[one.value for one in of_symbol],
            start=now_us - SYNC_DAYS * DAY_US,
        )
    return plan


def load_series_group(*, settings: Settings, group: SeriesGroup) -> LoadCounts:
    """Load the pieces of a group, or fail after all were tried.

    Raises:
        TransientError: some could not be loaded; the others are.
        PermanentError: the exchange does not know a symbol, or a setting is wrong.
    """
    plan = SeriesPlan(group.pieces)
    loaded = load_series_pieces(settings=settings, plan=plan, workers=TASK_WORKERS)
    raise_if_failed(loaded.failed, pieces=len(plan.pieces))
    return loaded.counts


def _minutes(piece: SeriesPiece) -> int:
    return (piece.end_us - piece.start_us) // MINUTE_US
