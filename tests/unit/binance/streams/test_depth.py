"""Depth frames of spot and futures become typed values; bad ones are refused with their text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.binance.streams.book_tickers import BookTicker
from include.binance.streams.depth import DepthUpdate, decode_book_frame
from include.binance.streams.messages import AggTrade, ControlAnswer
from include.errors import PermanentError

SPOT: dict[str, Any] = {
    "e": "depthUpdate", "E": 1_723_161_255_208_123, "s": "BTCUSDT", "U": 160, "u": 165,
    "b": [["61737.63000000", "0.00000000"]], "a": [["61837.64000000", "1.54698000"]],
}  # fmt: skip
FUTURES: dict[str, Any] = {
    "e": "depthUpdate", "E": 1_680_652_700_594, "T": 1_680_652_700_586, "s": "BTCUSDT",
    "U": 373, "u": 597, "pu": 326, "b": [["5000.00", "14.368"]], "a": [], "st": 1,
}  # fmt: skip


def frame(data: dict[str, Any], stream: str = "btcusdt@depth@100ms") -> bytes:
    return json.dumps({"stream": stream, "data": data}).encode()


def test_spot_diff_follows_the_id_before_its_first() -> None:
    update = decode_book_frame(frame(SPOT))
    assert isinstance(update, DepthUpdate)
    assert (update.previous_update_id, update.last_update_id) == (159, 165)
    assert (update.event_time, update.transaction_time) == (1_723_161_255_208_123, None)
    assert update.bids == [("61737.63000000", "0.00000000")]


def test_futures_diff_names_the_id_that_it_follows() -> None:
    update = decode_book_frame(frame(FUTURES))
    assert isinstance(update, DepthUpdate)
    assert (update.previous_update_id, update.first_update_id) == (326, 373)
    assert update.transaction_time == 1_680_652_700_586
    assert update.asks == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": [["-1.0", "1"]]}, "invalid number"),
        ({"a": [["1e40", "1"]]}, "invalid number"),
        ({"a": [["NaN", "1"]]}, "invalid number"),
        ({"a": [["1", "1", "1"]]}, "length"),
        ({"a": [[1, 1]]}, "Expected `str`"),
        ({"u": 159}, "ids that do not ascend"),
        ({"pu": 160}, "ids that do not ascend"),
        ({"u": 2**63}, "Expected `int`"),
        ({"E": 5}, "Expected `int`"),
        ({"s": None}, "Expected `str`"),
    ],
)
def test_bad_frame_is_refused_with_its_beginning(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PermanentError, match=message) as caught:
        decode_book_frame(frame({**SPOT, **change}))
    assert "btcusdt@depth" in str(caught.value)


def test_frame_without_levels_of_a_side_is_refused() -> None:
    with pytest.raises(PermanentError, match="missing required field `a`"):
        decode_book_frame(frame({key: value for key, value in SPOT.items() if key != "a"}))


def test_other_frames_are_decoded_as_before() -> None:
    ticker = {"u": 1, "s": "BTCUSDT", "b": "1", "B": "1", "a": "2", "A": "1"}
    assert isinstance(decode_book_frame(frame(ticker, "btcusdt@bookTicker")), BookTicker)
    trade = {
        "e": "aggTrade", "E": 1_672_515_782_136, "s": "BTCUSDT", "a": 1, "p": "1", "q": "1",
        "f": 1, "l": 1, "T": 1_672_515_782_136, "m": True,
    }  # fmt: skip
    assert isinstance(decode_book_frame(frame(trade, "btcusdt@aggTrade")), AggTrade)
    assert isinstance(decode_book_frame(b'{"result":null,"id":1}'), ControlAnswer)
