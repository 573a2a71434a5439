"""The streamer as a reader of a tape; ends once the whole tape is in PostgreSQL.

``python -m benchmarks.readers.streamer FRAMES ROWS`` with the streamer's settings in the
environment. FRAMES is the number of frames to receive, ROWS the number of rows to write.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from include.config import load_settings
from include.logs import configure_logging
from serving.beside_streamer import BESIDE_STREAMER
from streamer.app import Streamer
from streamer.symbols.startup import StreamOptions

LOOK_S = 0.005


async def read(frames: int, rows: int) -> None:
    """Stream all symbols until this many frames were handled and this many rows written."""
    streamer = Streamer(load_settings(), StreamOptions(symbols=("*USDT",)), BESIDE_STREAMER)
    running = asyncio.ensure_future(streamer.run())
    feeds, writer = streamer.telemetry.feeds, streamer.telemetry.writer

    def handled() -> int:
        return sum(feed.frames - feed.other_frames["answer"] for feed in feeds)

    while not running.done() and handled() < frames:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(LOOK_S)
    last_us = time.time_ns() // 1_000
    while not running.done() and writer.written < rows:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(LOOK_S)
    told = {
        "event": "done",
        "last_us": last_us,
        "at_us": time.time_ns() // 1_000,
        "bad_frames": sum(feed.bad_frames for feed in feeds),
        "compared": sum(one.equal_klines for feed in feeds for one in feed.aggregators),
        "counts": dict(streamer.telemetry.counts),
        "asked_of_rest": streamer.telemetry.repairs.repaired_minutes,
    }
    print(json.dumps(told), flush=True)
    streamer.stop()
    await running


if __name__ == "__main__":
    configure_logging("WARNING", "json")
    uvloop.run(read(int(sys.argv[1]), int(sys.argv[2])))
