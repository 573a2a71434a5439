"""Serves recorded frames: their pace times N, or as fast as the reader takes; REST from them."""

import asyncio
import time
from typing import Literal

import numpy as np
import structlog

from simulator.clock import MINUTE_US, Clock
from simulator.market.instruments import Instrument, MarketName
from simulator.market.intervals import Interval
from simulator.market.klines import fold_tape, roll_up
from simulator.market.noise import IntArray
from simulator.replay.recording import RecordedFrame, Recording, event_time_us, merge_frames
from simulator.rest.venue import Row, UnavailableError
from simulator.streams.hub import Hub, encode_text_frame
from simulator.wire.frames import agg_trade_rows, kline_row, trade_rows

_BATCH_FRAMES = 256
_LONGEST_SLEEP_S = 0.25


class ReplayClock(Clock):
    """Stands at the greatest event time that has been sent."""

    def __init__(self, start_us: int, *, speed: float) -> None:
        super().__init__(start_us=start_us, speed=speed)
        self._event_us = start_us

    def now_us(self) -> int:
        return self._event_us

    def advance(self, event_us: int) -> None:
        """Moves to an event's time; never back."""
        self._event_us = max(self._event_us, event_us)


class Replay:
    """Sends a recording's frames to those who listen.

    Args:
        speed: multiple of the recorded pace; None: as fast as the reader takes.
        start: `subscription`: once somebody has subscribed and for `settle_s` nobody has
            subscribed to anything more; `immediately`: at once.

    Attributes:
        frames_sent: frames that had a listener. frames_played: all.
        is_finished: whether the last frame was played; connections stay open.
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
        self.hub = Hub(on_first=self._note, on_last=lambda _stream: None)
        self.frames_sent = 0
        self.frames_played = 0
        self.is_finished = False
        self._clock = clock
        self._speed = speed
        self._start = start
        self._settle_s = settle_s
        self._subscribed = asyncio.Event()
        self._log = structlog.get_logger("simulator").bind(market=recording.market)

    def _note(self, _stream: str) -> None:
        self._subscribed.set()

    async def run(self) -> None:
        """Plays the recording once, then idles until it is cancelled."""
        if self._start == "subscription":
            await self._subscribed.wait()
            await self._settle()
        self._log.info("replay_started", frames=self.recording.frame_count)
        if self._speed is None:
            await self._play_fast()
        else:
            await self._play_paced(self._speed)
        self.is_finished = True
        self._log.info("replay_finished", played=self.frames_played, sent=self.frames_sent)
        await asyncio.Event().wait()

    async def _settle(self) -> None:
        """Returns once no stream was newly subscribed for `settle_s`."""
        while True:
            self._subscribed.clear()
            try:
                await asyncio.wait_for(self._subscribed.wait(), timeout=self._settle_s)
            except TimeoutError:
                return

    async def _play_fast(self) -> None:
        for frame in merge_frames(self.recording.paths):
            self._send(frame)
            if self.frames_played % _BATCH_FRAMES == 0:
                self.hub.flush()
                await self._drained()
                await asyncio.sleep(0)
        self.hub.flush()
        await self._drained()

    async def _play_paced(self, speed: float) -> None:
        began = time.monotonic()
        first_ns: int | None = None
        for frame in merge_frames(self.recording.paths):
            first_ns = frame.received_ns if first_ns is None else first_ns
            due = began + (frame.received_ns - first_ns) / 1e9 / speed
            while (left_s := due - time.monotonic()) > 0:
                self.hub.flush()
                await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))
            self._send(frame)
            if self.frames_played % _BATCH_FRAMES == 0:
                self.hub.flush()
                await asyncio.sleep(0)
        self.hub.flush()

    async def _drained(self) -> None:
        """Backpressure: waits for all listeners to have read most of what was written."""
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


class RecordedVenue:
    """REST over the trades of a recording, as far as they have been played.

    Klines exist for minutes that were recorded from their first to their last moment, and for
    longer bars all of whose minutes were. A recording without aggTrade frames serves each trade
    as an aggregate of its own, with the trade's id.
    """

    def __init__(self, recording: Recording, clock: Clock) -> None:
        self.name: MarketName = recording.market
        self._recording = recording
        self._clock = clock

    def now_us(self) -> int:
        return self._clock.now_us()

    def listed(self) -> tuple[Instrument, ...]:
        return tuple(trades.instrument for trades in self._recording.trades.values())

    def listed_since_us(self, symbol: str) -> int:
        return int(self._recording.trades[symbol].tape.time_us[0])

    def klines(
        self,
        symbol: str,
        interval: Interval,
        start_us: int | None,
        end_us: int | None,
        limit: int | None,
        *,
        unit_us: int,
        is_oracle: bool = False,
    ) -> list[list[int | str]]:
        if interval.name == "1s":
            raise UnavailableError("a replay serves klines of whole minutes, not 1s")
        trades = self._recording.trades[symbol]
        until_us = self._recording.last_event_us if is_oracle else self.now_us()
        first, stop = self._recording.complete_minutes(until_us)
        if stop <= first:
            return []
        begin = int(np.searchsorted(trades.tape.time_us, first * MINUTE_US))
        bars = fold_tape(
            trades.tape.between(begin, len(trades.tape)),
            first_open_us=first * MINUTE_US,
            bars=stop - first,
            step_us=MINUTE_US,
            previous_close=int(trades.tape.price[max(0, begin - 1)]),
        )
        rows = [
            row
            for row in roll_up(bars, interval)
            if row.open_time_us >= first * MINUTE_US and row.close_time_us < stop * MINUTE_US
        ]
        if start_us is not None:
            rows = [row for row in rows if row.open_time_us >= start_us]
        if end_us is not None:
            rows = [row for row in rows if row.open_time_us <= end_us]
        if limit is not None:
            rows = rows[-limit:] if start_us is None else rows[:limit]
        return [kline_row(trades.instrument, row, unit_us=unit_us) for row in rows]

    def agg_trades(
        self,
        symbol: str,
        *,
        from_id: int | None,
        start_us: int | None,
        end_us: int | None,
        limit: int,
        unit_us: int,
    ) -> list[Row]:
        tape = self._recording.trades[symbol].tape.until(self.now_us())
        start, stop = 0, len(tape)
        if from_id is not None:
            start = _position(tape.agg_id, from_id)
        if start_us is not None:
            start = _position(tape.time_us, start_us)
        if end_us is not None:
            stop = _position(tape.time_us, end_us + 1)
        if from_id is None and start_us is None:
            start = max(start, stop - limit)
        return agg_trade_rows(tape.between(start, min(stop, start + limit)), unit_us=unit_us)

    def trades(self, symbol: str, *, from_id: int | None, limit: int, unit_us: int) -> list[Row]:
        trades = self._recording.trades[symbol]
        if trades.is_aggregated:
            raise UnavailableError(f"the recording has aggTrades of {symbol} and no single trades")
        tape = trades.tape.until(self.now_us())
        start = len(tape) - limit if from_id is None else _position(tape.first_id, from_id)
        start = max(0, start)
        return trade_rows(tape.between(start, start + limit), unit_us=unit_us)

    def ticker(self, symbol: str, *, unit_us: int) -> Row:
        raise UnavailableError("a recording has no statistics of 24 hours")


def _position(values: IntArray, wanted: int) -> int:
    return int(np.searchsorted(values, wanted))
