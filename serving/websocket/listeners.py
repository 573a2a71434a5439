"""Who listens to bars over ``/api/v1/ws``, and in which form."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serving.bars.subscription import BarUpdate
from serving.http.pushing import Frames
from serving.websocket import fragments

Key = tuple[str, int]
"""Symbol, and open time in µs; 0 where only the newest is told."""


@dataclass(frozen=True, slots=True)
class Form:
    """How changes are told.

    Attributes:
        encode: makes a fragment of a change.
        join: makes frames of fragments.
        is_newest_only: of a symbol's bars only the newest is told, and nothing that was missed.
        has_ids: what a reader knows a symbol by stands before each of its fragments.
    """

    encode: Callable[[BarUpdate], bytes]
    join: Callable[[Sequence[bytes]], bytes]
    is_newest_only: bool = False
    has_ids: bool = False


CANDLES = Form(fragments.candle_of, fragments.candles)
PRICES = Form(fragments.price_of, fragments.prices, is_newest_only=True)
BINARY_PRICES = Form(
    fragments.values_of, fragments.binary_prices, is_newest_only=True, has_ids=True
)


@dataclass(slots=True, eq=False)
class State:
    """A bar as it stands, shared by all for whom it waits: it is the newest for each of them.

    Attributes:
        fragment: it, encoded.
        is_revision: it was told as one.
        told: who knows it as it stands.
    """

    fragment: bytes = b""
    is_revision: bool = False
    told: set[Listener] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Listener:
    """One reader of some symbols.

    Attributes:
        to: takes what it is told.
        on_gone: called where it has taken nothing for ``patience_s``.
        on_end: called where nothing more will be told.
        ids: what it knows symbols by.
        symbols: those it listens to.
        waiting: what it is told next.
        missed: first and last open time, by symbol, of what it is not told.
    """

    to: Frames
    on_gone: Callable[[], None]
    on_end: Callable[[], None]
    patience_s: float
    ids: dict[str, bytes] = field(default_factory=dict)
    symbols: set[str] = field(default_factory=set)
    waiting: dict[Key, State] = field(default_factory=dict)
    missed: dict[str, tuple[int, int]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    conflated: int = 0
    """States that newer ones replaced before it took them, and of which it was not told yet."""
    conflated_told_s: float = -math.inf

    def miss(self, symbol: str, start_us: int, end_us: int) -> None:
        """States of bars that open in this range are not told."""
        known = self.missed.get(symbol, (start_us, end_us))
        self.missed[symbol] = (min(known[0], start_us), max(known[1], end_us))
