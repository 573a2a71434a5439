"""A book equals its snapshot and all diffs after it, and says where its knowledge ends."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.books.order_book import (
    BookSnapshot,
    DiffOutcome,
    OrderBook,
    are_sound,
    is_zero,
    price_units,
    snapshot_of,
)
from include.errors import RejectedInputError

BIDS = [("100.00", "1"), ("99.50", "2"), ("99.00", "3")]
ASKS = [("100.50", "1"), ("101.00", "2"), ("102.00", "3")]


def book(last_update_id: int = 10, *, limit: int = 3, max_levels: int = 100) -> OrderBook:
    snapshot = snapshot_of(last_update_id, BIDS, ASKS, limit=limit)
    return OrderBook(snapshot, max_levels=max_levels)


def test_diff_replaces_adds_and_removes_levels() -> None:
    found = book()
    outcome = found.apply(
        10, 12, [("100.00", "0.000"), ("99.50", "7"), ("99.75", "4")], [("100.40", "5")]
    )
    assert outcome is DiffOutcome.APPLIED
    top = found.top(10)
    assert top.last_update_id == 12
    assert top.bids == (("99.75", "4"), ("99.50", "7"), ("99.00", "3"))
    assert top.asks == (("100.40", "5"), *ASKS)
    assert found.best_bid == ("99.75", "4")
    assert found.best_ask == ("100.40", "5")


@pytest.mark.parametrize(
    ("previous", "last", "outcome"),
    [
        (10, 11, DiffOutcome.APPLIED),  # the next one
        (7, 11, DiffOutcome.APPLIED),  # the first after a snapshot spans its id
        (7, 10, DiffOutcome.OLD),
        (3, 5, DiffOutcome.OLD),
        (11, 13, DiffOutcome.BREAK),  # id 11 is missing
    ],
)
def test_diff_follows_only_a_book_within_its_ids(
    previous: int, last: int, outcome: DiffOutcome
) -> None:
    found = book()
    assert found.apply(previous, last, [("100.00", "9")], []) is outcome
    is_applied = outcome is DiffOutcome.APPLIED
    assert found.last_update_id == (last if is_applied else 10)
    assert found.best_bid == ("100.00", "9" if is_applied else "1")


def test_same_price_in_other_digits_is_the_same_level() -> None:
    found = book()
    found.apply(10, 11, [("100.0", "0"), ("99.5", "8")], [])
    assert found.top(5).bids == (("99.5", "8"), ("99.00", "3"))


def test_levels_beyond_the_snapshot_are_not_known() -> None:
    found = book()
    assert found.known_levels == (3, 3)
    found.apply(10, 11, [("98.00", "1"), ("99.25", "1")], [("103", "1")])
    top = found.top(10)
    assert (len(top.bids), top.known_bids) == (5, 4)
    assert (len(top.asks), top.known_asks) == (4, 3)
    assert found.top(2).known_bids == 2


def test_side_shorter_than_requested_is_whole() -> None:
    found = book(limit=4)
    assert found.is_whole == (True, True)
    found.apply(10, 11, [("1", "1")], [])
    assert found.top(10).known_bids == 4
    assert found.snapshot(10).bid_reach is None


def test_own_snapshot_ends_at_its_last_level_or_at_the_reach() -> None:
    found = book()
    assert found.snapshot(2)[3:] == ("99.50000000", "101.00000000")
    found.apply(10, 11, [("98.00", "1")], [("101.00", "0"), ("102.00", "0")])
    snapshot = found.snapshot(4)
    assert [price for price, _ in snapshot.bids] == ["100.00", "99.50", "99.00", "98.00"]
    assert snapshot.bid_reach == "99.00000000"  # 98.00 was named, what is above it was not
    assert snapshot.ask_reach == "102.00000000"  # no ask up to there is missing


def test_far_levels_are_dropped_and_no_longer_known() -> None:
    found = book(limit=4, max_levels=4)
    found.apply(10, 11, [(str(price), "1") for price in range(80, 84)], [])
    assert len(found.top(100).bids) == 4
    assert found.is_whole == (False, True)
    found.apply(11, 12, [("50", "1")], [])
    top = found.top(100)
    assert (len(top.bids), top.known_bids) == (5, 4)


def test_crossed_books_are_refused() -> None:
    with pytest.raises(RejectedInputError, match="update 10 has the bid 101 and the ask 100"):
        OrderBook(BookSnapshot(10, [("101", "1")], [("100", "1")], None, None))
    with pytest.raises(RejectedInputError, match=r"bid 100\.50 and the ask 100\.50"):
        book().apply(10, 11, [("100.50", "1")], [])


def test_price_of_zero_is_refused_before_anything_changes() -> None:
    found = book()
    with pytest.raises(RejectedInputError, match=r"price 0\.00"):
        found.apply(10, 11, [("100.00", "9")], [("0.00", "1")])
    assert found.best_bid == ("100.00", "1")


def test_side_may_be_empty() -> None:
    found = OrderBook(BookSnapshot(1, [], [], None, None))
    assert (found.best_bid, found.best_ask) == (None, None)
    found.apply(1, 2, [("5", "1")], [])
    assert found.best_bid == ("5", "1")


@pytest.mark.parametrize(
    "number",
    ["-1", "1e9", "NaN", "Infinity", "", "1.", ".5", "1.123456789", "1" * 17, "1\t2", "1,2", " 1"],
)
def test_numbers_that_no_exchange_sends_are_not_sound(number: str) -> None:
    # "1,2" would be one number more in an array of PostgreSQL.
    assert not are_sound([("1", "2"), (number, "3")], [])
    assert not are_sound([], [("1", number)])


def test_plain_numbers_are_sound() -> None:
    assert are_sound([("61837.63000000", "0.00000000")], [("1" * 16, "0")])
    assert are_sound([], [])


def test_zero_has_any_number_of_digits() -> None:
    assert is_zero("0")
    assert is_zero("0.00000000")
    assert not is_zero("0.00000001")


def test_price_is_compared_exactly() -> None:
    assert price_units("0.00000001") == 1
    assert price_units("61837.63") == price_units("61837.63000000") == 6_183_763_000_000


levels = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 3)).map(
        lambda drawn: (f"{Decimal(drawn[0]) / 4}", str(drawn[1]))
    ),
    max_size=12,
)


@given(st.lists(st.tuples(levels, levels), max_size=20), st.integers(1, 15))
def test_any_diffs_give_the_book_of_a_plain_model(
    diffs: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]], best: int
) -> None:
    """Asks are moved above the bids, so that the book never crosses."""
    found = OrderBook(BookSnapshot(0, [], [], None, None))
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    for number, (bid_levels, raw_asks) in enumerate(diffs):
        ask_levels = [(str(Decimal(price) + 100), quantity) for price, quantity in raw_asks]
        for side, changes in ((bids, bid_levels), (asks, ask_levels)):
            side |= {Decimal(price): Decimal(quantity) for price, quantity in changes}
        assert found.apply(number, number + 1, bid_levels, ask_levels) is DiffOutcome.APPLIED
    top = found.top(best)
    for side, shown, is_bid in ((bids, top.bids, True), (asks, top.asks, False)):
        held = sorted(((p, q) for p, q in side.items() if q), reverse=is_bid)
        assert [(Decimal(p), Decimal(q)) for p, q in shown] == held[:best]
