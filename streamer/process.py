"""The streamer as a process: its event loop, and the signals it hears."""

from __future__ import annotations

import asyncio
import signal

from include.config import Settings
from streamer.app import Serving, Streamer
from streamer.runtime.heap import keep_flat
from streamer.symbols.startup import StreamOptions


async def stream(
    settings: Settings, options: StreamOptions, serving: Serving | None = None
) -> None:
    """Run a streamer until SIGTERM or SIGINT.

    SIGHUP has a file of symbols read again; without one it ends the process, as a closed terminal
    does.
    """
    streamer = Streamer(settings, options, serving)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, streamer.stop)
    if options.symbols_file is not None:
        loop.add_signal_handler(signal.SIGHUP, streamer.reload)
    await streamer.run()


def run(settings: Settings, options: StreamOptions, serving: Serving | None = None) -> None:
    """Blocking entry point, on uvloop, with a heap that gives back what is freed."""
    import uvloop

    keep_flat()
    uvloop.run(stream(settings, options, serving))
