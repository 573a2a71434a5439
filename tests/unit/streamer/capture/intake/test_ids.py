"""Ids that arrived once, missing ids, and a bound on their number."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from include.domain.timeframes import MINUTE_US
from streamer.capture.intake.ids import OVERTAKING_IDS, IdSequence, MissingRange


def sequence(**options: int) -> IdSequence:
    return IdSequence(late_s=2.0, **options)


def missing(ids: IdSequence) -> set[int]:
    return {
        n
        for missing_range in ids.missing_ranges
        for n in range(missing_range.first_id, missing_range.last_id + 1)
    }


def test_skipped_ids_are_a_missing_range_between_their_neighbours_times() -> None:
    ids = sequence()
    assert ids.take(7, 100, now_s=0.0)
    assert ids.take(10, 250, now_s=1.0)
    assert ids.missing_ranges == [MissingRange(8, 9, 100, 250, not_before_s=3.0)]


def test_late_id_is_new_and_splits_its_missing_range() -> None:
    ids = sequence()
    for number in (1, 6, 3):
        assert ids.take(number, number, 0.0)
    assert [
        (missing_range.first_id, missing_range.last_id) for missing_range in ids.missing_ranges
    ] == [(2, 2), (4, 5)]
    assert not ids.take(3, 3, 0.0)


def test_smaller_id_is_a_repeat_unless_it_is_much_younger() -> None:
    ids = sequence()
    ids.take(500, MINUTE_US, 0.0)
    assert not ids.take(400, MINUTE_US + 1, 0.0)
    assert ids.take(1, 2 * MINUTE_US, 0.0)
    assert ids.take(2, 2 * MINUTE_US, 0.0)
    assert ids.missing_ranges == []


def lost(ids: IdSequence) -> list[tuple[int, int, int, int]]:
    return [(one.first_id, one.ids, one.from_us, one.to_us) for one in ids.take_lost()]


def test_missing_ids_are_lost_once_another_instrument_has_the_ticker() -> None:
    ids = sequence()
    for number, at_us in ((500, 10), (503, 20), (7, 2 * MINUTE_US), (9, 3 * MINUTE_US)):
        assert ids.take(number, at_us, 0.0)
    # two ids are known to be missing; after the last one the number is unknown
    assert lost(ids) == [(501, 2, 10, 20), (504, 0, 20, 2 * MINUTE_US)]
    assert missing(ids) == {8}
    ids.miss(MissingRange(400, 410, 1, 2))  # found in the table
    assert lost(ids) == [(400, 11, 1, 2)]
    assert missing(ids) == {8}
    assert lost(ids) == []


def test_late_trade_of_the_former_instrument_leaves_no_missing_range() -> None:
    ids = sequence()
    for number, at_us in ((500, 10), (7, 2 * MINUTE_US)):
        ids.take(number, at_us, 0.0)
    assert ids.take(501, 11, 0.0)
    assert ids.take(8, 2 * MINUTE_US, 0.0)
    assert missing(ids) == set()


def test_nothing_is_lost_after_a_trade_proven_to_be_the_last() -> None:
    ids = sequence()
    ids.take(500, 10, 0.0)
    ids.advance(502, 30)  # trades that REST had after it
    ids.prove(502)
    ids.take(7, 2 * MINUTE_US, 0.0)
    assert lost(ids) == []
    assert missing(ids) == set()


def test_later_trade_refutes_the_proof_of_the_last_one() -> None:
    ids = sequence()
    ids.take(500, 10, 0.0)
    ids.prove(500)
    ids.take(501, 40, 0.0)
    ids.take(7, 2 * MINUTE_US, 0.0)
    assert lost(ids) == [(502, 0, 40, 2 * MINUTE_US)]


def test_ticker_reused_while_not_captured_is_noticed_in_any_order() -> None:
    first = sequence()
    first.resume(500, 10, 0.0)
    first.take(7, 5 * MINUTE_US, 0.0)
    second = sequence()
    second.take(7, 5 * MINUTE_US, 0.0)
    second.resume(500, 10, 0.0)
    third = sequence()
    third.take(700, 5 * MINUTE_US, 0.0)
    third.miss(MissingRange(501, 500, 10, 4 * MINUTE_US))  # both are in the table
    assert lost(first) == lost(second) == [(501, 0, 10, 5 * MINUTE_US)]
    assert lost(third) == [(501, 0, 10, 4 * MINUTE_US)]
    assert missing(first) == missing(second) == missing(third) == set()


def test_stored_rows_of_this_process_are_no_other_instrument() -> None:
    ids = sequence()
    for number in (7, 8, 9):
        ids.take(number, 5 * MINUTE_US + number, 0.0)
    ids.resume(8, 5 * MINUTE_US + 8, 0.0)
    assert lost(ids) == []
    assert missing(ids) == set()


def test_missing_range_is_due_after_a_grace_period() -> None:
    ids = sequence()
    ids.take(1, 0, 0.0)
    ids.take(5, 0, 10.0)
    assert ids.take_due(11.9, 1000) is None
    due = ids.take_due(12.0, 1000)
    assert due is not None
    assert (due.first_id, due.last_id) == (2, 4)
    assert ids.missing_ranges == []


def test_neighbouring_ranges_within_a_page_are_requested_together() -> None:
    ids = sequence()
    for number in (1, 3, 5, 2_000):
        ids.take(number, number, 0.0)
    due = ids.take_due(9.0, 1000)
    assert due is not None
    assert (due.first_id, due.last_id) == (2, 4)
    assert [
        (missing_range.first_id, missing_range.last_id) for missing_range in ids.missing_ranges
    ] == [(6, 1_999)]


def test_stored_ids_continue_whether_known_before_or_after_the_first_trade() -> None:
    early = sequence()
    early.resume(10, 100, 0.0)
    early.take(15, 200, 0.0)
    late = sequence()
    late.take(15, 200, 0.0)
    late.resume(10, 100, 0.0)
    assert missing(early) == missing(late) == {11, 12, 13, 14}


def test_nothing_is_missing_if_the_first_ids_are_already_stored() -> None:
    ids = sequence()
    ids.take(15, 200, 0.0)
    ids.resume(16, 300, 0.0)
    assert ids.missing_ranges == []


@settings(max_examples=200)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=80))
def test_each_id_is_new_once_and_the_rest_of_the_span_is_missing(numbers: list[int]) -> None:
    ids = sequence()
    first = numbers[0]
    taken = [number for number in numbers if ids.take(number, 0, 0.0)]
    wanted = {number for number in numbers if number >= first}
    assert sorted(taken) == sorted(wanted)
    assert missing(ids) == set(range(first, max(wanted) + 1)) - wanted


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20)), max_size=60), st.integers(2, 8))
def test_missing_ranges_are_bounded_and_joined_without_losing_ids(
    ranges: list[tuple[int, int]], most: int
) -> None:
    ids = sequence(max_missing_ranges=most)
    wanted: set[int] = set()
    for first, length in ranges:
        ids.miss(MissingRange(first, first + length, 0, 0))
        wanted |= set(range(first, first + length + 1))
        assert len(ids.missing_ranges) <= most
        assert wanted <= missing(ids)
        bounds = [
            (missing_range.first_id, missing_range.last_id) for missing_range in ids.missing_ranges
        ]
        assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(bounds))


def test_ids_lost_by_the_table_are_missing_as_far_as_they_were_stored() -> None:
    ids = sequence()
    for number in range(1, 1_000):
        ids.take(number, 10 * number, 0.0)
    ids.unstore((300, 3_000), 400, 5.0)
    until_id = 400 + OVERTAKING_IDS
    assert ids.missing_ranges == [MissingRange(301, until_id, 3_000, 9_990, not_before_s=5.0)]
    ids.unstore((998, 9_980), 999, 5.0)
    assert missing(ids) == {*range(301, until_id + 1), 999}


def test_all_received_ids_are_missing_if_the_table_lost_them_all() -> None:
    ids = sequence()
    ids.unstore(None, 9, 5.0)  # no frames
    for number in (7, 8, 9):
        ids.take(number, 10 * number, 0.0)
    ids.unstore((9, 90), 9, 5.0)
    assert ids.missing_ranges == []
    ids.unstore(None, 9, 5.0)
    assert ids.missing_ranges == [MissingRange(7, 9, 70, 90, not_before_s=5.0)]


def test_lost_ids_are_missing_until_taken() -> None:
    ids = sequence()
    for number, at_us in ((5, 0), (9, 1), (1, 2 * MINUTE_US), (3, 2 * MINUTE_US)):
        ids.take(number, at_us, 0.0)
    assert [(one.first_id, one.last_id) for one in ids.missing] == [(2, 2), (6, 8), (10, 9)]
    ids.take_lost()
    assert [(one.first_id, one.last_id) for one in ids.missing] == [(2, 2)]


def test_rows_lost_before_the_first_trade_arrives_are_missing() -> None:
    ids = sequence()
    ids.resume(100, 1_000, 0.0)
    ids.unstore((70, 700), 100, 5.0)
    assert missing(ids) == set(range(71, 101))


def test_stored_rows_of_a_ticker_reused_meanwhile_are_not_missing_before_the_first_trade() -> None:
    ids = sequence()
    for number, at_us in ((500, 10), (1, 3 * MINUTE_US), (2, 3 * MINUTE_US + 1)):
        ids.take(number, at_us, 0.0)
    ids.take_lost()
    ids.resume(1, 3 * MINUTE_US, 0.0)  # read again after a failover
    assert ids.missing_ranges == []
    assert lost(ids) == []


def test_lost_rows_of_a_reused_ticker_are_missing_from_its_first_trade_on() -> None:
    ids = sequence()
    for number, at_us in ((500, 10), (1, 3 * MINUTE_US), (2, 3 * MINUTE_US + 1)):
        ids.take(number, at_us, 0.0)
    ids.unstore((500, 10), 2, 5.0)
    assert missing(ids) == {1, 2}
