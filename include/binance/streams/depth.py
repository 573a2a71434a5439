"""Decode ``<symbol>@depth``: the levels of the order book that changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from include.binance.streams.book_tickers import decode_captured
from include.binance.streams.messages import Moment
from include.domain.books.order_book import LevelText, are_sound
from include.errors import PermanentError

DEPTH_STREAM = "depth@100ms"

UpdateId = Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)]

_MARK = b"@depth"
_MARK_WITHIN = 96
"""Bytes to search for the stream's name: a combined frame begins with it, and names are shorter."""
_SHOWN_BYTES = 200


class DepthUpdate(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="depthUpdate"):
    """The new quantities of all levels that changed in a period; quantity 0 removes a level.

    Numbers stay text: they are stored and compared, nothing is computed from them.
    """

    event_time: Moment = msgspec.field(name="E")  # ms or µs, by connection
    symbol: str = msgspec.field(name="s")
    first_update_id: UpdateId = msgspec.field(name="U")
    last_update_id: UpdateId = msgspec.field(name="u")
    bids: list[LevelText] = msgspec.field(name="b")
    asks: list[LevelText] = msgspec.field(name="a")
    transaction_time: Moment | None = msgspec.field(name="T", default=None)  # futures
    final_update_id_before: UpdateId | None = msgspec.field(name="pu", default=None)  # futures

    @property
    def previous_update_id(self) -> int:
        """The id after which these changes begin.

        Ids of spot are contiguous for each symbol. Ids of futures skip, and ``pu`` names the last
        id of the previous frame.
        """
        before = self.final_update_id_before
        return self.first_update_id - 1 if before is None else before


class _Combined(msgspec.Struct, frozen=True, gc=False):
    stream: str
    data: DepthUpdate


_decode = msgspec.json.Decoder(_Combined).decode


def decode_book_frame(
    text: bytes | memoryview, *, decode_other: Callable[[bytes], object] = decode_captured
) -> object:
    """Decode one text frame of a combined connection that may carry depth: a ``DepthUpdate``, or
    what ``decode_other`` returns.

    Args:
        decode_other: decodes frames of other streams.

    Raises:
        PermanentError: as ``decode_other``; or a depth frame lacks a field, has ids that do not
            ascend, or a number that is negative, absurd or none. The message shows its beginning.
    """
    if type(text) is not bytes:
        text = bytes(text)
    if text.find(_MARK, 0, _MARK_WITHIN) < 0:
        return decode_other(text)
    try:
        update = _decode(text).data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PermanentError(f"frame depthUpdate: {error}: {_beginning(text)}") from None
    if not (update.previous_update_id < update.first_update_id <= update.last_update_id):
        raise PermanentError(f"frame depthUpdate has ids that do not ascend: {_beginning(text)}")
    if not are_sound(update.bids, update.asks):
        raise PermanentError(f"frame depthUpdate has an invalid number: {_beginning(text)}")
    return update


def _beginning(text: bytes | memoryview) -> str:
    return repr(bytes(text[:_SHOWN_BYTES]))
