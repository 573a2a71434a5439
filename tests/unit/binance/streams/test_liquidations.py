"""Liquidations are decoded with the fields of every year, and refused if they make no sense."""

from __future__ import annotations

import pytest

from include.binance.streams.book_tickers import BookTicker
from include.binance.streams.liquidations import (
    ForceOrder,
    LiquidationOrder,
    decode_with_liquidations,
)
from include.binance.streams.messages import AggTrade
from include.errors import PermanentError

FRAME = (
    b'{"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":1763716800126,"o":{"s":"BTCUSDT",'
    b'"S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9900.5","X":"FILLED",'
    b'"l":"0.010","z":"0.014","T":1763716800121}}}'
)
LIQUIDATION = ForceOrder(
    1763716800126,
    LiquidationOrder(
        "BTCUSDT", "SELL", "LIMIT", "IOC", "0.014", "9910", "9900.5", "FILLED", "0.010", "0.014",
        1763716800121,
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.replace(b"btcusdt@forceOrder", b"!forceOrder@arr"),
        FRAME.replace(b"121}}}", b'121,"ps":"BTCUSDT","st":1}}}'),
    ],
    ids=["of a symbol", "of all symbols", "of 2026"],
)
def test_every_stream_gives_the_same_liquidation(frame: bytes) -> None:
    assert decode_with_liquidations(memoryview(frame)) == LIQUIDATION


def test_other_frames_keep_their_types() -> None:
    book_ticker = (
        b'{"stream":"a@bookTicker","data":{"u":4,"s":"A","b":"1","B":"2","a":"3","A":"4"}}'
    )
    assert isinstance(decode_with_liquidations(book_ticker), BookTicker)
    trade = (
        b'{"stream":"a@aggTrade","data":{"e":"aggTrade","E":1763716800000,"s":"A","a":5,"p":"2",'
        b'"q":"1","f":5,"l":5,"T":1763716800000,"m":true}}'
    )
    assert isinstance(decode_with_liquidations(trade), AggTrade)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"SELL"', b'"SHORT"'),
        (b'"p":"9910"', b'"p":"0.00"'),
        (b'"q":"0.014"', b'"q":"0"'),
        (b'"q":"0.014"', b'"q":"-1"'),
        (b'"ap":"9900.5"', b'"ap":"NaN"'),
        (b'"l":"0.010"', b'"l":"1\\n"'),
        (b'"X":"FILLED"', b'"X":"FILLED\\t"'),
        (b'"X":"FILLED",', b""),
        (b',"T":1763716800121', b""),
        (b'"T":1763716800121', b'"T":0'),
    ],
)
def test_senseless_liquidation_is_refused_and_shown(old: bytes, new: bytes) -> None:
    assert old in FRAME
    with pytest.raises(PermanentError, match=r"frame forceOrder.*btcusdt@forceOrder"):
        decode_with_liquidations(FRAME.replace(old, new))
