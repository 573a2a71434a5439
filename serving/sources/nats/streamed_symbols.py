"""Which symbols are streamed, of all streamers together.

A streamer says so with its heartbeats. One that has fallen silent may be back in a moment, and the
minutes that its readers missed are then told: its symbols stay for as long as that is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.sources.nats.resumption import MAX_BACK_US

CACHE_TTL_S = MAX_BACK_US / 1e6
"""Symbols of a streamer that has fallen silent stay for so long."""


@dataclass(slots=True)
class _Streamer:
    symbols: set[str] = field(default_factory=set)
    silent_s: float | None = None
    """Since when it is silent."""


class StreamedByStreamer:
    """What each streamer streams: as it says, and what it was heard of since."""

    def __init__(self) -> None:
        self._streamers: dict[str, _Streamer] = {}
        self._all: frozenset[str] | None = frozenset()
        """None where it has to be made anew."""

    @property
    def symbols(self) -> frozenset[str]:
        """Of all streamers; the same object while nothing changes."""
        if self._all is None:
            self._all = frozenset().union(*(one.symbols for one in self._streamers.values()))
        return self._all

    def told(self, streamer: str, symbols: Iterable[str]) -> None:
        """A streamer has said what it streams."""
        one = self._streamers.setdefault(streamer, _Streamer())
        wanted = set(symbols)
        if one.symbols != wanted:
            one.symbols, self._all = wanted, None

    def heard_of(self, streamer: str, symbol: str) -> bool:
        """A streamer has told of a symbol: it streams it, or did until now and will say so.

        Returns:
            Whether that was not known of it.
        """
        one = self._streamers.setdefault(streamer, _Streamer())
        if symbol in one.symbols:
            return False
        one.symbols.add(symbol)
        self._all = None
        return True

    def back(self, streamer: str) -> None:
        """A streamer is heard."""
        if streamer in self._streamers:
            self._streamers[streamer].silent_s = None

    def silent(self, streamer: str, now_s: float) -> None:
        """A streamer is heard no longer."""
        if streamer in self._streamers:
            self._streamers[streamer].silent_s = now_s

    def expire(self, now_s: float) -> None:
        """Forget streamers that were not heard for long."""
        for name, one in list(self._streamers.items()):
            if one.silent_s is not None and now_s - one.silent_s > CACHE_TTL_S:
                del self._streamers[name]
                self._all = None
