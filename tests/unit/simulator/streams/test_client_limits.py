"""The exchange's limits on clients, without sockets."""

import pytest

from simulator.streams.client_limits import ConnectLimit, MessageRate, OpenPings


def test_messages_are_counted_in_a_rolling_second() -> None:
    rate = MessageRate()
    assert not any(rate.exceeds(5, 10 + number / 10) for number in range(5))
    assert rate.exceeds(5, 10.95)
    assert rate.exceeds(5, 11.0)  # refused messages count, too
    assert not rate.exceeds(5, 12.5)


def test_pong_answers_its_ping_and_the_earlier_ones() -> None:
    pings = OpenPings()
    for number, deadline_s in ((b"1", 60.0), (b"2", 80.0), (b"3", 100.0)):
        pings.send(number, deadline_s)
    assert not pings.are_overdue(59.9)
    assert pings.are_overdue(60.0)
    assert pings.answer(b"2")
    assert not pings.are_overdue(99.9)
    assert pings.are_overdue(100.0)
    assert pings.answer(b"3")
    assert not pings.are_overdue(1_000.0)


@pytest.mark.parametrize("payload", [b"", b"0", b"11"])
def test_unsolicited_pong_is_no_answer(payload: bytes) -> None:
    pings = OpenPings()
    pings.send(b"1", 60.0)
    assert not pings.answer(payload)
    assert pings.are_overdue(60.0)


def test_duplicate_pong_answers_once() -> None:
    pings = OpenPings()
    pings.send(b"1", 60.0)
    assert pings.answer(b"1")
    assert not pings.answer(b"1")


def test_connects_are_limited_by_address_in_a_rolling_window() -> None:
    limit = ConnectLimit(3, window_s=300)
    assert [limit.wait_s("a", 10.0 + number) for number in range(3)] == [0, 0, 0]
    assert limit.wait_s("a", 20.0) == 290.0
    assert limit.wait_s("b", 20.0) == 0
    assert limit.wait_s("a", 309.0) == 1.0
    assert limit.wait_s("a", 310.0) == 0  # the first of the three has left the window
    assert limit.wait_s("a", 310.5) == 0.5  # and refused connects were not counted
