"""A line in the log, once a minute, by which one sees that the streamer is at work."""

from __future__ import annotations

import asyncio

import structlog

from streamer.health.states import SymbolState
from streamer.health.telemetry import TelemetrySources

log = structlog.get_logger(__name__)

REPORT_INTERVAL_S = 60.0


async def report(observed: TelemetrySources, *, interval_s: float = REPORT_INTERVAL_S) -> None:
    """Tell how it goes, until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        feeds, writer, repairs = observed.feeds, observed.writer, observed.repairs
        symbols = [one.symbol for feed in feeds for one in feed.aggregators]
        log.info(
            "stream_report",
            frames=sum(feed.frames for feed in feeds),
            bad_frames=sum(feed.bad_frames for feed in feeds),
            reconnects=sum(feed.connection.reconnects for feed in feeds),
            written=writer.written,
            waiting=writer.waiting,
            silent_symbols=observed.states.counts(symbols)[SymbolState.SILENT],
            minutes_asked_of_rest=repairs.waiting_minutes,
            repaired_minutes=repairs.repaired_minutes,
            **observed.counts,
            **observed.capture(),
        )
