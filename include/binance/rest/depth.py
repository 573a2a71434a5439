"""``depth``: the best levels of an order book."""

from __future__ import annotations

import msgspec

from include.binance.streams.depth import UpdateId
from include.domain.books.order_book import BookSnapshot, LevelText, are_sound, snapshot_of
from include.domain.instruments import Market
from include.errors import PermanentError

DEPTH_LEVELS = 1_000
"""Levels a side of one request: the most of futures. Spot has 5,000 at five times the weight."""
DEPTH_WEIGHT: dict[Market, int] = {Market.SPOT: 50, Market.UM: 20, Market.CM: 20}
"""Weight of a request of that many levels."""


class DepthAnswer(msgspec.Struct, frozen=True, gc=False):
    """One answer of ``GET …/depth``. Futures add times; spot has none."""

    last_update_id: UpdateId = msgspec.field(name="lastUpdateId")
    bids: list[LevelText]
    asks: list[LevelText]


DEPTH_ANSWER = msgspec.json.Decoder(DepthAnswer)


def book_snapshot_of(answer: DepthAnswer, *, symbol: str, limit: int) -> BookSnapshot:
    """Return an answer as a snapshot.

    Raises:
        PermanentError: a number is negative, absurd or none.
    """
    if not are_sound(answer.bids, answer.asks):
        raise PermanentError(
            f"the depth of {symbol} at update {answer.last_update_id} has an invalid number; "
            "should have at most 16 digits and 8 decimals"
        )
    return snapshot_of(answer.last_update_id, answer.bids, answer.asks, limit=limit)
