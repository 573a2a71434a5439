"""Stream URLs and control messages."""

import json
from typing import Any

import pytest

from simulator.streams.protocol import PathError, StreamSession, parse_target


def _ask(session: StreamSession, **message: Any) -> Any:
    return json.loads(session.handle(json.dumps(message)).text)


@pytest.mark.parametrize(
    ("market", "path", "combined", "streams", "route", "unit_us"),
    [
        ("spot", "/ws", False, (), None, 1_000),
        ("spot", "/ws/btcusdt@trade", False, ("btcusdt@trade",), None, 1_000),
        ("spot", "/ws/a@trade/b@aggTrade", False, ("a@trade", "b@aggTrade"), None, 1_000),
        ("spot", "/stream?streams=a@trade/b@trade", True, ("a@trade", "b@trade"), None, 1_000),
        ("spot", "/stream?streams=a%40trade", True, ("a@trade",), None, 1_000),
        ("spot", "/stream?timeUnit=microsecond&streams=a@trade", True, ("a@trade",), None, 1),
        ("spot", "/ws?timeUnit=MILLISECOND", False, (), None, 1_000),
        ("um", "/market/stream?streams=a@aggTrade", True, ("a@aggTrade",), "market", 1_000),
        ("um", "/public/ws/a@trade", False, ("a@trade",), "public", 1_000),
        ("um", "/private/stream", True, (), "private", 1_000),
        ("um", "/ws", False, (), "public", 1_000),
        ("um", "/market/ws?timeUnit=MICROSECOND", False, (), "market", 1_000),
    ],
)
def test_urls_select_form_streams_route_and_unit(
    market: Any, path: str, combined: bool, streams: tuple[str, ...], route: Any, unit_us: int
) -> None:
    target = parse_target(market, path)
    assert (target.combined, target.streams, target.route, target.unit_us) == (
        combined, streams, route, unit_us,
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/wss", "/stream/a@trade", "/market/ws", "/api/v3/time"])
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(PathError) as raised:
        parse_target("spot", path)
    assert raised.value.status == 404


def test_unknown_time_unit_is_a_bad_request() -> None:
    with pytest.raises(PathError) as raised:
        parse_target("spot", "/ws?timeUnit=NANOSECOND")
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("path", "delivered"),
    [
        ("/ws", {"a@trade", "a@bookTicker", "a@depth@100ms", "!bookTicker"}),
        ("/public/ws", {"a@trade", "a@bookTicker", "a@depth@100ms", "!bookTicker"}),
        ("/market/ws", {"a@aggTrade", "a@kline_1m", "a@markPrice", "!forceOrder@arr"}),
        ("/private/ws", set()),
    ],
)
def test_futures_paths_carry_only_their_streams(path: str, delivered: set[str]) -> None:
    names = {
        "a@trade", "a@bookTicker", "a@depth@100ms", "!bookTicker", "a@aggTrade", "a@kline_1m",
        "a@markPrice", "!forceOrder@arr",
    }  # fmt: skip
    target = parse_target("um", path)
    assert {name for name in names if target.delivers(name)} == delivered


def test_subscriptions_are_acknowledged_listed_and_removed() -> None:
    session = StreamSession(combined=False)
    reply = session.handle(
        '{"method":"SUBSCRIBE","params":["a@trade","NoSuch@x","a@trade"],"id":1}'
    )
    assert json.loads(reply.text) == {"result": None, "id": 1}
    assert reply.added == ("a@trade", "NoSuch@x")
    again = session.handle('{"method":"SUBSCRIBE","params":["a@trade"],"id":"x1"}')
    assert again.added == ()
    listed = _ask(session, method="LIST_SUBSCRIPTIONS", id=3)
    assert listed == {"result": ["a@trade", "NoSuch@x"], "id": 3}
    reply = session.handle('{"method":"UNSUBSCRIBE","params":["a@trade","b@trade"],"id":null}')
    assert reply.removed == ("a@trade",)
    assert _ask(session, method="LIST_SUBSCRIPTIONS", id=4)["result"] == ["NoSuch@x"]


def test_property_combined_can_be_read_and_set() -> None:
    session = StreamSession(combined=False)
    assert _ask(session, method="GET_PROPERTY", params=["combined"], id=1)["result"] is False
    assert _ask(session, method="SET_PROPERTY", params=["combined", True], id=2)["result"] is None
    assert session.combined
    assert _ask(session, method="GET_PROPERTY", params=["combined"], id=3)["result"] is True


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"method":"GET_PROPERTY","params":["other"],"id":1}', 0),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}', 1),
        ('{"method":"SET_PROPERTY","params":["combined"],"id":1}', 1),
        ('{"method":"GET_PROPERTY","params":[1],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":["combined","x"],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"],"id":1.5}', 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"],"id":true}', 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"],"id":9223372036854775808}', 2),
        (f'{{"method":"SUBSCRIBE","params":["a@trade"],"id":"{"x" * 37}"}}', 2),
        ('{"method":"SUBSCRIBE","params":"a@trade","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[7],"id":1}', 2),
        ('{"method":"SUBSCRIBER","params":["a@trade"],"id":1}', 2),
        ('{"params":["a@trade"],"id":1}', 2),
        ('{"method":"LIST_SUBSCRIPTIONS","id":1,"more":2}', 2),
        ("[]", 2),
        ("{not json", 3),
    ],
)
def test_malformed_messages_get_the_exchanges_error_code(text: str, code: int) -> None:
    session = StreamSession(combined=False)
    reply = session.handle(text)
    assert json.loads(reply.text)["error"]["code"] == code
    assert reply.close is None
    assert not session.streams


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"method":"GET_PROPERTY","params":["other"],"id":1}', "Unknown property"),
        (
            '{"method":"SET_PROPERTY","params":["combined",1],"id":1}',
            "Invalid value type: expected Boolean",
        ),
        (
            '{"method":"SET_PROPERTY","params":[true],"id":1}',
            "Invalid request: property name must be a string",
        ),
        (
            '{"method":"SET_PROPERTY","params":["combined",true,1],"id":1}',
            "Invalid request: too many parameters",
        ),
        ('{"id":1}', "Invalid request: missing field `method` at line 1 column 8"),
        (
            '{"method":"LIST","id":1}',
            (
                "Invalid request: unknown variant `LIST`, expected one of `SUBSCRIBE`, "
                "`UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
            ),
        ),
    ],
)
def test_errors_are_wrapped_with_the_exchanges_message_and_the_requests_id(
    text: str, message: str
) -> None:
    error = json.loads(StreamSession(combined=False).handle(text).text)
    assert error["error"]["msg"] == message
    assert error["id"] == 1
    assert set(error) == {"error", "id"}


@pytest.mark.parametrize(
    ("message", "place"), [(b"{not", "line 1 column 2"), (b'{"id":\n\n x}', "line 3 column 2")]
)
def test_invalid_json_is_answered_with_its_position(message: bytes, place: str) -> None:
    error = json.loads(StreamSession(combined=False).handle(message).text)
    assert error == {
        "error": {"code": 3, "msg": f"Invalid JSON: expected value at {place}"}, "id": None,
    }  # fmt: skip


def test_invalid_utf_8_is_invalid_json() -> None:
    error = json.loads(StreamSession(combined=False).handle(b'{"id":"\xff"}').text)
    assert error["error"]["code"] == 3


@pytest.mark.parametrize(
    "path",
    ["/ws/%E5%B8%81%E5%AE%89usdt@trade", "/ws/币安usdt@trade", "/stream?streams=币安usdt@trade"],
)
def test_non_ascii_symbols_are_utf_8_or_escaped(path: str) -> None:
    as_received = path.encode().decode("ascii", "surrogateescape")
    assert parse_target("spot", as_received).streams == ("币安usdt@trade",)


def test_invalid_utf_8_in_the_path_is_a_bad_request() -> None:
    with pytest.raises(PathError) as raised:
        parse_target("spot", b"/ws/\xff@trade".decode("ascii", "surrogateescape"))
    assert raised.value.status == 400


def test_one_stream_too_many_ends_the_connection_and_adds_none() -> None:
    session = StreamSession(combined=True)
    session.add(f"s{number}@trade" for number in range(1_000))
    names = [f"t{number}@trade" for number in range(24)]
    assert "error" not in _ask(session, method="SUBSCRIBE", params=names, id=1)
    reply = session.handle('{"method":"SUBSCRIBE","params":["u@trade"],"id":19}')
    assert json.loads(reply.text) == {
        "error": {"code": 4, "msg": "Too many subscriptions"}, "id": 19,
    }  # fmt: skip
    assert reply.close == "Invalid request"
    assert len(session.streams) == 1_024
