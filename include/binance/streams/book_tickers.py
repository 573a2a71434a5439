"""``<symbol>@bookTicker``: the best bid and ask, typed. Spot frames have no event type."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from include.binance.streams.messages import Frame, decode
from include.errors import PermanentError

Number = Annotated[str, msgspec.Meta(min_length=1, max_length=24)]
"""A decimal number as the exchange writes it: what is longer is absurd."""

_MARK = b"@bookTicker"
_MARK_WITHIN = 96
"""A combined frame names its stream first; names are shorter than this."""
_SHOWN_BYTES = 200
_is_number = re.compile(r"-?[0-9]+(?:\.[0-9]*)?").fullmatch


class BookTicker(msgspec.Struct, frozen=True, gc=False):
    """A change of the best bid or ask.

    Its numbers stay text: nothing is computed from them before the table, and converting to Decimal
    and back took a third of the time of a book ticker.
    """

    update_id: int = msgspec.field(name="u")  # ascends for each symbol
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
        raise PermanentError(f"frame bookTicker holds a number that is none: {_beginning(text)}")
    return quote


def _is_sound(quote: BookTicker, text: bytes) -> bool:
    """Whether its numbers contain no letters (NaN, Infinity, 1e99), tabs or newlines.

    Tabs and newlines can only come as escapes. PostgreSQL refuses any other non-number as one row.
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
