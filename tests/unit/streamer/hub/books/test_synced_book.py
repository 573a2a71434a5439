"""A book is live only while every diff since its snapshot arrived; otherwise that is passed on."""

from __future__ import annotations

from include.domain.books.order_book import BookSnapshot, snapshot_of
from include.domain.timeframes import MINUTE_US
from streamer.hub.books import synced_book as module
from streamer.hub.books.synced_book import NO_SNAPSHOT, BookDiff, Receipt, SyncedBook

T0 = 1_000 * MINUTE_US
STEP_US = 100_000
BIDS, ASKS = [("99", "1"), ("98", "1")], [("101", "1"), ("102", "1")]


class Events:
    def __init__(self) -> None:
        self.lost: list[tuple[int, int, str]] = []
        self.snapshots: list[tuple[int, str, int]] = []
        self.changes = 0

    def book_lost(self, symbol: str, from_us: int, to_us: int, reason: str) -> None:
        self.lost.append((from_us, to_us, reason))

    def book_snapshot(self, symbol: str, snapshot: BookSnapshot, source: str, at_us: int) -> None:
        self.snapshots.append((snapshot.last_update_id, source, at_us))

    def book_changed(self, symbol: str) -> None:
        self.changes += 1


def snapshot(last_update_id: int, *, limit: int = 5) -> BookSnapshot:
    return snapshot_of(last_update_id, BIDS, ASKS, limit=limit)


def diff(previous: int, last: int, at_us: int | None = None, bid: str = "99") -> BookDiff:
    moment_us = T0 + last * STEP_US if at_us is None else at_us
    return BookDiff(previous, last, moment_us, [(bid, str(last))], [])


def at(number: int) -> int:
    return T0 + number * STEP_US


def live(events: Events, last_update_id: int = 10) -> SyncedBook:
    book = SyncedBook("BTCUSDT", events)
    book.request_sent()
    assert book.snapshot_received(snapshot(last_update_id))
    book.add(diff(last_update_id, last_update_id + 1))
    return book


def test_snapshot_is_joined_with_the_diffs_since_its_request() -> None:
    events = Events()
    book = SyncedBook("BTCUSDT", events)
    assert book.needs_snapshot
    book.add(diff(1, 3))
    book.request_sent()
    book.add(diff(3, 5))
    book.add(diff(5, 8))
    assert book.book is None
    assert book.snapshot_received(snapshot(6))
    assert book.book is not None
    assert book.book.best_bid == ("99", "8")
    assert not book.needs_snapshot
    # At the time of the first diff that the book has beyond the snapshot.
    assert events.snapshots == [(6, "rest", at(8))]
    assert events.lost == []  # nothing was known before


def test_snapshot_without_a_later_diff_is_stored_with_the_next_one() -> None:
    events = Events()
    book = SyncedBook("BTCUSDT", events)
    book.request_sent()
    book.add(diff(3, 5))
    assert book.snapshot_received(snapshot(7))
    assert (events.snapshots, book.is_current) == ([], False)
    book.add(diff(5, 9))
    assert (events.snapshots, book.is_current) == ([(7, "rest", at(9))], True)


def test_snapshot_older_than_the_diffs_is_requested_again() -> None:
    for seen, buffered, answer in ([20], [], 19), ([], [(22, 25)], 19):
        events = Events()
        book = SyncedBook("BTCUSDT", events)
        for last in seen:
            book.add(diff(last - 1, last))
        book.request_sent()
        for ids in buffered:
            book.add(diff(*ids))
        assert not book.snapshot_received(snapshot(answer))
        assert (book.book, book.needs_snapshot, book.stale) == (None, True, 1)


def test_break_makes_the_book_unknown_until_a_snapshot() -> None:
    events = Events()
    book = live(events)
    assert book.add(diff(13, 14)) is Receipt.NEW
    assert (book.book, book.needs_snapshot, book.breaks) == (None, True, 1)
    assert events.lost == [(at(11), at(14), "update ids are missing")]
    book.add(diff(14, 15))
    book.request_sent()
    book.add(diff(15, 16))
    book.snapshot_received(snapshot(15))
    assert events.lost[1:] == [(at(14), at(16), NO_SNAPSHOT)]
    assert events.snapshots[-1] == (15, "rest", at(16))


def test_book_that_stays_unknown_is_passed_on_each_minute() -> None:
    events = Events()
    book = live(events)
    book.add(diff(13, 14))
    book.add(diff(14, 15, T0 + MINUTE_US + 5))
    book.add(diff(15, 16, T0 + MINUTE_US + 6))
    book.add(diff(16, 17, T0 + 2 * MINUTE_US))
    assert events.lost[1:] == [
        (at(14), T0 + MINUTE_US, NO_SNAPSHOT),
        (T0 + MINUTE_US, T0 + 2 * MINUTE_US, NO_SNAPSHOT),
    ]


def test_request_before_a_break_does_not_count() -> None:
    events = Events()
    book = live(events)
    book.request_sent()
    book.add(diff(13, 14))
    assert not book.snapshot_received(snapshot(13))
    assert book.needs_snapshot


def test_repeated_diff_changes_nothing() -> None:
    events = Events()
    book = live(events)
    changes = events.changes
    assert book.add(diff(10, 11)) is Receipt.REPEATED
    assert (events.changes, events.lost) == (changes, [])


def test_ids_that_begin_again_make_the_book_unknown() -> None:
    events = Events()
    book = live(events, 1_000)
    later = T0 + 1_001 * STEP_US + module.RESTART_AFTER_US
    assert book.add(diff(3, 4, later)) is Receipt.NEW
    assert book.book is None
    assert book.last_seen_id == 4


def test_crossing_diff_is_refused_and_the_book_unknown_since_the_one_before() -> None:
    events = Events()
    book = live(events)
    assert book.add(diff(11, 12, bid="500")) is Receipt.REFUSED
    assert (book.refused, book.needs_snapshot, book.book) == (1, True, None)
    assert events.lost == [(at(11), at(12), "a diff was refused")]


def test_crossed_snapshot_is_refused() -> None:
    book = SyncedBook("BTCUSDT", Events())
    book.request_sent()
    assert not book.snapshot_received(BookSnapshot(5, [("5", "1")], [("4", "1")], None, None))
    assert (book.refused, book.needs_snapshot) == (1, True)


def test_checkpoint_has_the_book_before_the_first_diff_of_a_minute() -> None:
    events = Events()
    book = live(events)
    book.add(diff(11, 12, T0 + 3 * MINUTE_US + 7))
    assert events.snapshots[1:] == [(11, "checkpoint", T0 + 3 * MINUTE_US)]
    book.add(diff(12, 13, T0 + 3 * MINUTE_US + 8))
    assert len(events.snapshots) == 2


def test_book_ahead_of_the_stream_makes_no_checkpoint() -> None:
    events = Events()
    book = SyncedBook("BTCUSDT", events)
    book.add(diff(1, 2))
    book.request_sent()
    book.snapshot_received(snapshot(50))
    book.add(diff(2, 3, T0 + MINUTE_US))
    assert events.snapshots == []


def test_side_that_runs_out_of_known_levels_needs_a_snapshot_and_stays_live() -> None:
    events = Events()
    book = SyncedBook("BTCUSDT", events)
    book.request_sent()
    book.snapshot_received(snapshot(10, limit=2))
    book.add(diff(10, 11))
    book.add(diff(11, 12, T0 + MINUTE_US))
    assert book.needs_snapshot
    assert book.book is not None
    book.request_sent()
    book.add(diff(12, 13, T0 + MINUTE_US + 1))
    assert book.book is not None
    book.snapshot_received(snapshot(12))
    assert book.book.best_bid == ("99", "13")
    assert events.lost == []


def test_request_that_hangs_does_not_fill_the_memory() -> None:
    book = SyncedBook("BTCUSDT", Events())
    book.request_sent()
    for number in range(module.MAX_BUFFERED_DIFFS + 1):
        book.add(diff(number, number + 1))
    assert book.needs_snapshot
    assert not book.snapshot_received(snapshot(5))


def test_failed_request_is_made_again() -> None:
    book = SyncedBook("BTCUSDT", Events())
    book.request_sent()
    book.request_failed()
    assert book.needs_snapshot
