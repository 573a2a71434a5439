"""What a streamer has done so far, in figures for readers of its API; all from memory."""

from __future__ import annotations

from typing import Any

from include.domain.timeframes import from_us
from streamer.candles.feed import Feed
from streamer.capture.intake.feed import CaptureFeed
from streamer.health.telemetry import TelemetrySources


def statistics(observed: TelemetrySources) -> dict[str, Any]:
    """Figures since the start; times are UTC, ``None`` before the first frame."""
    counts = observed.hub.counts
    return {
        "connections": [_of_feed(feed) for feed in observed.feeds],
        "candles": dict(observed.counts),
        "rows_written": observed.writer.written,
        "rows_waiting": observed.writer.waiting,
        "minutes_asked_of_rest": observed.repairs.waiting_minutes,
        "updates_delivered": counts.delivered,
        "updates_conflated": counts.conflated,
        "candles_missed": counts.missed,
        "capture": dict(observed.capture()),
        "capture_connections": [_of_capture(feed) for feed in observed.capture_feeds],
        "nats": None if observed.publisher is None else observed.publisher.statistics(),
    }


def _of_feed(feed: Feed) -> dict[str, Any]:
    connection = feed.connection
    others = feed.klines + feed.other_frames.total() + feed.bad_frames
    return {
        "name": connection.name,
        "market": feed.market.value,
        "is_open": connection.is_open,
        "is_subscribed": connection.is_open and connection.session.is_subscribed,
        "is_delivering": feed.delivering_since_us is not None,
        "symbols": len(feed.aggregators),
        "trades": feed.frames - others,
        "klines": feed.klines,
        "bad_frames": feed.bad_frames,
        "reconnects": connection.reconnects,
        "rotations": connection.rotations,
        "refused": connection.refused,
        "exchange_time": from_us(feed.exchange_us) if feed.exchange_us else None,
    }


def _of_capture(feed: CaptureFeed) -> dict[str, Any]:
    connection = feed.connection
    return {
        "name": connection.name,
        "market": feed.market.value,
        "is_open": connection.is_open,
        "is_subscribed": connection.is_open and connection.session.is_subscribed,
        "streams": list(feed.kinds),
        "symbols": len(feed.names),
        "frames": feed.frames,
        "bad_frames": feed.bad_frames,
        "reconnects": connection.reconnects,
        "rotations": connection.rotations,
        "refused": connection.refused,
    }
