"""The merge is a maximum: order and repeats cannot matter."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.candles import CandleCandidate, Source, Status
from include.domain.merge import merge, order_key
from tests.unit.store.candidates import EVIDENCE_US, candidate, candidates, candle, moved


@given(st.lists(candidates(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_order_and_repeats_give_the_same_row(
    given_candidates: list[CandleCandidate], rng: random.Random
) -> None:
    again = given_candidates + rng.choices(given_candidates, k=4)
    rng.shuffle(again)

    assert merge(again) == merge(given_candidates)


@given(st.lists(candidates(), min_size=1, max_size=8))
def test_winner_is_the_greatest_candidate(
    given_candidates: list[CandleCandidate],
) -> None:
    kept = merge(given_candidates)

    winners = [
        each
        for each in given_candidates
        if order_key(each) == max(map(order_key, given_candidates))
    ]
    assert kept.candle.values == winners[0].candle.values
    assert (kept.status, kept.source) == (winners[0].status, winners[0].source)
    assert (kept.rank, kept.evidence_at_us) == (winners[0].rank, winners[0].evidence_at_us)


@given(candidates(), candidates())
def test_candidates_tie_only_if_their_rows_are_the_same(
    left: CandleCandidate, right: CandleCandidate
) -> None:
    if order_key(left) == order_key(right):
        assert left.candle.values == right.candle.values
        assert (left.status, left.source, left.evidence_at_us) == (
            right.status,
            right.source,
            right.evidence_at_us,
        )


def test_sources_win_in_the_order_of_their_rank() -> None:
    ascending = [
        candidate(Source.STREAM, status=Status.PARTIAL),
        candidate(Source.FILE),
        candidate(Source.TRADES),
        candidate(Source.STREAM),
        candidate(Source.KLINE, evidence_at_us=EVIDENCE_US[2]),
        candidate(Source.DUMP_MONTHLY),
        candidate(Source.DUMP_DAILY),
        candidate(Source.REST),
    ]

    assert sorted(reversed(ascending), key=order_key) == ascending


def test_of_two_files_the_one_published_later_wins() -> None:
    early = candidate(Source.DUMP_DAILY, candle(price="99"), evidence_at_us=EVIDENCE_US[0])
    late = candidate(Source.DUMP_DAILY, candle(price="11"), evidence_at_us=EVIDENCE_US[1])

    assert merge([late, early]).candle.values == late.candle.values


def test_aggregated_candle_with_more_trades_wins_then_the_later_last_id() -> None:
    short = candidate(Source.STREAM, candle(trade_count=2, ids=(1, 9)))
    longer = candidate(Source.STREAM, candle(trade_count=3, price="5", ids=(1, 3)))
    further = candidate(Source.STREAM, candle(trade_count=3, price="4", ids=(1, 4)))

    assert sorted([further, short, longer], key=order_key) == [short, longer, further]


def test_trade_ids_come_from_any_candidate_with_the_same_values() -> None:
    with_ids = candidate(Source.KLINE, candle(ids=(7, 9)))
    without_ids = candidate(Source.REST, candle())
    other_values = candidate(Source.STREAM, candle(price="11", ids=(1, 99)))

    kept = merge([without_ids, other_values, with_ids])

    assert (kept.candle.first_trade_id, kept.candle.last_trade_id) == (7, 9)
    assert kept.source is Source.REST


def test_no_candidates_or_two_minutes_are_refused() -> None:
    with pytest.raises(ValueError, match="exactly one minute"):
        merge([])
    with pytest.raises(ValueError, match="exactly one minute"):
        merge([candidate(), moved(candidate(), "ETHUSDT", 0)])


def test_decimal_scale_does_not_affect_the_order() -> None:
    plain, padded = candidate(of=candle(price="10")), candidate(of=candle(price="10.000"))

    assert order_key(plain) == order_key(padded)
    assert order_key(replace(plain, source=Source.REST)) > order_key(padded)
