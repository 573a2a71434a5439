"""The streamer as a process: its event loop and its signals."""

from __future__ import annotations

import asyncio
import signal

from include.config import Settings
from streamer.app import Serving, Streamer
from streamer.runtime.heap import return_freed_memory
from streamer.symbols.startup import StreamOptions


async def stream(
    settings: Settings, options: StreamOptions, serving: Serving | None = None
) -> None:
    """Run a streamer until SIGTERM or SIGINT.

    SIGHUP reads the symbols file again; without a file it ends the process, like a closed terminal.
    """
    streamer = Streamer(settings, options, serving)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, streamer.stop)
    if options.symbols_file is not None:
        loop.add_signal_handler(signal.SIGHUP, streamer.reload)
    await streamer.run()


def run(settings: Settings, options: StreamOptions, serving: Serving | None = None) -> None:
    """Run a streamer on uvloop until a signal stops it."""
    import uvloop

    return_freed_memory()
    uvloop.run(stream(settings, options, serving))
