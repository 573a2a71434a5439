"""Frames from feeds to listeners, through a filter for faults."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import pytest

from simulator.clock import SECOND_US, SimulatedClock, to_us
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed
from simulator.streams.feeds.trades import DueFrame
from simulator.streams.hub import Render
from simulator.streams.protocol import StreamSession, StreamTarget
from simulator.streams.scheduler import FrameFilter, FrameScheduler, OpenFeed, PassedFrame

NOON = to_us(datetime(2026, 2, 3, 12, tzinfo=UTC))
STREAM = "btcusdt@trade"


class _Listener:
    def __init__(self) -> None:
        self.target = StreamTarget(False, (), None, 1_000)
        self.session = StreamSession(False)
        self.frames: list[bytes] = []

    def queue(self, frames: list[bytes]) -> None:
        self.frames += frames

    def flush(self) -> None:
        return

    async def drained(self) -> None:
        return

    def trade_ids(self) -> list[int]:
        return [json.loads(frame[frame.index(b"{") :])["t"] for frame in self.frames]


class _Faults:
    """Filters each frame with a function."""

    is_idle = False

    def __init__(self, change: Callable[[int, Render, int], Iterable[PassedFrame]]) -> None:
        self._change = change
        self.seen = 0

    def pass_on(
        self, market: MarketName, stream: str, due_us: int, render: Render, now_us: int
    ) -> Iterable[PassedFrame]:
        assert (market, stream) == ("spot", STREAM)
        assert due_us <= now_us
        self.seen += 1
        return self._change(due_us, render, now_us)


def _scheduler(
    faults: FrameFilter | None = None,
    open_feed: OpenFeed = open_feed,
    max_late_s: float | None = None,
) -> FrameScheduler:
    listed = select_instruments("spot", ["BTCUSDT"], seed=1)
    market = SimulatedMarket(listed, seed=1, start_us=NOON - 3_600 * SECOND_US)
    clock = SimulatedClock(start_us=NOON, speed=100)
    return FrameScheduler(
        "spot", market, clock, seed=1, faults=faults, open_feed=open_feed, max_late_s=max_late_s
    )


async def _run(scheduler: FrameScheduler, until: Callable[[_Listener], bool]) -> list[int]:
    """Return the trade ids that a listener gets."""
    listener = _Listener()
    scheduler.hub.subscribe(listener, [STREAM])
    running = asyncio.create_task(scheduler.run())
    try:
        async with asyncio.timeout(30):
            while not until(listener):
                await asyncio.sleep(0.005)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return listener.trade_ids()


def _has(count: int) -> Callable[[_Listener], bool]:
    return lambda listener: len(listener.frames) >= count


async def test_frames_are_in_order_without_faults() -> None:
    ids = await _run(_scheduler(), _has(40))
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_filter_can_pass_drop_and_duplicate_a_frame() -> None:
    numbers = iter(range(10_000))
    due: list[int] = []
    expected: list[int] = []

    def change(due_us: int, render: Render, now_us: int) -> Iterable[PassedFrame]:
        copies = next(numbers) % 3
        trades = [json.loads(text)["t"] for text in render(1)]
        due.extend(trades)
        expected.extend(trades * copies)
        return [(due_us, STREAM, render)] * copies

    ids = await _run(_scheduler(_Faults(change)), _has(40))
    assert due == list(range(due[0], due[0] + len(due)))
    assert ids == expected[: len(ids)]


async def test_filter_can_delay_a_frame_behind_later_ones() -> None:
    numbers = iter(range(10_000))

    def change(due_us: int, render: Render, now_us: int) -> Iterable[PassedFrame]:
        late = next(numbers) % 4 == 0
        yield (now_us + 3 * SECOND_US if late else due_us), STREAM, render

    ids = await _run(_scheduler(_Faults(change)), _has(150))
    assert ids != sorted(ids)
    assert len(set(ids)) == len(ids)  # delayed frames are not filtered again
    passed = sorted(ids)[: len(ids) // 3]
    assert passed == list(range(passed[0], passed[0] + len(passed)))


async def test_filter_set_later_applies_to_open_streams() -> None:
    scheduler = _scheduler()
    faults = _Faults(lambda _due, _render, _now: ())

    def until(listener: _Listener) -> bool:
        if listener.frames and scheduler.faults is None:
            scheduler.faults = faults
        return faults.seen > 20

    before = await _run(scheduler, until)
    assert 0 < scheduler.frames_sent <= len(before)
    assert faults.seen > 20


async def test_many_reschedules_send_each_frame_once() -> None:
    opened: list[int] = []

    def count(
        market: SimulatedMarket, name: str, from_us: int, *, seed: int
    ) -> Iterator[DueFrame] | None:
        opened.append(from_us)
        return open_feed(market, name, from_us, seed=seed)

    scheduler = _scheduler(open_feed=count)
    begin_us = scheduler._clock.now_us()

    def until(listener: _Listener) -> bool:
        if len(opened) == 1:
            for number in range(20_000, 0, -1):  # nested feeds would overflow the stack
                scheduler.reschedule(begin_us + SECOND_US * number)
            for number in range(1, 20_000):
                scheduler.reschedule(begin_us + SECOND_US * number)
        return len(listener.frames) >= 200

    ids = await _run(scheduler, until)
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert 2 <= len(opened) < 10
    assert opened[1] >= begin_us + SECOND_US


@pytest.mark.parametrize("wait_us", [0, 5 * SECOND_US])
async def test_injected_frame_is_sent_at_its_time(wait_us: int) -> None:
    scheduler = _scheduler(_Faults(lambda _due, _render, _now: ()))
    begin = scheduler._clock.now_us()
    scheduler.inject(STREAM, begin + wait_us, lambda unit_us: [f'{{"t":{unit_us}}}'])
    assert await _run(scheduler, _has(1)) == [1_000]
    assert scheduler._clock.now_us() >= begin + wait_us


def test_clock_waits_while_frames_are_late() -> None:
    scheduler = _scheduler(max_late_s=0.1)
    clock = scheduler._clock
    scheduler.hub.subscribe(_Listener(), [STREAM])
    while clock.now_us() < NOON + 60 * SECOND_US:  # the machine is busy
        time.sleep(0.01)
    scheduler._send_due()
    held_us = clock.now_us()
    time.sleep(0.02)
    assert clock.now_us() == held_us
    while scheduler._send_due():
        pass
    scheduler._send_due()
    time.sleep(0.02)
    assert clock.now_us() > held_us
