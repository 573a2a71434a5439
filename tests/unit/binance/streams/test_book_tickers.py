"""Book tickers are decoded whatever fields their market omits."""

from __future__ import annotations

import pytest

from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.messages import ControlAnswer, Trade
from include.errors import PermanentError

SPOT = (
    b'{"stream":"btcusdt@bookTicker","data":'
    b'{"u":400900217,"s":"BTCUSDT","b":"25.35","B":"31.21","a":"25.36","A":"40.66"}}'
)
UM = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":400900217,"s":"BTCUSDT",'
    b'"b":"25.35","B":"31.21","a":"25.36","A":"40.66","T":1763716800001,"E":1763716800002}}'
)
NUMBERS = ("25.35", "31.21", "25.36", "40.66")


def test_spot_book_ticker_has_no_time() -> None:
    assert decode_captured(SPOT) == BookTicker(400900217, "BTCUSDT", *NUMBERS)


def test_usd_m_book_ticker_has_its_event_time() -> None:
    assert decode_captured(UM) == BookTicker(400900217, "BTCUSDT", *NUMBERS, 1763716800002)


def test_other_frames_keep_their_types() -> None:
    assert isinstance(decode_captured(b'{"result":null,"id":1}'), ControlAnswer)
    trade = (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1763716800000000,"s":"BTCUSDT",'
        b'"t":5,"p":"2.5","q":"0.1","T":1763716800000000,"m":true}}'
    )
    assert isinstance(decode_captured(trade), Trade)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"u":400900217,', b""),
        (b'"25.35"', b'"NaN"'),
        (b'"25.35"', b'"1e99"'),
        (b'"25.35"', b'"-Infinity"'),
        (b'"25.35"', b'"1\\t2"'),
        (b'"25.35"', b'"1\\u000a2"'),
        (b'"25.35"', b'""'),
        (b'"25.35"', b'"1000000000000000000000000"'),
        (b"}}", b"}"),
        (b"BTCUSDT", b"\xff"),
    ],
)
def test_invalid_book_ticker_is_refused_with_an_excerpt(old: bytes, new: bytes) -> None:
    with pytest.raises(PermanentError, match="bookTicker"):
        decode_captured(SPOT.replace(old, new))


def test_escaped_symbol_name_is_decoded() -> None:
    quote = decode_captured(SPOT.replace(b'"BTCUSDT"', b'"\\u5e01BTCUSDT"'))
    assert quote == BookTicker(400900217, "币BTCUSDT", *NUMBERS)
