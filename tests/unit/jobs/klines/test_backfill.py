"""What stops a backfill stops the pieces that wait out the exchange, too."""

from __future__ import annotations

import threading
import time

import pytest

from include.config import Settings
from include.errors import PermanentError, RateLimitedError
from include.jobs.klines import backfill
from include.jobs.klines.pieces import BackfillPlan, LoadCounts, RestPiece

WAITING = RestPiece("A", "A", 0, 60_000_000)
OTHER = RestPiece("B", "B", 0, 60_000_000)
LATER = RestPiece("C", "C", 0, 60_000_000)
PLAN = BackfillPlan(rest=(WAITING, OTHER, LATER))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of pieces started. A must wait two minutes; B then fails, or loads for C."""
    begun: list[str] = []
    told = threading.Event()

    def load(*, settings: Settings, piece: RestPiece) -> LoadCounts:
        begun.append(piece.label)
        if piece is WAITING:
            told.set()
            raise RateLimitedError("slow down", retry_after_s=120.0)
        assert told.wait(10)
        if piece is OTHER and not settings.jobs_database_url:
            raise PermanentError("B is no symbol")
        return LoadCounts(inserted=1)

    monkeypatch.setattr(backfill, "load_piece", load)
    return begun


def test_error_ends_the_wait_of_other_pieces(started: list[str]) -> None:
    started_s = time.monotonic()
    with pytest.raises(PermanentError, match="B is no symbol"):
        backfill.load_pieces(settings=Settings(jobs_database_url=""), plan=PLAN, workers=2)
    assert time.monotonic() - started_s < 20
    assert started.count("A") == 1  # it is not requested again


def test_interrupt_ends_the_wait_too(started: list[str]) -> None:
    def interrupted(_: backfill.BackfillProgress) -> None:
        raise KeyboardInterrupt

    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        backfill.load_pieces(
            settings=Settings(jobs_database_url="postgresql://somewhere/else"),
            plan=PLAN,
            workers=2,
            on_progress=interrupted,
        )
    assert time.monotonic() - started_s < 20
    assert started.count("A") == 1
