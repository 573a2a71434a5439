from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.binance.streams.handover import MAX_WAIT_S, OVERLAP_S, Handover, event_us
from include.binance.streams.messages import AggTrade, decode
from include.binance.streams.session import StreamSession

T0 = 1_700_000_000_000_000
ANSWER = b'{"result":null,"id":1}'


def up_to(heard_us: int) -> Callable[[object], bool]:
    """The old connection has delivered trades up to a time."""
    return lambda frame: heard_us >= event_us(frame)


def trade(number: int, event_us: int) -> bytes:
    data = {
        "e": "aggTrade", "E": event_us, "s": "BTCUSDT", "a": number, "p": "10.5", "q": "2",
        "f": number, "l": number, "T": event_us, "m": False, "M": True,
    }  # fmt: skip
    return json.dumps({"stream": "btcusdt@aggTrade", "data": data}).encode()


def subscribing() -> tuple[StreamSession, Handover]:
    """A successor that has asked for its one stream."""
    session = StreamSession(["btcusdt@aggTrade"])
    assert session.next_message(0) is not None
    return session, Handover(session)


def test_frames_are_held_only_once_all_streams_are_acknowledged() -> None:
    _, handover = subscribing()
    assert handover.take(trade(1, T0), 1.0) is None
    assert handover.take(ANSWER, 2.0) is None
    assert handover.held == []  # the old connection delivers these
    assert not handover.is_ready(100.0, up_to(T0 + 10**9))  # an acknowledgement proves nothing
    handover.take(trade(2, T0 + 5), 3.0)
    handover.take(b"not JSON", 3.1)  # for its taker to count
    handover.take(b'{"stream":"x","data":{"u":1,"s":"BTCUSDT"}}', 3.2)
    assert handover.held[:2] == [trade(2, T0 + 5), b"not JSON"]
    assert len(handover.held) == 3
    assert handover.arrived_s == [3.0, 3.1, 3.2]


def test_handover_is_ready_once_the_old_connection_passes_the_first_held_frame() -> None:
    _, handover = subscribing()
    handover.take(ANSWER, 2.0)
    handover.take(trade(2, T0), 3.0)
    assert not handover.is_ready(3.0 + OVERLAP_S, up_to(T0 - 1))  # the old one lags
    assert not handover.is_ready(3.0 + OVERLAP_S / 2, up_to(T0))  # other streams of it may
    assert handover.is_ready(3.0 + OVERLAP_S, up_to(T0))
    assert not handover.is_ready(3.0 + MAX_WAIT_S - 0.1, up_to(T0 - 1))
    assert handover.is_ready(3.0 + MAX_WAIT_S, up_to(T0 - 1))  # that stream of it is dead


def test_streams_added_meanwhile_must_deliver_too() -> None:
    session, handover = subscribing()
    handover.take(ANSWER, 2.0)
    handover.take(trade(2, T0), 3.0)
    session.subscribe(["ethusdt@aggTrade"])
    assert not handover.is_ready(10.0, up_to(T0))
    handover.take(trade(3, T0 + 1), 10.0)
    assert session.next_message(11.0) is not None
    handover.take(b'{"result":null,"id":2}', 12.0)
    handover.take(trade(4, T0 + 2), 13.0)
    assert not handover.is_ready(13.0 + OVERLAP_S / 2, up_to(T0 + 2))
    assert handover.is_ready(13.0 + OVERLAP_S, up_to(T0 + 2))
    assert handover.held == [trade(2, T0), trade(3, T0 + 1), trade(4, T0 + 2)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
            "SUBSCRIBE of 1 stream refused: code 2 Invalid request",
        ),
        (
            b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1700000000000}}',
            "the exchange announced its shutdown",
        ),
        (b'{"e":"serverShutdown","E":1700000000000}', "the exchange announced its shutdown"),
    ],
)
def test_refused_successor_is_reported(message: bytes, reason: str) -> None:
    _, handover = subscribing()
    assert handover.take(message, 1.0) == reason


def test_held_frames_are_bounded() -> None:
    session = StreamSession([])
    handover = Handover(session, max_bytes=1_000)
    number = 0
    while not handover.is_ready(1.0, up_to(T0 - 1)):  # the old one never catches up
        handover.take(trade(number, T0 + number), 1.0)
        number += 1
        assert number < 100
    assert sum(map(len, handover.held)) < 1_000 + 2 * len(trade(0, T0))


@given(
    first=st.integers(1, 40),
    lag=st.integers(0, 30),
    lead=st.integers(0, 30),
    shutdown_at=st.integers(60, 100),
)
def test_old_and_held_frames_have_every_trade_in_order(
    first: int, lag: int, lead: int, shutdown_at: int
) -> None:
    """Trade n is made at n tenths of a second; each connection delivers it with its own delay."""
    _, handover = subscribing()
    handover.take(ANSWER, 0.0)
    old: list[int] = []
    for tick in range(200):
        now_s = tick / 10
        if tick - lag >= 0:
            old.append(tick - lag)
        number = tick - lead
        if number >= first and tick < shutdown_at + 100:
            handover.take(trade(number, T0 + number * 100_000), now_s)
        heard_us = T0 + old[-1] * 100_000 if old else 0
        if handover.is_ready(now_s, up_to(heard_us)):
            break
    else:
        raise AssertionError("it never took over")
    seen: list[int] = []
    for number in [*old, *(_id(frame) for frame in handover.held)]:
        if not seen or number > seen[-1]:
            seen.append(number)
    assert seen == list(range(seen[-1] + 1))


def _id(frame: bytes) -> int:
    decoded = decode(frame)
    assert isinstance(decoded, AggTrade)
    return decoded.id
