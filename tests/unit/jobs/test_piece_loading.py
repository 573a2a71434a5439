"""Pieces are loaded concurrently; short rate limits are waited out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from include.errors import PermanentError, RateLimitedError, TransientError
from include.jobs.klines.pieces import LoadCounts
from include.jobs.piece_loading import PIECE_ATTEMPTS, BackfillProgress, load_concurrently


@dataclass(frozen=True)
class Part:
    label: str
    start_us: int = 0
    end_us: int = 1


def load_all(load, *, seen: list[BackfillProgress] | None = None, parts: int = 3):  # type: ignore[no-untyped-def]
    return load_concurrently(
        [Part(str(number)) for number in range(parts)],
        load,
        minutes=lambda _: 5,
        workers=2,
        on_progress=None if seen is None else seen.append,
    )


def test_counts_add_up_and_progress_ends_with_all_minutes() -> None:
    seen: list[BackfillProgress] = []
    counts, failed = load_all(lambda _: LoadCounts(offered=2), seen=seen)
    assert (counts.offered, failed) == (6, ())
    assert (seen[-1].done_minutes, seen[-1].total_minutes, seen[-1].rows) == (15, 15, 6)


def test_a_failed_piece_is_named_and_the_others_load() -> None:
    def load(part: Part) -> LoadCounts:
        if part.label == "1":
            raise TransientError("away")
        return LoadCounts(offered=1)

    counts, failed = load_all(load)
    assert (counts.offered, failed) == (2, ("1: away",))


def test_a_permanent_error_ends_the_load() -> None:
    def load(part: Part) -> LoadCounts:
        raise PermanentError("wrong")

    with pytest.raises(PermanentError, match="wrong"):
        load_all(load)


def test_a_short_rate_limit_is_waited_out_and_repeated_ones_end() -> None:
    attempts: list[str] = []

    def load(part: Part) -> LoadCounts:
        attempts.append(part.label)
        if len(attempts) == 1:
            raise RateLimitedError("wait", retry_after_s=0.0)
        return LoadCounts(offered=1)

    counts, _ = load_all(load, parts=1)
    assert (counts.offered, len(attempts)) == (1, 2)

    def refuse(part: Part) -> LoadCounts:
        attempts.append("refused")
        raise RateLimitedError("wait", retry_after_s=0.0)

    _, failed = load_all(refuse, parts=1)
    assert attempts.count("refused") == PIECE_ATTEMPTS
    assert failed == ("0: wait",)


def test_a_ban_is_not_waited_for() -> None:
    attempts: list[str] = []

    def load(part: Part) -> LoadCounts:
        attempts.append(part.label)
        raise RateLimitedError("banned", retry_after_s=0.0, banned=True)

    load_all(load, parts=1)
    assert attempts == ["0"]
