from __future__ import annotations

from serving.sources.nats.publisher_state import PATIENCE_S, PublisherState

KEY = ("BTCUSDT", 60_000_000)


def publisher() -> PublisherState:
    return PublisherState("a", 1, received_s=0.0)


def test_consecutive_messages_are_complete() -> None:
    one = publisher()
    assert all(one.on_message(total, 0.0) for total in (1, 2, 3))
    assert one.lost_at is None
    assert not one.needs_states(0.0)


def test_missing_message_requests_states_until_they_arrive() -> None:
    one = publisher()
    assert one.on_message(1, 0.0)
    assert not one.on_message(3, 0.0)
    assert one.needs_states(0.0)
    one.requested_s = 0.0
    assert not one.needs_states(PATIENCE_S / 2)
    assert one.needs_states(PATIENCE_S)
    assert not one.on_states(3, 0, is_last=False)
    assert one.on_states(3, 1, is_last=True)
    assert one.lost_at is None
    assert one.on_message(4, 0.0)


def test_states_from_before_a_loss_do_not_end_it() -> None:
    one = publisher()
    one.on_message(1, 0.0)
    one.on_message(5, 0.0)
    assert not one.on_states(3, 0, is_last=True)
    assert one.on_states(4, 0, is_last=True)


def test_incomplete_states_do_not_end_a_loss() -> None:
    one = publisher()
    one.on_message(5, 0.0)
    assert not one.on_states(5, 0, is_last=False)
    assert not one.on_states(5, 2, is_last=True)
    assert not one.on_states(5, 1, is_last=True)
    assert one.lost_at == 5


def test_states_ahead_of_messages_are_no_loss() -> None:
    one = publisher()
    one.on_message(2, 0.0)
    assert one.on_states(4, 0, is_last=True)
    assert one.on_message(3, 0.0)
    assert one.on_message(4, 0.0)
    assert one.on_message(5, 0.0)


def test_heartbeat_with_a_higher_count_shows_a_loss_after_a_while() -> None:
    one = publisher()
    one.on_message(3, 0.0)
    one.on_heartbeat(4, 1.0)
    assert not one.is_behind(1.0)
    one.on_heartbeat(6, 1.5)
    assert one.is_behind(1.0 + PATIENCE_S)
    assert one.lost_at == 5
    assert one.total == 4


def test_heartbeat_ahead_of_its_messages_shows_no_loss() -> None:
    one = publisher()
    one.on_heartbeat(2, 0.0)
    one.on_message(1, 0.1)
    one.on_message(2, 0.1)
    assert not one.is_behind(10.0)


def test_state_older_than_a_later_message_is_ignored() -> None:
    one = publisher()
    one.since[KEY] = 7
    assert not one.is_wanted(*KEY, total=6)
    assert one.is_wanted(*KEY, total=7)
    assert one.is_wanted("ETHUSDT", 0, total=1)
