"""Backfill history: plan, load the pieces, sum up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import structlog

from include.config import Settings
from include.counts import counted
from include.domain.instruments import Market, market_of
from include.domain.sourcing import FillMode
from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.jobs.klines.dump_loading import load_dump_piece
from include.jobs.klines.minutes import fetch_minutes
from include.jobs.klines.pieces import (
    BackfillPlan,
    DumpPiece,
    LoadCounts,
    Moment,
    RestPiece,
    summarise,
)
from include.jobs.klines.planning import plan_backfill
from include.jobs.piece_loading import BackfillProgress, load_concurrently
from include.store.postgres.pools import connect

__all__ = [
    "BackfillPlan",
    "BackfillProgress",
    "BackfillSummary",
    "DumpPiece",
    "LoadCounts",
    "RestPiece",
    "backfill",
    "load_dump_piece",
    "load_piece",
    "load_pieces",
    "load_rest_piece",
    "plan_backfill",
    "summarise",
]

log = structlog.get_logger(__name__)

WORKERS = 4
"""Pieces loaded concurrently: parsing, copying and waiting for the network overlap."""

TASK_WORKERS = 2
"""The same in a task of Airflow, which runs two of them at a time."""
MAX_FAILED_SHOWN = 5


@dataclass(frozen=True, slots=True)
class BackfillSummary:
    """Result of a backfill.

    Attributes:
        failed: pieces that could not be loaded, with the reason; another run plans them again.
    """

    plan: BackfillPlan
    counts: LoadCounts
    failed: tuple[str, ...]


def load_rest_piece(*, settings: Settings, piece: RestPiece) -> LoadCounts:
    """Fetch the minutes of a piece by REST and merge them.

    Raises:
        TransientError, RateLimitedError: exchange or database is away.
        PermanentError: the exchange does not know the symbol, or a setting is wrong.
    """
    url = settings.url_for("jobs")
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_shared_rest(settings, market_of(piece.symbol), url) as rest,
    ):
        return fetch_minutes(
            connection, rest, symbol=piece.symbol, start_us=piece.start_us, end_us=piece.end_us
        )


def load_piece(*, settings: Settings, piece: DumpPiece | RestPiece) -> LoadCounts:
    """Load a piece of either kind.

    Raises:
        TransientError, RateLimitedError: exchange or database is away.
        PermanentError: the exchange does not know the symbol, or a setting is wrong.
    """
    began_s = time.monotonic()
    if isinstance(piece, DumpPiece):
        counts = load_dump_piece(settings=settings, piece=piece)
    else:
        counts = load_rest_piece(settings=settings, piece=piece)
    took_s = round(time.monotonic() - began_s, 1)
    positive = {name: count for name, count in asdict(counts).items() if count}
    log.info("piece_loaded", piece=piece.label, took_s=took_s, **positive)
    return counts


def backfill(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: Market | str,
    start: Moment | None,
    end: Moment | None = None,
    mode: FillMode | str = FillMode.ALL,
    workers: int = WORKERS,
    on_progress: Callable[[BackfillProgress], None] | None = None,
) -> BackfillSummary:
    """Plan and load missing history; running it again changes nothing.

    Args:
        symbols, market, start, end, mode: as ``plan_backfill``.
        workers: pieces loaded at the same time.
        on_progress: called in this thread after each piece.

    Raises:
        PermanentError: an unknown symbol, or a wrong setting; pieces loaded before stay.
        TransientError: planning failed. A piece that fails is listed in the summary instead.
    """
    plan = plan_backfill(
        settings=settings, symbols=symbols, market=market, start=start, end=end, mode=mode
    )
    return load_pieces(settings=settings, plan=plan, workers=workers, on_progress=on_progress)


def load_pieces(
    *,
    settings: Settings,
    plan: BackfillPlan,
    workers: int = WORKERS,
    on_progress: Callable[[BackfillProgress], None] | None = None,
) -> BackfillSummary:
    """Load the pieces of a plan; see ``backfill``."""
    counts, failed = load_concurrently(
        plan.pieces,
        lambda piece: load_piece(settings=settings, piece=piece),
        minutes=_minutes,
        workers=workers,
        on_progress=on_progress,
    )
    return BackfillSummary(plan, counts, failed)


def load_all(*, settings: Settings, plan: BackfillPlan, workers: int = TASK_WORKERS) -> LoadCounts:
    """Load the pieces of a plan, or fail after all were tried.

    Raises:
        TransientError: some could not be loaded; the others are.
        PermanentError: the exchange does not know a symbol, or a setting is wrong.
    """
    loaded = load_pieces(settings=settings, plan=plan, workers=workers)
    raise_if_failed(loaded.failed, pieces=len(plan.pieces))
    return loaded.counts


def raise_if_failed(failed: Sequence[str], *, pieces: int) -> None:
    """Raise a TransientError that names the first failed pieces, if there are any."""
    if failed:
        raise TransientError(
            f"{len(failed):,} of {counted(pieces, 'piece')} could not be loaded; the next attempt "
            f"loads what is still missing: {'; '.join(failed[:MAX_FAILED_SHOWN])}"
        )


def _minutes(piece: DumpPiece | RestPiece) -> int:
    return (piece.end_us - piece.start_us) // MINUTE_US
