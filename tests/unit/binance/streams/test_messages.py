from __future__ import annotations

import json
from decimal import Decimal

import pytest

from include.binance.streams.messages import (
    AggTrade,
    ControlAnswer,
    Kline,
    ServerShutdown,
    Trade,
    UnknownFrame,
    decode,
    decode_all,
    microseconds,
)
from include.errors import PermanentError

AGG_TRADE = {
    "e": "aggTrade", "E": 1672515782136, "s": "BNBBTC", "a": 12345, "p": "0.00100000",
    "q": "100", "f": 100, "l": 105, "T": 1672515782130, "m": True, "M": True,
}  # fmt: skip
UM_TRADE = {
    "e": "trade", "E": 1680652874406, "T": 1680652874400, "s": "BTCUSDT", "t": 3535191080,
    "p": "28722.50", "q": "0.001", "m": True,
}  # fmt: skip
KLINE = {
    "e": "kline", "E": 1672515782136, "s": "BNBBTC",
    "k": {
        "t": 1672515780000, "T": 1672515839999, "s": "BNBBTC", "i": "1m", "f": -1, "L": -1,
        "o": "0.001", "c": "0.001", "h": "0.001", "l": "0.001", "v": "0", "n": 0, "x": True,
        "q": "0", "V": "0", "Q": "0", "B": "0",
    },
}  # fmt: skip


def combined(payload: object) -> bytes:
    return json.dumps({"stream": "x@y", "data": payload}).encode()


@pytest.mark.parametrize("wrap", [combined, lambda payload: json.dumps(payload).encode()])
def test_agg_trade_is_typed_in_both_forms(wrap: object) -> None:
    frame = decode(wrap(AGG_TRADE))  # type: ignore[operator]
    assert isinstance(frame, AggTrade)
    assert frame.price == Decimal("0.001")
    assert (frame.id, frame.first_trade_id, frame.last_trade_id) == (12345, 100, 105)
    assert frame.is_buyer_maker is True


def test_trade_is_a_fill_of_one_id() -> None:
    frame = decode(
        combined(
            {"e": "trade", "E": 1763700000002, "s": "A", "t": 7, "p": "1", "q": "2",
             "T": 1763700000001, "m": False, "X": "MARKET"}
        )
    )  # fmt: skip
    assert isinstance(frame, Trade)
    assert frame.first_trade_id == frame.last_trade_id == 7


@pytest.mark.parametrize(
    ("trade_type", "is_market"), [("MARKET", True), ("INSURANCE_FUND", False), ("ADL", False)]
)
def test_type_of_a_futures_trade_tells_whether_candles_count_it(
    trade_type: str, is_market: bool
) -> None:
    frame = decode(combined(UM_TRADE | {"X": trade_type}))
    assert isinstance(frame, Trade)
    assert (frame.trade_type, frame.is_market) == (trade_type, is_market)


@pytest.mark.parametrize("bad", ["", "A\tB", "A\\N", "Ж", "A" * 99])
def test_type_of_a_trade_is_one_word(bad: str) -> None:
    with pytest.raises(PermanentError, match="X of a trade should be one word"):
        decode(combined(UM_TRADE | {"X": bad}))


def test_silent_kline_is_a_candle_without_ids() -> None:
    frame = decode(combined(KLINE))
    assert isinstance(frame, Kline)
    candle = frame.candle("BNBBTC")
    assert candle.is_silent
    assert (candle.first_trade_id, candle.last_trade_id) == (None, None)
    assert candle.open_time_us == 1672515780000 * 1000


def test_times_are_microseconds_whatever_the_connections_unit() -> None:
    assert microseconds(1672515782136) == microseconds(1672515782136000) == 1672515782136000


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b'{"result":null,"id":1}', ControlAnswer(1)),
        (b'{"result":["a@trade"],"id":"x"}', ControlAnswer("x", result=["a@trade"])),
        (
            b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}',
            ControlAnswer(19, error_code=4, error_message="Too many subscriptions"),
        ),
    ],
)
def test_control_answers_are_distinguished_from_data(text: bytes, answer: ControlAnswer) -> None:
    assert decode(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        b'{"e":"serverShutdown","E":1}',
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
    ],
)
def test_shutdown_is_seen_in_both_forms(text: bytes) -> None:
    assert decode(text) == ServerShutdown(1)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'{"stream":"a@x","data":{"e":"markPriceUpdate","E":1}}', "markPriceUpdate"),
        (b'{"u":1,"s":"A","b":"1","B":"1","a":"2","A":"1"}', "no event type"),
        (b'{"stream":"a@bookTicker","data":{"u":1,"s":"A"}}', "a@bookTicker"),
    ],
)
def test_unknown_event_is_named_not_raised(text: bytes, kind: str) -> None:
    assert decode(text) == UnknownFrame(kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"<html>", "not JSON.*<html>"),
        (b"[1,2]", "not an object"),
        (combined({**AGG_TRADE, "p": "NaN"}), "invalid number.*NaN"),
        (combined({**AGG_TRADE, "q": "Infinity"}), "invalid number.*Infinity"),
        (json.dumps({**AGG_TRADE, "q": "1e99"}).encode(), "invalid number.*1e99"),
        (combined({**KLINE, "k": {**KLINE["k"], "v": "-Infinity"}}), "invalid number"),  # type: ignore[dict-item]
        (combined({**AGG_TRADE, "p": "abc"}), "aggTrade.*abc"),
        (combined({k: v for k, v in AGG_TRADE.items() if k != "T"}), "aggTrade.*`T`"),
        (json.dumps({**AGG_TRADE, "m": 3}).encode(), "aggTrade.*bool"),
    ],
)
def test_invalid_frame_is_an_error_with_reason_and_excerpt(text: bytes, message: str) -> None:
    with pytest.raises(PermanentError, match=f"(?s){message}"):
        decode(text)


def test_batch_decodes_frames_like_single_ones() -> None:
    sound = [combined(AGG_TRADE), combined(KLINE), b'{"result":null,"id":1}', combined(AGG_TRADE)]
    assert decode_all(sound) == [decode(text) for text in sound]
    assert decode_all([]) == []


@pytest.mark.parametrize(
    "bad",
    [
        b"<html>",
        combined({**AGG_TRADE, "p": "NaN"}),
        combined({**AGG_TRADE, "p": "sNaN"}),
        combined({**AGG_TRADE, "q": "1e99"}),
        combined({**KLINE, "k": {**KLINE["k"], "v": "Infinity"}}),  # type: ignore[dict-item]
        combined(AGG_TRADE) + b"," + combined(AGG_TRADE),  # two in the place of one
        b"",
    ],
)
def test_invalid_frame_in_a_batch_does_not_affect_others(bad: bytes) -> None:
    before, error, after = decode_all([combined(AGG_TRADE), bad, combined(KLINE)])
    assert (before, after) == (decode(combined(AGG_TRADE)), decode(combined(KLINE)))
    with pytest.raises(PermanentError) as raised:
        decode(bad)
    assert type(error) is PermanentError
    assert str(error) == str(raised.value)


def test_void_trade_in_a_batch_is_decoded() -> None:
    void = combined({**AGG_TRADE, "q": "0.00000000"})
    assert decode_all([void]) == [decode(void)]


@pytest.mark.parametrize(
    "text",
    [
        b'{"e":"aggTrade","s":"\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"stream":"x","data":[' * 50_000,
        b"1e400",
        b'{"p":1' + b"0" * 5_000 + b"}",
        json.dumps(AGG_TRADE | {"E": -5}).encode(),
        json.dumps(AGG_TRADE | {"T": 10**23}).encode(),
    ],
    ids=lambda text: text[:24].decode("latin-1"),
)
def test_any_invalid_frame_raises_a_permanent_error(text: bytes) -> None:
    with pytest.raises(PermanentError, match="frame"):
        decode(text)


@pytest.mark.parametrize("kind", [["kline"], {"a": 1}, 7])
def test_non_text_event_type_is_unknown(kind: object) -> None:
    assert decode(combined({"e": kind})) == UnknownFrame(str(kind))


@pytest.mark.parametrize("code", ["abc", None, [1]])
def test_error_without_a_code_is_still_an_error(code: object) -> None:
    answer = decode(json.dumps({"error": {"code": code, "msg": "no"}, "id": 1}).encode())
    assert answer == ControlAnswer(1, error_code=-1, error_message="no")


def test_unknown_fields_are_ignored() -> None:
    assert isinstance(decode(combined({**AGG_TRADE, "nq": "1", "st": 2})), AggTrade)
