"""What waits for the board of a server, from several streamers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import islice

from include.domain.timeframes import MINUTE_US
from streamer.hub.subscription import BATCH_UPDATES, Batch, CandleUpdate, Key, Ranges

MAX_WAITING = 50_000
"""Minutes that may wait: what is read from the table waits for room before that."""
ROOM = 10_000


class News:
    """Changes of minutes, of each the newest state; ``Changes`` of the board."""

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self.conflated = 0
        """States that newer ones replaced before they were taken."""
        self._max_waiting = max_waiting
        self._waiting: dict[Key, CandleUpdate] = {}
        self._missed: Ranges = {}
        self._streamed: frozenset[str] | None = None
        """Where that is to be told."""
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_over = False

    @property
    def waiting(self) -> int:
        """Minutes that changed and were not taken yet."""
        return len(self._waiting)

    def put(self, update: CandleUpdate) -> None:
        """A minute has changed; beyond what may wait, the one that waited longest is missed."""
        key = (update.candle.symbol, update.candle.open_time_us)
        before = self._waiting.get(key)
        if before is not None:
            self.conflated += 1
            if before.is_revision and not update.is_revision:
                update = replace(update, is_revision=True)
        elif len(self._waiting) >= self._max_waiting:
            first = next(iter(self._waiting))
            del self._waiting[first]
            self.miss(first[0], first[1], first[1] + MINUTE_US)
        self._waiting[key] = update
        if len(self._waiting) >= ROOM:
            self._has_room.clear()
        self._wake.set()

    def miss(self, symbol: str, start_us: int, end_us: int) -> None:
        """States of minutes in this range will not come."""
        known = self._missed.get(symbol, (start_us, end_us))
        self._missed[symbol] = (min(known[0], start_us), max(known[1], end_us))
        self._wake.set()

    def list(self, streamed: frozenset[str]) -> None:
        """These symbols are streamed from now on."""
        self._streamed = streamed
        self._wake.set()

    async def room(self) -> None:
        """Wait until what waits is little."""
        await self._has_room.wait()

    async def next(self) -> Batch | None:
        """Wait until something changed; None once it was left."""
        while not (self._waiting or self._missed or self._streamed is not None):
            if self._is_over:
                return None
            self._wake.clear()
            await self._wake.wait()
        taken = list(islice(self._waiting.items(), BATCH_UPDATES))
        for key, _ in taken:
            del self._waiting[key]
        if len(self._waiting) < ROOM:
            self._has_room.set()
        missed, self._missed = self._missed, {}
        streamed, self._streamed = self._streamed, None
        updates = [update for _, update in taken]
        return Batch(updates, missed, streamed, is_cut=bool(self._waiting))

    def leave(self) -> None:
        """Want no more."""
        self._is_over = True
        self._has_room.set()
        self._wake.set()
