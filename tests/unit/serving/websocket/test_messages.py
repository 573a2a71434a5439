"""What is said over the WebSocket, to the byte."""

from __future__ import annotations

import struct
import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from include.domain.candles import silent_candle
from serving.bars.subscription import BarUpdate
from serving.websocket.messages import (
    Ping,
    RefusedMessage,
    Subscribe,
    Unsubscribe,
    binary_message,
    decoded,
    from_binary,
    id_of,
    names_left,
    names_of,
    values_of,
)

FINITE = some.decimals(0, 10**9, places=8, allow_nan=False)


def update(symbol: str, price: Decimal) -> BarUpdate:
    return BarUpdate("1m", silent_candle(symbol, 0, price))


def test_binary_layout_is_little_endian() -> None:
    message = binary_message([id_of(258) + values_of(update("B", Decimal("12.5")))])
    assert message[4:] == b"\x01\x00" + b"\x02\x01" + struct.pack("<dd", 12.5, 0.0)
    assert message[:4] == zlib.crc32(message[4:]).to_bytes(4, "little")
    assert len(message) == 6 + 18


@given(some.lists(FINITE, max_size=50))
def test_binary_message_round_trips(prices: list[Decimal]) -> None:
    message = binary_message(
        [id_of(i) + values_of(update(f"S{i}", price)) for i, price in enumerate(prices)]
    )
    assert from_binary(message) == [(i, float(price), 0.0) for i, price in enumerate(prices)]


@given(some.binary(max_size=80), some.integers(0, 200))
def test_changed_message_is_refused(noise: bytes, place: int) -> None:
    message = bytearray(binary_message([id_of(0) + values_of(update("A", Decimal(1)))]))
    message[place % len(message)] ^= 1
    with pytest.raises(ValueError, match=r"checksum|byte"):
        from_binary(bytes(message))
    with pytest.raises(ValueError, match=r"checksum|byte"):
        from_binary(noise + b"x")


@given(some.text(max_size=100) | some.binary(max_size=100))
def test_any_message_is_decoded_or_refused(text: str | bytes) -> None:
    try:
        message: object = decoded(text)
    except RefusedMessage as refusal:
        message = refusal
    assert isinstance(message, Subscribe | Unsubscribe | Ping | RefusedMessage)


@pytest.mark.parametrize("start", ['{"a":', '{"type":"ping","id":[', "["])
def test_deeply_nested_message_is_refused(start: str) -> None:
    with pytest.raises(RefusedMessage):
        decoded(start + '{"a":' * 3_000)


def test_symbols_are_listed_or_all_and_deduplicated() -> None:
    streamed = ["BTCUSDT", "ETHUSDT"]
    asked = decoded('{"type": "subscribe", "symbol": "ETHUSDT", "symbols": ["ETHUSDT", "BTCUSDT"]}')
    assert isinstance(asked, Subscribe)
    assert names_of(asked, streamed) == ["ETHUSDT", "BTCUSDT"]
    asked = decoded('{"type": "subscribe", "channel": "price"}')
    assert isinstance(asked, Subscribe)
    assert names_of(asked, streamed) == streamed
    asked = decoded('{"type": "subscribe", "symbol": "NONE", "id": 3}')
    assert isinstance(asked, Subscribe)
    with pytest.raises(RefusedMessage) as refused:
        names_of(asked, streamed)
    assert (refused.value.code, refused.value.id) == ("unknown_symbol", 3)
    with pytest.raises(RefusedMessage) as refused:
        names_of(asked, [])  # not known yet
    assert (refused.value.code, refused.value.id) == ("not_yet", 3)


def test_unsubscribe_names_symbols_or_means_all() -> None:
    asked = decoded('{"type": "unsubscribe", "symbols": ["LUNAUSDT", "LUNAUSDT"]}')
    assert isinstance(asked, Unsubscribe)
    assert names_left(asked, ["BTCUSDT"]) == ["LUNAUSDT"]
    asked = decoded('{"type": "unsubscribe", "channel": "price"}')
    assert isinstance(asked, Unsubscribe)
    assert names_left(asked, {"LUNAUSDT", "BTCUSDT"}) == ["BTCUSDT", "LUNAUSDT"]
