"""Detect streams of raw capture that the exchange acknowledged but does not deliver.

Other streams on the same connection deliver, and a quiet market looks the same, so the symbol's
candle stream serves as evidence. Every trade should appear on the watched stream too, or change the
best price. If the candle stream brought trades repeatedly and the watched stream brought nothing,
it is dead. The watch resubscribes the stream. If that does not help, it replaces the connection.
Trades say nothing about liquidations, whose streams are not watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from include.domain.instruments import symbol_of
from include.domain.timeframes import from_us
from streamer.capture.intake.feed import CaptureFeed

log = structlog.get_logger(__name__)

POLL_INTERVAL_S = 5.0
DEAD_AFTER_S = 30.0
"""Silence after which a stream is dead, counted from the first trade that it should have shown."""
MIN_POLLS = 3
"""Polls with new trades before a stream counts as dead: a single trade may leave the book ticker
unchanged."""
LONGEST_PAUSE_S = 960.0
ROTATE_EVERY_S = 300.0
"""Minimum interval between replacements of one connection because of dead streams."""


@dataclass(slots=True)
class _Stream:
    """State of one symbol's stream of one kind.

    Attributes:
        complete_until_us: everything before this time arrived or was recorded as lost; wall clock.
        traded_us: time of the candle stream's last trade at the last poll.
        polls: polls with new trades since this stream's last message.
        since_s: time of the first of these polls; monotonic.
        acted: number of actions; 0 while the stream is not known to be dead.
    """

    complete_until_us: int
    traded_us: int
    polls: int = 0
    since_s: float = 0.0
    acted: int = 0


class StreamWatch:
    """Polls the streams of capture's own connections.

    Args:
        feeds: the current feeds.
        traded_us: returns the time (µs) of the last trade on a symbol's candle stream; 0 if there
            is none.
        on_lost: receives feed, kind of stream, exchange's name and the times (µs, wall clock)
            between which the stream delivered nothing.
        now_us: wall clock.
    """

    def __init__(
        self,
        feeds: Sequence[CaptureFeed],
        traded_us: Callable[[str], int],
        on_lost: Callable[[CaptureFeed, str, str, int, int], None],
        *,
        now_us: Callable[[], int],
    ) -> None:
        self.dead = 0
        """Number of streams found dead so far."""
        self._feeds = feeds
        self._traded_us = traded_us
        self._on_lost = on_lost
        self._now_us = now_us
        self._streams: dict[tuple[CaptureFeed, str, str], _Stream] = {}
        self._rotated_s: dict[CaptureFeed, float] = {}
        self._checked_us = now_us()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            self.poll(asyncio.get_running_loop().time())

    def poll(self, now_s: float) -> None:
        """Check all streams once.

        Args:
            now_s: monotonic clock.
        """
        before, self._streams = self._streams, {}
        for feed in self._feeds:
            is_delivering = feed.connection.is_open and feed.connection.session.is_subscribed
            dead: list[tuple[str, str]] = []
            for kind in feed.watched_kinds:
                spoken = feed.seen[kind]
                for name in feed.names:
                    stream = before.get((feed, kind, name))
                    traded_us = self._traded_us(symbol_of(feed.market, name))
                    if stream is None:
                        stream = _Stream(self._checked_us, traded_us)
                    self._streams[feed, kind, name] = stream
                    if name in spoken:  # since the last poll; the exact time is unknown
                        self._streams[feed, kind, name] = _Stream(self._checked_us, traded_us)
                    elif not is_delivering:  # the connection reports disconnects itself
                        stream.polls, stream.traded_us = 0, traded_us
                    elif self._is_dead(stream, traded_us, now_s):
                        self._record_loss(feed, kind, name, stream)
                        dead.append((kind, name))
                spoken.clear()
            if dead:
                self._revive(feed, dead, now_s)
        self._checked_us = self._now_us()
        self._rotated_s = {feed: at for feed, at in self._rotated_s.items() if feed in self._feeds}

    def revived(self, feed: CaptureFeed, kind: str, name: str) -> None:
        """Record the loss of a dead stream that delivers again, before its message is stored."""
        feed.dead[kind].discard(name)
        stream = self._streams.get((feed, kind, name))
        if stream is not None:
            self._on_lost(feed, kind, name, stream.complete_until_us, self._now_us())
            log.info("capture_stream_revived", stream=f"{name.lower()}@{kind}")

    # --- inside

    def _is_dead(self, stream: _Stream, traded_us: int, now_s: float) -> bool:
        if traded_us > stream.traded_us:
            stream.traded_us = traded_us
            stream.polls += 1
            if stream.polls == 1:
                stream.since_s = now_s
        pause_s = min(DEAD_AFTER_S * 2**stream.acted, LONGEST_PAUSE_S)
        return stream.polls >= MIN_POLLS and now_s - stream.since_s >= pause_s

    def _record_loss(self, feed: CaptureFeed, kind: str, name: str, stream: _Stream) -> None:
        """Record the loss so far immediately: the process may end before the stream delivers."""
        since_us, stream.complete_until_us = stream.complete_until_us, self._now_us()
        self._on_lost(feed, kind, name, since_us, stream.complete_until_us)
        feed.dead[kind].add(name)
        if not stream.acted:
            self.dead += 1
            log.warning(
                "capture_stream_dead",
                connection=feed.connection.name,
                stream=f"{name.lower()}@{kind}",
                since=from_us(since_us).isoformat(),
            )

    def _revive(self, feed: CaptureFeed, dead: Sequence[tuple[str, str]], now_s: float) -> None:
        again = []
        for kind, name in dead:
            stream = self._streams[feed, kind, name]
            if stream.acted and self._may_rotate(feed, now_s):
                feed.connection.rotate(f"{name.lower()}@{kind} stays dead")
            again.append(f"{name.lower()}@{kind}")
            stream.acted += 1
            stream.polls = 0
        if not feed.connection.is_rotating:
            feed.connection.session.resubscribe(again)

    def _may_rotate(self, feed: CaptureFeed, now_s: float) -> bool:
        if now_s - self._rotated_s.get(feed, -ROTATE_EVERY_S) < ROTATE_EVERY_S:
            return False
        self._rotated_s[feed] = now_s
        return True
