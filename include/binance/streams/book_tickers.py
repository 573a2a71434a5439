"""Decode ``<symbol>@bookTicker``: best bid and ask. Spot frames have no event type."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from include.binance.streams.messages import Frame, decode
from include.errors import PermanentError

Number = Annotated[str, msgspec.Meta(min_length=1, max_length=24)]
"""A decimal number as the exchange writes it; no valid number is longer."""

_MARK = b"@bookTicker"
_MARK_WITHIN = 96
"""Bytes to search for the stream's name: a combined frame begins with it, and names are shorter."""
_SHOWN_BYTES = 200
_is_number = re.compile(r"-?[0-9]+(?:\.[0-9]*)?").fullmatch


class BookTicker(msgspec.Struct, frozen=True, gc=False):
    """A change of the best bid or ask.

    Its numbers stay text: nothing is computed from them before they are stored, and converting to
    Decimal and back took a third of the time of a book ticker.
    """

    update_id: int = msgspec.field(name="u")  # ascending for each symbol
    symbol: str = msgspec.field(name="s")
    bid_price: Number = msgspec.field(name="b")
    bid_quantity: Number = msgspec.field(name="B")
    ask_price: Number = msgspec.field(name="a")
    ask_quantity: Number = msgspec.field(name="A")
    event_time: int = msgspec.field(name="E", default=0)  # ms or µs; 0: unknown (spot)


class _Combined(msgspec.Struct, frozen=True, gc=False):
    stream: str
    data: BookTicker


_decode = msgspec.json.Decoder(_Combined).decode


def decode_captured(text: bytes | memoryview) -> Frame | BookTicker:
    """Decode one text frame of a combined connection that may carry book tickers.

    Raises:
        PermanentError: as ``messages.decode``; or a book ticker lacks a field, or contains a
            non-number.
    """
    if type(text) is not bytes:
        text = bytes(text)
    if text.find(_MARK, 0, _MARK_WITHIN) < 0:
        return decode(text)
    try:
        quote = _decode(text).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PermanentError(f"frame bookTicker: {error}: {_beginning(text)}") from None
    if not _is_sound(quote, text):
        raise PermanentError(f"frame bookTicker has an invalid number: {_beginning(text)}")
    return quote


def _is_sound(quote: BookTicker, text: bytes) -> bool:
    """Whether the numbers contain no letters (NaN, Infinity, 1e99), tabs or newlines.

    Tabs and newlines would break the COPY row. PostgreSQL refuses any other non-number as one row.
    """
    numbers = f"{quote.bid_price}{quote.bid_quantity}{quote.ask_price}{quote.ask_quantity}"
    if numbers.lower() != numbers.upper():
        return False
    return b"\\" not in text or all(
        map(
            _is_number,
            (quote.bid_price, quote.bid_quantity, quote.ask_price, quote.ask_quantity),
        )
    )


def _beginning(text: bytes | memoryview) -> str:
    return repr(bytes(text[:_SHOWN_BYTES]))
