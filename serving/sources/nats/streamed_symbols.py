"""The symbols that all streamers together stream, by their heartbeats.

A silent streamer may return within moments, and its missed minutes are then delivered, so its
symbols are kept for that long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.sources.nats.resumption import MAX_BACK_US

CACHE_TTL_S = MAX_BACK_US / 1e6
"""Time for which the symbols of a silent streamer stay listed."""


@dataclass(slots=True)
class _Streamer:
    symbols: set[str] = field(default_factory=set)
    silent_s: float | None = None
    """When it fell silent."""


class StreamedByStreamer:
    """Symbols by streamer: from its heartbeats, and from its messages since."""

    def __init__(self) -> None:
        self._streamers: dict[str, _Streamer] = {}
        self._all: frozenset[str] | None = frozenset()
        """Cached union; None if it must be computed again."""

    @property
    def symbols(self) -> frozenset[str]:
        """Symbols of all streamers; the same object until something changes."""
        if self._all is None:
            self._all = frozenset().union(*(one.symbols for one in self._streamers.values()))
        return self._all

    def on_heartbeat(self, streamer: str, symbols: Iterable[str]) -> None:
        """Set the symbols of a streamer, from its heartbeat."""
        one = self._streamers.setdefault(streamer, _Streamer())
        wanted = set(symbols)
        if one.symbols != wanted:
            one.symbols, self._all = wanted, None

    def on_symbol(self, streamer: str, symbol: str) -> bool:
        """Add a symbol that a streamer publishes: its next heartbeat will contain it, or drop it.

        Returns:
            Whether it is new.
        """
        one = self._streamers.setdefault(streamer, _Streamer())
        if symbol in one.symbols:
            return False
        one.symbols.add(symbol)
        self._all = None
        return True

    def on_return(self, streamer: str) -> None:
        """Note that a streamer is publishing."""
        if streamer in self._streamers:
            self._streamers[streamer].silent_s = None

    def on_silence(self, streamer: str, now_s: float) -> None:
        """Note that a streamer has fallen silent."""
        if streamer in self._streamers:
            self._streamers[streamer].silent_s = now_s

    def expire(self, now_s: float) -> None:
        """Forget streamers that have been silent for long."""
        for name, one in list(self._streamers.items()):
            if one.silent_s is not None and now_s - one.silent_s > CACHE_TTL_S:
                del self._streamers[name]
                self._all = None
