from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.binance.streams.messages import ControlAnswer
from include.binance.streams.session import StreamSession


def sent(session: StreamSession, now_s: float) -> dict[str, object] | None:
    """The message that is due; the exchange answers it immediately."""
    message = session.next_message(now_s)
    if message is None:
        return None
    request = json.loads(message)
    session.on_answer(ControlAnswer(request["id"]))
    return dict(request)


def test_names_go_out_in_batches_half_a_second_apart() -> None:
    session = StreamSession([f"s{n}@trade" for n in range(450)])
    first = sent(session, 10.0)
    assert first is not None
    assert first["method"] == "SUBSCRIBE"
    assert len(first["params"]) == 200  # type: ignore[arg-type]
    assert sent(session, 10.4) is None
    assert sent(session, 10.5) is not None
    assert sent(session, 11.0) is not None
    assert sent(session, 20.0) is None


MESSAGES_A_SECOND = 5
"""What the exchange accepts, pongs included."""


@given(
    to_exchange=st.lists(st.floats(0, 4), min_size=8, max_size=8),
    back=st.lists(st.floats(0, 2), min_size=8, max_size=8),
    tick_s=st.floats(0.001, 0.3),
)
def test_no_rolling_second_of_the_exchange_holds_more_than_three_messages(
    to_exchange: list[float], back: list[float], tick_s: float
) -> None:
    """However long messages and answers are on their way: they stay in order, and may bunch."""
    session = StreamSession([f"s{n}" for n in range(400)], names_per_message=10)
    arrivals: list[float] = []
    answers: list[tuple[float, int]] = []
    now_s = 0.0
    while not session.is_subscribed:
        now_s += tick_s
        while answers and answers[0][0] <= now_s:
            session.on_answer(ControlAnswer(answers.pop(0)[1]))
        message = session.next_message(now_s)
        if message is not None:
            turn = len(arrivals) % 8
            arrivals.append(max([now_s + to_exchange[turn], *arrivals[-1:]]))
            answers.append((arrivals[-1] + back[turn], json.loads(message)["id"]))
    assert len(arrivals) == 40
    for start in arrivals:
        in_second = sum(start <= arrived < start + 1.0 for arrived in arrivals)
        assert in_second <= MESSAGES_A_SECOND - 2  # pongs count as well


def test_next_message_waits_for_the_answer_to_the_previous_one() -> None:
    session = StreamSession(["a", "b"], names_per_message=1)
    assert session.next_message(0) is not None
    assert session.next_message(5) is None
    session.on_answer(ControlAnswer(1))
    assert session.next_message(5) is not None


def test_session_is_subscribed_once_every_batch_is_acknowledged() -> None:
    session = StreamSession(["a", "b"], names_per_message=1)
    assert not session.is_subscribed
    sent(session, 0)
    assert not session.is_subscribed
    assert session.next_message(1) is not None
    assert not session.is_subscribed
    session.on_answer(ControlAnswer(2))
    assert session.is_subscribed


def test_refusal_has_code_and_message() -> None:
    session = StreamSession(["a"])
    assert session.next_message(0) is not None
    refused = session.on_answer(ControlAnswer(1, error_code=4, error_message="Too many"))
    assert refused == "SUBSCRIBE of 1 stream refused: code 4 Too many"


def test_missing_answer_becomes_overdue() -> None:
    session = StreamSession(["a"])
    assert session.next_message(0) is not None
    assert not session.is_answer_overdue(9.0)
    assert session.is_answer_overdue(10.1)


def test_more_than_1024_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="1,025 streams on a connection that carries 1024"):
        StreamSession([f"s{n}" for n in range(1025)])
    session = StreamSession([f"s{n}" for n in range(1024)])
    with pytest.raises(ValueError, match="1 more stream does not fit; there is room for 0"):
        session.subscribe(["one more"])


def test_streams_can_change_and_be_resubscribed() -> None:
    session = StreamSession(["a", "b"])
    sent(session, 0)
    session.subscribe(["c", "a"])
    session.unsubscribe(["b", "unknown"])
    assert session.streams == ("a", "c")
    assert [sent(session, now) for now in (1, 2)] == [
        {"method": "SUBSCRIBE", "params": ["c"], "id": 2},
        {"method": "UNSUBSCRIBE", "params": ["b"], "id": 3},
    ]
    session.resubscribe(["c", "b"])
    session.resubscribe(["c"])
    assert [sent(session, now) for now in (3, 4, 5)] == [
        {"method": "UNSUBSCRIBE", "params": ["c"], "id": 4},
        {"method": "SUBSCRIBE", "params": ["c"], "id": 5},
        None,
    ]
    assert session.room == 1022
