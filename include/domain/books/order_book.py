"""The order book of a symbol: a snapshot, and the diffs after it.

A diff carries the new quantity of each level that changed after its previous update id, up to its
last one. So it follows a book whose last update id lies between the two, and repeats what the book
has if its last id is not newer. This one rule covers the exchange's procedures for spot (``U`` is
the previous ``u`` plus one) and futures (``pu`` is the previous ``u``), the first diff after a
snapshot, and diffs of two connections that overlap.

A snapshot has the best levels only. Where it ends, the *reach* of the book ends: levels beyond are
known only if a diff named them since, so others may be missing between them.

Prices and quantities stay the exchange's own text; prices are compared as integers.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Sequence
from enum import Enum
from itertools import chain
from typing import NamedTuple

from include.errors import RejectedInputError

DECIMALS = 8
"""Decimal places of the exchange's finest price."""
MAX_LEVELS = 2_000
"""Levels of a side that stay in memory; if a half more come together, the farthest are dropped."""
MAX_CACHED_PRICES = 50_000
"""Texts of prices whose integers a book remembers; a text is forty bytes longer than its price."""

LevelText = tuple[str, str]
"""Price and quantity as the exchange writes them; in a diff, quantity 0 removes the level."""

_are_numbers = re.compile(r"(?:[0-9]{1,16}(?:\.[0-9]{1,8})?,)*").fullmatch
_ZEROS = frozenset({"0", *(f"0.{'0' * places}" for places in range(1, DECIMALS + 1))})
_POWERS: list[int] = [10 ** (DECIMALS - places) for places in range(DECIMALS + 1)]


class DiffOutcome(Enum):
    """What a diff did to a book."""

    APPLIED = "applied"
    OLD = "old"
    """It repeats changes that the book has."""
    BREAK = "break"
    """Diffs are missing before it: the book is unknown until the next snapshot."""


class BookSnapshot(NamedTuple):
    """Best levels of a book, best first.

    Attributes:
        bid_reach, ask_reach: prices up to which no level is missing; None: the whole side.
    """

    last_update_id: int
    bids: Sequence[LevelText]
    asks: Sequence[LevelText]
    bid_reach: str | None
    ask_reach: str | None


class BookTop(NamedTuple):
    """Best levels of a book at one update, best first.

    Attributes:
        known_bids, known_asks: number of leading levels between which none is missing.
    """

    last_update_id: int
    bids: tuple[LevelText, ...]
    asks: tuple[LevelText, ...]
    known_bids: int
    known_asks: int


def are_sound(*sides: Sequence[LevelText]) -> bool:
    """Whether all prices and quantities are plain numbers within 16 digits and 8 decimals.

    So they contain no sign, no letters (NaN, 1e99), and nothing that a line of COPY would escape.
    """
    numbers = list(chain.from_iterable(chain.from_iterable(sides)))
    # One search for all. Each ends with a comma; a number with a comma inside shows by the count.
    text = ",".join([*numbers, ""])
    return _are_numbers(text) is not None and text.count(",") == len(numbers)


def is_zero(quantity: str) -> bool:
    """Whether a quantity that is sound removes its level."""
    return quantity in _ZEROS


def price_units(text: str) -> int:
    """Return a sound price as an integer, in units of the eighth decimal.

    Raises:
        RejectedInputError: it is zero.
    """
    whole, _, fraction = text.partition(".")
    units = int(whole + fraction) * _POWERS[len(fraction)]
    if not units:
        raise RejectedInputError(f"a level of an order book has the price {text}; above 0 is right")
    return units


def snapshot_of(
    last_update_id: int, bids: Sequence[LevelText], asks: Sequence[LevelText], *, limit: int
) -> BookSnapshot:
    """Return an answer of the exchange, best first, as a snapshot.

    Args:
        limit: number of levels that were requested; a side with fewer is the whole side.
    """
    return BookSnapshot(
        last_update_id,
        bids,
        asks,
        bids[-1][0] if len(bids) >= limit else None,
        asks[-1][0] if len(asks) >= limit else None,
    )


class OrderBook:
    """The book of one symbol since a snapshot. Levels must be sound (``are_sound``).

    Args:
        snapshot: where the book begins.
        max_levels: levels of a side that are remembered.

    Attributes:
        last_update_id: of the newest update in the book.

    Raises:
        RejectedInputError: the snapshot's best bid is not below its best ask, or a price is zero.
    """

    def __init__(self, snapshot: BookSnapshot, *, max_levels: int = MAX_LEVELS) -> None:
        self.last_update_id = snapshot.last_update_id
        self._units: dict[str, int] = {}
        self._bids = _Side(self._units, snapshot.bids, snapshot.bid_reach, sign=-1)
        self._asks = _Side(self._units, snapshot.asks, snapshot.ask_reach, sign=1)
        self._max_levels = max_levels
        self._refuse_crossed()

    @property
    def best_bid(self) -> LevelText | None:
        """The highest bid; None without bids."""
        return self._bids.best

    @property
    def best_ask(self) -> LevelText | None:
        """The lowest ask; None without asks."""
        return self._asks.best

    @property
    def known_levels(self) -> tuple[int, int]:
        """Number of bids and of asks within the reach of the book."""
        return self._bids.known(), self._asks.known()

    @property
    def is_whole(self) -> tuple[bool, bool]:
        """Whether all bids, and all asks, are known."""
        return self._bids.reach is None, self._asks.reach is None

    def apply(
        self,
        previous_update_id: int,
        last_update_id: int,
        bids: Sequence[LevelText],
        asks: Sequence[LevelText],
    ) -> DiffOutcome:
        """Apply a diff if it follows the book.

        Args:
            previous_update_id: last id before the diff: ``pu`` of futures, ``U - 1`` of spot.

        Raises:
            RejectedInputError: a price is zero (the book has not changed); or the best bid is not
                below the best ask afterwards (the book is wrong and must not be used any more).
        """
        if last_update_id <= self.last_update_id:
            return DiffOutcome.OLD
        if previous_update_id > self.last_update_id:
            return DiffOutcome.BREAK
        if len(self._units) > MAX_CACHED_PRICES:
            self._units.clear()
        # Both before either changes: a price may be refused.
        bid_keys, ask_keys = self._bids.keys_of(bids), self._asks.keys_of(asks)
        self._bids.update(bid_keys, bids)
        self._asks.update(ask_keys, asks)
        self.last_update_id = last_update_id
        self._refuse_crossed()
        self._bids.prune(self._max_levels)
        self._asks.prune(self._max_levels)
        return DiffOutcome.APPLIED

    def top(self, levels: int) -> BookTop:
        """Return the best levels of each side."""
        bids, asks = self._bids.top(levels), self._asks.top(levels)
        return BookTop(
            self.last_update_id, bids, asks, self._bids.known(levels), self._asks.known(levels)
        )

    def snapshot(self, levels: int) -> BookSnapshot:
        """Return the best levels with the reach that remains known from them."""
        bids, asks = self._bids.top(levels), self._asks.top(levels)
        return BookSnapshot(
            self.last_update_id, bids, asks, self._bids.reach_of(bids), self._asks.reach_of(asks)
        )

    def _refuse_crossed(self) -> None:
        bid, ask = self.best_bid, self.best_ask
        if bid is not None and ask is not None and price_units(bid[0]) >= price_units(ask[0]):
            raise RejectedInputError(
                f"the order book at update {self.last_update_id} has the bid {bid[0]} "
                f"and the ask {ask[0]}; bids should be below asks"
            )


class _Side:
    """One side of a book. A key is a price, negative for bids: the smallest key is the best.

    Args:
        units: integers of prices by their text, shared by both sides.
        sign: -1 for bids, 1 for asks.

    Attributes:
        reach: key up to which no level is missing; None: the whole side is known.
    """

    def __init__(
        self, units: dict[str, int], levels: Sequence[LevelText], reach: str | None, *, sign: int
    ) -> None:
        self._units = units
        self._sign = sign
        self.reach = None if reach is None else sign * price_units(reach)
        self._levels = {
            key: level
            for key, level in zip(self.keys_of(levels), levels, strict=True)
            if level[1] not in _ZEROS
        }
        self._keys = sorted(self._levels)

    @property
    def best(self) -> LevelText | None:
        return self._levels[self._keys[0]] if self._keys else None

    def keys_of(self, levels: Sequence[LevelText]) -> list[int]:
        units, sign = self._units, self._sign
        keys = []
        for price, _ in levels:
            found = units.get(price)
            if found is None:
                found = units[price] = price_units(price)
            keys.append(sign * found)
        return keys

    def update(self, keys: Sequence[int], levels: Sequence[LevelText]) -> None:
        held = self._levels
        for key, level in zip(keys, levels, strict=True):
            if level[1] in _ZEROS:
                if held.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                if key not in held:
                    insort(self._keys, key)
                held[key] = level

    def prune(self, max_levels: int) -> None:
        """Drop the farthest levels if there are half more than allowed."""
        if len(self._keys) <= max_levels + max_levels // 2:
            return
        for key in self._keys[max_levels:]:
            del self._levels[key]
        del self._keys[max_levels:]
        last = self._keys[-1]
        self.reach = last if self.reach is None else min(self.reach, last)

    def top(self, levels: int) -> tuple[LevelText, ...]:
        return tuple(map(self._levels.__getitem__, self._keys[:levels]))

    def known(self, levels: int | None = None) -> int:
        """Return the number of levels within the reach, of the best ones or of all."""
        count = len(self._keys) if levels is None else min(levels, len(self._keys))
        if self.reach is None:
            return count
        return min(count, bisect_left(self._keys, self.reach + 1))

    def reach_of(self, levels: Sequence[LevelText]) -> str | None:
        """Return the reach that remains if only these best levels are kept, as a price."""
        key = self.reach
        if len(levels) < len(self._keys):
            last = self._keys[len(levels) - 1]
            key = last if key is None else min(key, last)
        return None if key is None else _text_of(self._sign * key)


def _text_of(units: int) -> str:
    whole, fraction = divmod(units, 10**DECIMALS)
    return f"{whole}.{fraction:0{DECIMALS}d}"
