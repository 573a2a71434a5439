"""Decode ``<symbol>@forceOrder`` and ``!forceOrder@arr``: liquidations of futures.

The exchange sends only the latest liquidation of each second and symbol: a sample, not a ledger.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from include.binance.streams.book_tickers import BookTicker, decode_captured
from include.binance.streams.messages import ABSURD, Frame, Moment
from include.domain.exact import ZERO
from include.errors import PermanentError

FORCE_ORDER = "forceOrder"

Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9_]{1,32}\Z")]
"""A name of the exchange, which needs no escaping in a line of COPY."""
Number = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,24}(\.[0-9]{1,24})?\Z")]

_MARK = FORCE_ORDER.encode()
_MARK_WITHIN = 96
"""Bytes to search for the stream's name: a combined frame begins with it, and names are shorter."""
_SHOWN_BYTES = 200


class LiquidationOrder(msgspec.Struct, frozen=True, gc=False):
    """The order of a liquidation. Fields of 2026 (``ps``, ``st``) are ignored."""

    symbol: str = msgspec.field(name="s")
    side: Literal["BUY", "SELL"] = msgspec.field(name="S")
    order_type: Word = msgspec.field(name="o")
    time_in_force: Word = msgspec.field(name="f")
    quantity: Number = msgspec.field(name="q")  # base asset; COIN-M: contracts
    price: Number = msgspec.field(name="p")  # bankruptcy price
    average_price: Number = msgspec.field(name="ap")
    order_status: Word = msgspec.field(name="X")
    last_filled_quantity: Number = msgspec.field(name="l")
    accumulated_quantity: Number = msgspec.field(name="z")
    order_time: Moment = msgspec.field(name="T")


class ForceOrder(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag=FORCE_ORDER):
    """A liquidation as the exchange last reported it."""

    event_time: Moment = msgspec.field(name="E")
    order: LiquidationOrder = msgspec.field(name="o")


class _Combined(msgspec.Struct, frozen=True, gc=False):
    stream: str
    data: ForceOrder


_decode = msgspec.json.Decoder(_Combined).decode


def decode_with_liquidations(text: bytes | memoryview) -> Frame | BookTicker | ForceOrder:
    """Decode one text frame of a combined connection that may carry liquidations.

    Raises:
        PermanentError: as ``decode_captured``; or a liquidation lacks a field, has a side other
            than BUY and SELL, no price or quantity above zero, or a number that is none. The
            message shows its beginning.
    """
    if type(text) is not bytes:
        text = bytes(text)
    if text.find(_MARK, 0, _MARK_WITHIN) < 0:
        return decode_captured(text)
    try:
        frame = _decode(text).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PermanentError(f"frame forceOrder: {error}: {_beginning(text)}") from None
    order = frame.order
    if not all(ZERO < Decimal(one) < ABSURD for one in (order.price, order.quantity)):
        raise PermanentError(
            f"frame forceOrder should have a price and a quantity above zero: {_beginning(text)}"
        )
    return frame


def _beginning(text: bytes) -> str:
    return repr(text[:_SHOWN_BYTES])
