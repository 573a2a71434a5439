"""Sends the frames of one market when they are due, through a filter for faults."""

import asyncio
import functools
import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import structlog

from simulator.clock import SECOND_US, SimulatedClock
from simulator.market.instruments import MarketName
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import FrameHub, Render

_BATCH_FRAMES = 512  # maximum frames per batch
_MAX_BATCH_NS = 5_000_000  # and maximum time, so that other tasks get their turn
_FRAMES_PER_CLOCK_READ = 16  # frames between two readings of the monotonic clock
_MAX_SLEEP_S = 0.25
_INJECTED = -1

PassedFrame = tuple[int, str, Render]


class FrameFilter(Protocol):
    """Faults of a frame between the market and its listeners."""

    is_idle: bool  # no frame is changed

    def pass_on(
        self, market: MarketName, stream: str, due_us: int, render: Render, now_us: int
    ) -> Iterable[PassedFrame]:
        """Return what becomes of a due frame: nothing, the frame itself, or other frames.

        Each result is (due time, stream, render). Results due with the frame are sent immediately,
        in the given order. Later ones are sent at their time among the other frames, even if the
        scheduler is behind. Results are not filtered again.
        """


class OpenFeed(Protocol):
    """Opens the feed of a stream, see `catalogue.open_feed`."""

    def __call__(
        self, market: SimulatedMarket, name: str, from_us: int, *, seed: int
    ) -> Iterator[DueFrame] | None: ...


class _ScheduledFeed:
    """Frames of one stream, generated again from the time at which the market changes.

    Args:
        number: distinguishes the feed from an earlier one of the same stream.
        open_from: returns the frames due from a time on, given the market as it is then.
    """

    __slots__ = ("_frames", "_open_from", "_until_us", "number")

    def __init__(
        self,
        number: int,
        frames: Iterator[DueFrame],
        open_from: Callable[[int], Iterator[DueFrame] | None],
    ) -> None:
        self.number = number
        self._frames = frames
        self._open_from = open_from
        self._until_us: int | None = None

    def change(self, from_us: int) -> None:
        """Regenerate frames from a time on; of several changes the earliest counts."""
        until_us = self._until_us
        self._until_us = from_us if until_us is None else min(from_us, until_us)

    def following(self) -> DueFrame | None:
        """Return the next frame; None if there are no more."""
        frame = next(self._frames, None)
        until_us = self._until_us
        if until_us is None or (frame is not None and frame[0] < until_us):
            return frame
        self._until_us = None
        self._frames = self._open_from(until_us) or iter(())
        return next(self._frames, None)


class FrameScheduler:
    """Sends the frames of all subscribed streams of one market when they are due.

    Args:
        max_late_s: the clock waits while frames are later than this (real seconds), so that streams
            and REST tell of the same time; None: it never waits.

    Attributes:
        faults: filters every frame; None costs nothing.
    """

    def __init__(
        self,
        name: MarketName,
        market: SimulatedMarket,
        clock: SimulatedClock,
        *,
        seed: int,
        faults: FrameFilter | None = None,
        open_feed: OpenFeed = open_feed,
        max_late_s: float | None = None,
    ) -> None:
        self._max_late_us = math.inf if max_late_s is None else max_late_s * clock.speed * SECOND_US
        self.hub = FrameHub(on_first=self._open, on_last=self._close)
        self.faults = faults
        self._name = name
        self._open_feed = open_feed
        self._market = market
        self._clock = clock
        self._seed = seed
        # Due time, number, stream, render, feed. Numbers differ, so renders are never compared.
        self._heap: list[tuple[int, int, str, Render, int]] = []
        self._feeds: dict[str, _ScheduledFeed] = {}
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._log = structlog.get_logger("simulator").bind(market=name)
        self.frames_sent = 0

    def inject(self, stream: str, due_us: int, render: Render) -> None:
        """Schedule a frame of a stream; it is not filtered."""
        entry = (due_us, next(self._numbers), stream, render, _INJECTED)
        heapq.heappush(self._heap, entry)
        self._changed.set()

    def reschedule(self, from_us: int) -> None:
        """Regenerate all frames due from `from_us` on, because the market has changed from then on.

        Earlier frames are the same in both markets. Streams without a feed, for example of an
        unknown symbol, are tried again.
        """
        self._heap = [entry for entry in self._heap if entry[4] == _INJECTED or entry[0] < from_us]
        heapq.heapify(self._heap)
        waiting = {(entry[2], entry[4]) for entry in self._heap}
        for stream in self.hub.streams():
            feed = self._feeds.get(stream)
            if feed is None:
                self._open(stream, from_us)
                continue
            feed.change(from_us)
            if (stream, feed.number) not in waiting:
                self._advance(stream, feed)
        self._changed.set()

    def _open(self, stream: str, from_us: int | None = None) -> None:
        begin_us = self._clock.now_us() if from_us is None else from_us
        frames = self._frames(stream, begin_us)
        if frames is None:
            self._log.debug("unknown_stream_acknowledged", stream=stream)
            return
        open_from = functools.partial(self._frames, stream)
        feed = self._feeds[stream] = _ScheduledFeed(next(self._numbers), frames, open_from)
        self._advance(stream, feed)
        self._changed.set()

    def _frames(self, stream: str, from_us: int) -> Iterator[DueFrame] | None:
        return self._open_feed(self._market, stream, from_us, seed=self._seed)

    def _close(self, stream: str) -> None:
        self._feeds.pop(stream, None)

    def _advance(self, stream: str, feed: _ScheduledFeed) -> None:
        following = feed.following()
        if following is not None:
            due_us, render = following
            heapq.heappush(self._heap, (due_us, feed.number, stream, render, feed.number))

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            busy = self._send_due()
            self.hub.flush()
            await self._pause(busy)

    async def _pause(self, busy: bool) -> None:
        if busy:
            await asyncio.sleep(0)
            return
        left_s = _MAX_SLEEP_S
        if self._heap:
            left_s = min(left_s, self._clock.seconds_until(self._heap[0][0]))
        self._changed.clear()
        try:
            async with asyncio.timeout(max(left_s, 0.0005)):
                await self._changed.wait()
        except TimeoutError:
            return

    def _send_due(self) -> bool:
        """Send due frames, at most one batch; return whether more may be due."""
        now_us = self._clock.now_us()
        late_us = now_us - self._heap[0][0] if self._heap else 0
        self.hub.max_behind_us = max(self.hub.max_behind_us, late_us)
        if late_us > self._max_late_us:
            self._clock.hold(self)
        elif late_us < self._max_late_us / 2:
            self._clock.release(self)
        end_ns = time.monotonic_ns() + _MAX_BATCH_NS
        for number_sent in range(_BATCH_FRAMES):
            if number_sent % _FRAMES_PER_CLOCK_READ == 0 and time.monotonic_ns() > end_ns:
                return True
            if not self._heap or self._heap[0][0] > now_us:
                return False
            due_us, _, stream, render, number = heapq.heappop(self._heap)
            self.hub.sent_until_us = due_us
            if number == _INJECTED:
                self.frames_sent += self.hub.deliver(stream, render)
                continue
            feed = self._feeds.get(stream)
            if feed is None or feed.number != number:
                continue  # closed, or closed and opened again
            if self.faults is None or self.faults.is_idle:
                self.frames_sent += self.hub.deliver(stream, render)
            else:
                self._pass_on(self.faults, stream, due_us, render, now_us)
            self._advance(stream, feed)
        return True

    def _pass_on(
        self, faults: FrameFilter, stream: str, due_us: int, render: Render, now_us: int
    ) -> None:
        for later_us, target, passed in faults.pass_on(self._name, stream, due_us, render, now_us):
            if later_us > due_us:
                self.inject(target, later_us, passed)
            else:
                self.frames_sent += self.hub.deliver(target, passed)
