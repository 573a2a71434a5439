"""Load pieces of work concurrently, with progress, and wait out short rate limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from include.errors import RateLimitedError, TransientError
from include.jobs.klines.pieces import LoadCounts

log = structlog.get_logger(__name__)

PIECE_ATTEMPTS = 3
MAX_PATIENCE_S = 180.0
"""A longer Retry-After is a ban and ends the load, so that the user learns of it."""


class Piece(Protocol):
    """A piece of work."""

    @property
    def label(self) -> str:
        """Names the piece to users."""

    @property
    def start_us(self) -> int:
        """Start of its time."""

    @property
    def end_us(self) -> int:
        """End of its time, exclusive."""


AnyPiece = TypeVar("AnyPiece", bound=Piece)


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """Progress of a backfill.

    Attributes:
        done_minutes, total_minutes: minutes of the pieces that are loaded, and of all.
        rows: rows offered so far.
        label: the piece that was loaded last.
    """

    done_minutes: int
    total_minutes: int
    rows: int
    label: str


def load_concurrently(
    pieces: Sequence[AnyPiece],
    load: Callable[[AnyPiece], LoadCounts],
    *,
    minutes: Callable[[AnyPiece], int],
    workers: int,
    on_progress: Callable[[BackfillProgress], None] | None = None,
) -> tuple[LoadCounts, tuple[str, ...]]:
    """Load pieces in threads; return the counts, and the failed pieces with their reasons.

    Args:
        minutes: of a piece, for the progress.
        on_progress: called in this thread after each piece.

    Raises:
        PermanentError: of a piece; pieces loaded before stay.
    """
    total_minutes = sum(map(minutes, pieces))
    stopped = threading.Event()
    counts, failed, done_minutes = LoadCounts(), list[str](), 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="backfill")
    running: dict[Future[LoadCounts], AnyPiece] = {
        pool.submit(_load_patiently, load, piece, stopped): piece for piece in pieces
    }
    try:
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                piece = running.pop(future)
                try:
                    counts += future.result()
                except TransientError as error:
                    failed.append(f"{piece.label}: {error}")
                    log.warning("piece_failed", piece=piece.label, error=str(error))
                done_minutes += minutes(piece)
                if on_progress is not None:
                    on_progress(
                        BackfillProgress(done_minutes, total_minutes, counts.offered, piece.label)
                    )
    finally:
        # After an error or an interrupt, running pieces end by themselves within a request's
        # timeout or a chunk's merge. Waits for the exchange are cancelled, and queued pieces never
        # start.
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
    return counts, tuple(failed)


def _load_patiently(
    load: Callable[[AnyPiece], LoadCounts], piece: AnyPiece, stopped: threading.Event
) -> LoadCounts:
    """Load a piece; wait out short rate limits unless the whole load is stopped."""
    for attempt in range(1, PIECE_ATTEMPTS + 1):
        try:
            return load(piece)
        except RateLimitedError as error:
            is_too_long = error.banned or error.retry_after_s > MAX_PATIENCE_S
            if is_too_long or attempt == PIECE_ATTEMPTS:
                raise
            log.warning("backfill_paused", piece=piece.label, seconds=error.retry_after_s)
            if stopped.wait(error.retry_after_s):
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")
