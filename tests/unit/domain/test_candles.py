from __future__ import annotations

from decimal import Decimal

import pytest

from include.domain.candles import (
    PARTIAL_RANK,
    SOURCE_RANK,
    CandleCandidate,
    Source,
    Status,
    silent_candle,
)

CANDLE = silent_candle("X", 60_000_000, Decimal(5))


def test_candidate_of_the_exchange_needs_a_time_of_evidence() -> None:
    with pytest.raises(ValueError, match="evidence"):
        CandleCandidate(CANDLE, Status.VERIFIED, Source.REST)


@pytest.mark.parametrize(
    ("status", "source", "evidence"),
    [
        (Status.VERIFIED, Source.STREAM, None),
        (Status.UNCONFIRMED, Source.KLINE, 1),
        (Status.PARTIAL, Source.DUMP_DAILY, 1),
    ],
)
def test_only_the_exchange_verifies(status: Status, source: Source, evidence: int | None) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        CandleCandidate(CANDLE, status, source, evidence)


def test_partial_row_ranks_below_every_other_but_a_foreign_one() -> None:
    assert CandleCandidate(CANDLE, Status.PARTIAL, Source.STREAM).rank == PARTIAL_RANK
    ranks = {source: rank for source, rank in SOURCE_RANK.items() if source is not Source.FOREIGN}
    assert SOURCE_RANK[Source.FOREIGN] < PARTIAL_RANK < min(ranks.values())


def test_open_time_inside_a_minute_is_refused() -> None:
    with pytest.raises(ValueError, match="full minute"):
        CandleCandidate(
            silent_candle("X", 61_000_000, Decimal(5)), Status.UNCONFIRMED, Source.STREAM
        )
