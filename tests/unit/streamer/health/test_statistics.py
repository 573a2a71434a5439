"""Figures of a streamer for readers of its API."""

from __future__ import annotations

from streamer.health.statistics import statistics
from streamer.hub.subscription import DeliveryCounts
from tests.unit.streamer.watched import Parts


async def test_each_connection_is_told_with_what_came_over_it() -> None:
    parts = Parts()
    feed = parts.add("spot-1", "BTCUSDT", "ETHUSDT")
    feed.frames, feed.klines, feed.bad_frames, feed.other_frames["answer"] = 20, 5, 2, 1
    feed.exchange_us = 1_700_000_040_000_000
    feed.connection.reconnects = 3
    parts.add("um-1", "BTCUSDT.P").delivering_since_us = None
    parts.observed.counts.update({"verified": 5})
    parts.hub._counts_before = DeliveryCounts(delivered=9)
    parts.add_capture("spot-capture-1", "BTCUSDT").on_text(b"{")
    parts.captured["captured_market.trades"] = 4
    told = statistics(parts.observed)
    first, second = told["connections"]
    assert (first["name"], first["market"], first["symbols"]) == ("spot-1", "spot", 2)
    assert (first["trades"], first["klines"], first["bad_frames"]) == (12, 5, 2)
    assert (first["reconnects"], first["is_delivering"]) == (3, True)
    assert first["exchange_time"].isoformat() == "2023-11-14T22:14:00+00:00"
    assert (second["is_delivering"], second["exchange_time"]) == (False, None)
    assert (told["candles"], told["updates_delivered"]) == ({"verified": 5}, 9)
    assert told["capture"] == {"captured_market.trades": 4}
    assert told["capture_connections"] == [
        {
            "name": "spot-capture-1", "market": "spot", "is_open": False, "is_subscribed": False,
            "streams": ["bookTicker"], "symbols": 1, "frames": 1, "bad_frames": 1,
            "reconnects": 0, "rotations": 0, "refused": 0,
        }
    ]  # fmt: skip
