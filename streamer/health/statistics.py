"""Statistics of a streamer, for its API and a log line each minute."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from include.domain.timeframes import from_us
from streamer.candles.feed import CandleFeed
from streamer.capture.intake.feed import CaptureFeed
from streamer.health.states import SymbolState
from streamer.health.telemetry import TelemetrySources

log = structlog.get_logger(__name__)

REPORT_INTERVAL_S = 60.0


def statistics(telemetry: TelemetrySources) -> dict[str, Any]:
    """Return figures since the start; times are UTC, ``None`` before the first frame."""
    counts = telemetry.hub.counts
    return {
        "connections": [_of_candles(feed) for feed in telemetry.feeds],
        "candles": dict(telemetry.counts),
        "rows_written": telemetry.writer.written,
        "rows_waiting": telemetry.writer.waiting,
        "repair_minutes_waiting": telemetry.repairs.waiting_minutes,
        "updates_delivered": counts.delivered,
        "updates_conflated": counts.conflated,
        "candles_missed": counts.missed,
        "capture": dict(telemetry.capture()),
        "capture_connections": [_of_capture(feed) for feed in telemetry.capture_feeds],
        "nats": None if telemetry.publisher is None else telemetry.publisher.statistics(),
    }


async def report(telemetry: TelemetrySources, *, interval_s: float = REPORT_INTERVAL_S) -> None:
    """Log the main figures regularly, until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        feeds, writer, repairs = telemetry.feeds, telemetry.writer, telemetry.repairs
        symbols = [one.symbol for feed in feeds for one in feed.aggregators]
        log.info(
            "stream_report",
            frames=sum(feed.frames for feed in feeds),
            bad_frames=sum(feed.bad_frames for feed in feeds),
            reconnects=sum(feed.connection.reconnects for feed in feeds),
            written=writer.written,
            waiting=writer.waiting,
            silent_symbols=telemetry.states.counts(symbols)[SymbolState.SILENT],
            repair_minutes_waiting=repairs.waiting_minutes,
            repaired_minutes=repairs.repaired_minutes,
            **telemetry.counts,
            **telemetry.capture(),
        )


def _of_connection(feed: CandleFeed | CaptureFeed) -> dict[str, Any]:
    connection = feed.connection
    return {
        "name": connection.name,
        "market": feed.market.value,
        "is_open": connection.is_open,
        "is_subscribed": connection.is_open and connection.session.is_subscribed,
        "bad_frames": feed.bad_frames,
        "reconnects": connection.reconnects,
        "rotations": connection.rotations,
        "refused": connection.refused,
    }


def _of_candles(feed: CandleFeed) -> dict[str, Any]:
    others = feed.klines + feed.other_frames.total() + feed.bad_frames
    return _of_connection(feed) | {
        "is_delivering": feed.delivering_since_us is not None,
        "symbols": len(feed.names),
        "trades": feed.frames - others,
        "klines": feed.klines,
        "exchange_time": from_us(feed.exchange_us) if feed.exchange_us else None,
    }


def _of_capture(feed: CaptureFeed) -> dict[str, Any]:
    return _of_connection(feed) | {
        "streams": list(feed.kinds),
        "symbols": len(feed.names),
        "frames": feed.frames,
    }
