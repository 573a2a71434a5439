from __future__ import annotations

from serving.sources.nats.publisher_state import PATIENCE_S, PublisherState

KEY = ("BTCUSDT", 60_000_000)


def publisher() -> PublisherState:
    return PublisherState("a", 1, heard_s=0.0)


def test_messages_without_a_gap_are_all_there() -> None:
    one = publisher()
    assert all(one.heard(total, 0.0) for total in (1, 2, 3))
    assert one.lost_at is None
    assert not one.is_to_be_asked(0.0)


def test_a_number_that_is_missing_has_its_states_asked_for_until_they_are_told() -> None:
    one = publisher()
    assert one.heard(1, 0.0)
    assert not one.heard(3, 0.0)
    assert one.is_to_be_asked(0.0)
    one.asked_s = 0.0
    assert not one.is_to_be_asked(PATIENCE_S / 2)
    assert one.is_to_be_asked(PATIENCE_S)
    assert not one.states(3, 0, is_last=False)
    assert one.states(3, 1, is_last=True)
    assert one.lost_at is None
    assert one.heard(4, 0.0)


def test_states_from_before_the_loss_do_not_make_up_for_it() -> None:
    one = publisher()
    one.heard(1, 0.0)
    one.heard(5, 0.0)
    assert not one.states(3, 0, is_last=True)
    assert one.states(4, 0, is_last=True)


def test_states_of_which_a_part_is_missing_do_not_either() -> None:
    one = publisher()
    one.heard(5, 0.0)
    assert not one.states(5, 0, is_last=False)
    assert not one.states(5, 2, is_last=True)
    assert not one.states(5, 1, is_last=True)
    assert one.lost_at == 5


def test_states_later_than_messages_that_still_come_are_no_loss() -> None:
    one = publisher()
    one.heard(2, 0.0)
    assert one.states(4, 0, is_last=True)
    assert one.heard(3, 0.0)
    assert one.heard(4, 0.0)
    assert one.heard(5, 0.0)


def test_a_heartbeat_that_counts_more_shows_a_loss_after_a_while() -> None:
    one = publisher()
    one.heard(3, 0.0)
    one.counted(4, 1.0)
    assert not one.is_behind(1.0)
    one.counted(6, 1.5)
    assert one.is_behind(1.0 + PATIENCE_S)
    assert one.lost_at == 5
    assert one.total == 4


def test_a_heartbeat_that_came_before_its_messages_does_not() -> None:
    one = publisher()
    one.counted(2, 0.0)
    one.heard(1, 0.1)
    one.heard(2, 0.1)
    assert not one.is_behind(10.0)


def test_a_state_older_than_a_message_since_is_not_wanted() -> None:
    one = publisher()
    one.since[KEY] = 7
    assert not one.is_wanted(*KEY, total=6)
    assert one.is_wanted(*KEY, total=7)
    assert one.is_wanted("ETHUSDT", 0, total=1)
