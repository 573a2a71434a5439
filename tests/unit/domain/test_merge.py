"""The merge is a maximum: order and repeats cannot matter."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.candles import CandleCandidate, Source, Status
from include.domain.merge import merge, order_key
from tests.unit.store.offers import EVIDENCE_US, candle, moved, offer, offers


@given(st.lists(offers(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_order_and_any_repeats_keep_the_same_row(
    given_offers: list[CandleCandidate], rng: random.Random
) -> None:
    again = given_offers + rng.choices(given_offers, k=4)
    rng.shuffle(again)

    assert merge(again) == merge(given_offers)


@given(st.lists(offers(), min_size=1, max_size=8))
def test_the_winner_is_one_of_the_offers_and_none_is_greater(
    given_offers: list[CandleCandidate],
) -> None:
    kept = merge(given_offers)

    winners = [
        each for each in given_offers if order_key(each) == max(map(order_key, given_offers))
    ]
    assert kept.candle.values == winners[0].candle.values
    assert (kept.status, kept.source) == (winners[0].status, winners[0].source)
    assert (kept.rank, kept.evidence_at_us) == (winners[0].rank, winners[0].evidence_at_us)


@given(offers(), offers())
def test_offers_tie_only_where_the_kept_row_is_the_same(
    left: CandleCandidate, right: CandleCandidate
) -> None:
    if order_key(left) == order_key(right):
        assert left.candle.values == right.candle.values
        assert (left.status, left.source, left.evidence_at_us) == (
            right.status,
            right.source,
            right.evidence_at_us,
        )


def test_sources_win_in_the_order_of_their_word() -> None:
    ascending = [
        offer(Source.STREAM, status=Status.PARTIAL),
        offer(Source.FILE),
        offer(Source.TRADES),
        offer(Source.STREAM),
        offer(Source.KLINE, evidence_at_us=EVIDENCE_US[2]),
        offer(Source.DUMP_MONTHLY),
        offer(Source.DUMP_DAILY),
        offer(Source.REST),
    ]

    assert sorted(reversed(ascending), key=order_key) == ascending


def test_of_two_files_the_one_published_later_wins() -> None:
    early = offer(Source.DUMP_DAILY, candle(price="99"), evidence_at_us=EVIDENCE_US[0])
    late = offer(Source.DUMP_DAILY, candle(price="11"), evidence_at_us=EVIDENCE_US[1])

    assert merge([late, early]).candle.values == late.candle.values


def test_of_two_folds_the_one_with_more_trades_wins_then_the_one_that_reaches_further() -> None:
    short = offer(Source.STREAM, candle(trade_count=2, ids=(1, 9)))
    longer = offer(Source.STREAM, candle(trade_count=3, price="5", ids=(1, 3)))
    further = offer(Source.STREAM, candle(trade_count=3, price="4", ids=(1, 4)))

    assert sorted([further, short, longer], key=order_key) == [short, longer, further]


def test_trade_ids_come_from_any_offer_with_the_same_values() -> None:
    with_ids = offer(Source.KLINE, candle(ids=(7, 9)))
    without_ids = offer(Source.REST, candle())
    other_values = offer(Source.STREAM, candle(price="11", ids=(1, 99)))

    kept = merge([without_ids, other_values, with_ids])

    assert (kept.candle.first_trade_id, kept.candle.last_trade_id) == (7, 9)
    assert kept.source is Source.REST


def test_a_minute_told_by_nobody_or_by_two_names_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly one minute"):
        merge([])
    with pytest.raises(ValueError, match="exactly one minute"):
        merge([offer(), moved(offer(), "ETHUSDT", 0)])


def test_the_scale_of_a_number_makes_no_difference() -> None:
    plain, padded = offer(of=candle(price="10")), offer(of=candle(price="10.000"))

    assert order_key(plain) == order_key(padded)
    assert order_key(replace(plain, source=Source.REST)) > order_key(padded)
