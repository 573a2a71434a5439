"""Sends recorded frames: at a multiple of their pace, or as fast as clients read."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
import structlog

from simulator.clock import SimulatedClock
from simulator.replay.blocks import Block, make_blocks
from simulator.replay.recorded_frames import RecordedFrame, event_time_us, merge_frames
from simulator.replay.recording import Recording
from simulator.streams.hub import FrameHub, FrameListener, encode_text_frame

_BATCH_FRAMES = 256  # frames sent before other tasks get their turn
_SKIPPED_AT_ONCE = 50_000  # frames skipped in one thread call, so that a replay can be stopped
_MAX_SLEEP_S = 0.25
_SHOWN_STREAMS = 20


class ReplayClock(SimulatedClock):
    """A clock that shows the highest event time sent."""

    def __init__(self, start_us: int, *, speed: float) -> None:
        super().__init__(start_us=start_us, speed=speed)
        self._event_us = start_us

    def now_us(self) -> int:
        return self._event_us

    def advance(self, event_us: int) -> None:
        """Move to an event's time; never back."""
        self._event_us = max(self._event_us, event_us)


class Replay:
    """Sends a recording's frames to their listeners.

    Args:
        speed: multiple of the recorded pace; None: as fast as clients read.
        start: `subscription`: once a client has subscribed to a recorded stream and no subscription
            was added for `settle_s`; `immediately`: at start-up.

    Attributes:
        frames_sent: frames that had a listener.
        frames_played: all frames so far.
        is_finished: the last frame was played; connections stay open.
    """

    def __init__(
        self,
        recording: Recording,
        clock: ReplayClock,
        *,
        speed: float | None,
        start: Literal["subscription", "immediately"],
        settle_s: float,
    ) -> None:
        self.recording = recording
        self.hub = FrameHub(on_first=self._note, on_last=lambda _stream: None)
        self.frames_sent = 0
        self.frames_played = 0
        self.is_finished = False
        self._numbers = {name: number for number, name in enumerate(recording.streams)}
        self._clock = clock
        self._speed = speed
        self._start = start
        self._settle_s = settle_s
        self._subscribed = asyncio.Event()
        self._skips_settling = False
        self._log = structlog.get_logger("simulator").bind(market=recording.market)

    def _note(self, stream: str) -> None:
        if stream not in self._numbers:
            self._log.warning(
                "replay_stream_missing",
                stream=stream,
                streams=self.recording.streams[:_SHOWN_STREAMS],
                count=len(self.recording.streams),
            )
            return
        if self.is_finished:
            self._log.warning("replay_already_finished", stream=stream)
        self._subscribed.set()

    def start_now(self) -> None:
        """Start without waiting for a subscription or for further ones."""
        self._skips_settling = True
        self._subscribed.set()

    async def run(self) -> None:
        """Play the recording once, then idle until cancelled."""
        if self._start == "subscription":
            await self._subscribed.wait()
            await self._settle()
        self._log.info(
            "replay_started",
            frames=self.recording.frame_count,
            prepared=self.recording.prepared_count,
        )
        if self._speed is None:
            await self._play_fast()
        else:
            await self._play_paced(self._speed)
        self.is_finished = True
        self._log.info("replay_finished", played=self.frames_played, sent=self.frames_sent)
        await asyncio.Event().wait()

    async def _settle(self) -> None:
        """Return once no stream was newly subscribed for `settle_s`."""
        while not self._skips_settling:
            self._subscribed.clear()
            try:
                async with asyncio.timeout(self._settle_s):
                    await self._subscribed.wait()
            except TimeoutError:
                return

    async def _play_fast(self) -> None:
        for block in self.recording.prepared:
            await self._send_block(block)
        if self.frames_played == self.recording.frame_count:
            return
        frames = merge_frames(self.recording.paths)
        for begin in range(0, self.frames_played, _SKIPPED_AT_ONCE):
            count = min(_SKIPPED_AT_ONCE, self.frames_played - begin)
            await asyncio.to_thread(_skip, frames, count)
        blocks = make_blocks(frames, self._numbers)
        while (block_or_end := await asyncio.to_thread(next, blocks, None)) is not None:
            await self._send_block(block_or_end)

    async def _send_block(self, block: Block) -> None:
        """Send a block to the listeners of its streams, and wait until all have read it."""
        self._clock.advance(block.last_event_us)
        forms: dict[tuple[tuple[int, ...], bool], list[bytes]] = {}
        is_heard = np.zeros(len(self._numbers), dtype=np.bool_)
        for listener, numbers in self._listeners().items():
            form = (tuple(numbers), listener.session.combined)
            if form not in forms:
                is_wanted = np.zeros(len(self._numbers), dtype=np.bool_)
                is_wanted[numbers] = True
                is_heard |= is_wanted
                forms[form] = [block.encoded(block.chosen(is_wanted), combined=form[1])]
            self.hub.queue(listener, forms[form])
        self.frames_played += len(block)
        self.frames_sent += int(np.count_nonzero(block.chosen(is_heard)))
        self.hub.flush()
        await self._drained()
        await asyncio.sleep(0)

    def _listeners(self) -> dict[FrameListener, list[int]]:
        """Return the listeners of recorded streams, with the streams' numbers."""
        found: dict[FrameListener, list[int]] = {}
        for stream, number in self._numbers.items():
            for listener in self.hub.listeners_of(stream):
                found.setdefault(listener, []).append(number)
        return found

    async def _play_paced(self, speed: float) -> None:
        began = time.monotonic()
        first_ns: int | None = None
        for frame in merge_frames(self.recording.paths):
            first_ns = frame.received_ns if first_ns is None else first_ns
            due = began + (frame.received_ns - first_ns) / 1e9 / speed
            while (left_s := due - time.monotonic()) > 0:
                self.hub.flush()
                await asyncio.sleep(min(left_s, _MAX_SLEEP_S))
            self._send(frame)
            if self.frames_played % _BATCH_FRAMES == 0:
                self.hub.flush()
                await asyncio.sleep(0)
        self.hub.flush()

    async def _drained(self) -> None:
        """Wait until all listeners have read most of what was written (backpressure)."""
        for listener in self.hub.listeners():
            await listener.drained()

    def _send(self, frame: RecordedFrame) -> None:
        event_us = event_time_us(frame)
        self._clock.advance(event_us)
        self.frames_played += 1
        raw: list[bytes] | None = None
        combined: list[bytes] | None = None
        is_heard = False
        for listener in self.hub.listeners_of(frame.stream):
            is_heard = True
            if listener.session.combined:
                combined = combined or [encode_text_frame(frame.frame)]
                self.hub.queue(listener, combined)
            else:
                raw = raw or [encode_text_frame(frame.payload)]
                self.hub.queue(listener, raw)
        self.frames_sent += is_heard


def _skip(frames: Iterator[RecordedFrame], count: int) -> None:
    for _ in itertools.islice(frames, count):
        pass
