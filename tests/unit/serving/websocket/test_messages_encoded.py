"""Bars and prices, encoded once."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from include.domain.candles import Status, silent_candle
from serving.bars.subscription import BarUpdate
from serving.websocket import messages


def update(symbol: str = "S1", price: str = "1.50", **fields: object) -> BarUpdate:
    candle = silent_candle(symbol, 60_000_000, Decimal(price))
    return replace(BarUpdate("1m", candle), **fields)  # type: ignore[arg-type]


def messages_of(frames: bytes) -> list[tuple[Opcode, bytes]]:
    """As a client's library reads them."""
    reader = Protocol(CLIENT)
    reader.receive_data(frames)
    return [(one.opcode, bytes(one.data)) for one in reader.events_received()]  # type: ignore[union-attr]


def test_bar_message_has_nine_values_as_the_exchange_writes_them() -> None:
    candle = replace(update().candle, volume=Decimal("1E-8"), trade_count=3)
    told = json.loads(messages.candle_of(replace(update(is_closed=True), candle=candle)))
    assert told == {
        "symbol": "S1", "timeframe": "1m", "open_time": 60_000, "open": "1.50", "high": "1.50",
        "low": "1.50", "close": "1.50", "volume": "0.00000001", "quote_volume": "0",
        "trade_count": 3, "taker_buy_volume": "0", "taker_buy_quote_volume": "0",
        "is_closed": True, "status": None, "is_revision": False,
    }  # fmt: skip


def test_unknown_quote_volumes_are_null() -> None:
    told = json.loads(messages.candle_of(update(has_quotes=False, status=Status.VERIFIED)))
    assert (told["quote_volume"], told["taker_buy_quote_volume"]) == (None, None)
    assert told["status"] == "verified"


@pytest.mark.parametrize("count", [1, 2, messages.MAX_BARS, 2 * messages.MAX_BARS + 1])
def test_frames_of_any_number_of_bars_are_read_by_a_library(count: int) -> None:
    names = [f"S{number}" for number in range(count)]
    for join, encode, kind in (
        (messages.candles, messages.candle_of, "candles"),
        (messages.prices, messages.price_of, "price"),
    ):
        found: list[str] = []
        for opcode, text in messages_of(join([encode(update(name)) for name in names])):
            assert opcode is Opcode.TEXT
            told = json.loads(text)
            assert told["type"] == kind
            assert len(told["data"]) <= messages.MAX_BARS
            found += [one["symbol"] for one in told["data"]]
        assert found == names


@pytest.mark.parametrize("size", [0, 125, 126, (1 << 16) - 1, 1 << 16])
def test_frames_of_any_size_are_read_by_a_library(size: int) -> None:
    frames = messages.framed(messages.BINARY, bytes(size)) * 2
    assert messages_of(frames) == [(Opcode.BINARY, bytes(size))] * 2


def test_binary_frame_has_fifty_prices() -> None:
    item = messages.id_of(7) + messages.values_of(update())
    found = messages_of(messages.binary_prices([item] * 120))
    assert [len(one) for _, one in found] == [6 + 18 * 50, 6 + 18 * 50, 6 + 18 * 20]
