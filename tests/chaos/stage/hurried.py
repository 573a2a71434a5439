"""``candelabra`` beside an exchange with a fast clock: waits between retries are shortened.

Run as a program: ``python -m tests.chaos.stage.hurried FACTOR SPEED STREAMS ROWS stream …``.
``SPEED`` is the exchange's clock speed, ``STREAMS`` the maximum streams of a connection, ``ROWS``
the candles in memory while PostgreSQL is away (0: as set; the setting has a higher minimum).
Nothing else of the program changes; settings come as settings.
"""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import replace
from functools import partial

from include.backoff import Backoff

WAITING = (
    "include.binance.rest.client",
    "include.jobs.klines.minutes",
    "streamer.capture.repair.resumption",
    "streamer.capture.repair.trade_calls",
    "streamer.capture.writer",
    "streamer.exchange.connection",
    "streamer.storage.gap_ledger",
    "streamer.symbols.first_minutes",
    "streamer.storage.repair_queue",
    "streamer.symbols.startup",
    "streamer.storage.writer",
)
"""Modules that wait between tries."""

POLL_SETTINGS = {
    "include.jobs.exchange": "RECONNECT_AFTER_S",
    "streamer.capture.repair.expected_trades": "POLL_INTERVAL_S",
    "streamer.capture.repair.former_symbols": "POLL_INTERVAL_S",
    "streamer.capture.repair.missing_ids": "POLL_S",
    "streamer.capture.spool.checkpoint": "SAVE_INTERVAL_S",
    "streamer.capture.repair.resumption": "POLL_S",
    "streamer.storage.gap_ledger": "POLL_INTERVAL_S",
    "streamer.storage.repair_queue": "POLL_S",
}
"""Modules that poll periodically."""

CHECK_FACTOR = 50
"""A check comes while what a start filled is within its span, although the lookback is short."""
WEIGHT_FACTOR = 100
"""The exchange's minutes, in which it counts requests, pass as much faster; the budget's do not."""


def hurry(factor: float) -> None:
    """Divide waits between retries and polls."""
    for name in WAITING:
        module = importlib.import_module(name)
        module.BACKOFF = _hurried(module.BACKOFF, factor)
    for name, wait in POLL_SETTINGS.items():
        module = importlib.import_module(name)
        setattr(module, wait, getattr(module, wait) / factor)
    tails = importlib.import_module("streamer.capture.repair.trailing_trades")
    for wait in ("POLL_S", "REST_DELAY_S", "PACE_S"):
        setattr(tails, wait, getattr(tails, wait) / factor)
    calls = importlib.import_module("streamer.capture.repair.trade_calls")
    calls.SLOW_BACKOFF = _hurried(calls.SLOW_BACKOFF, factor)
    repairs = importlib.import_module("streamer.storage.repair_queue")
    repairs.REFUSED_BACKOFF = _hurried(repairs.REFUSED_BACKOFF, factor)
    rotate_s = _of("streamer.health.watchdog", "ROTATE_INTERVAL_S") / factor
    _give("streamer.app", "Watchdog", rotate_interval_s=rotate_s)
    check = importlib.import_module("streamer.storage.failover_check")
    check.CHECK_DELAY_S /= CHECK_FACTOR
    late_s = _of("streamer.capture.intake.rows", "LATE_S") / factor
    _give("streamer.capture.app", "Intake", late_s=late_s)
    limits = importlib.import_module("include.binance.rest.weights").WEIGHT_LIMITS
    for market in limits:
        limits[market] *= WEIGHT_FACTOR


def carry_on(speed: float, factor: float) -> None:
    """Carry the exchange's clock on in silence as fast as it runs, and after as shorter a wait."""
    feed = importlib.import_module("streamer.candles.feed")
    feed.CARRIED_LAG_S *= speed / factor
    _give("streamer.candles.feed", "ExchangeClock", clock_s=lambda: time.monotonic() * speed)


def _hurried(backoff: Backoff, factor: float) -> Backoff:
    return replace(
        backoff,
        first_s=backoff.first_s / factor,
        max_s=backoff.max_s / factor,
        min_s=max(backoff.min_s / factor, 0.02),
    )


def narrow(streams: int) -> None:
    """Let a connection carry this many streams at most."""
    _give("streamer.app", "CandleFeeds", max_streams=streams)
    _give("streamer.capture.app", "CaptureFeeds", max_streams=streams)


def hold(rows: int) -> None:
    """Let the writer hold this many candles at most."""
    app = importlib.import_module("streamer.app")
    made = app.CandleWriter
    app.CandleWriter = lambda *given, **named: made(*given, **{**named, "buffer_rows": rows})


def _of(module: str, name: str) -> float:
    return float(getattr(importlib.import_module(module), name))


def _give(module: str, name: str, **defaults: object) -> None:
    """Change a default of a module."""
    inside = importlib.import_module(module)
    setattr(inside, name, partial(getattr(inside, name), **defaults))


if __name__ == "__main__":
    factor, speed, streams, rows = (float(sys.argv.pop(1)) for _ in range(4))
    hurry(factor)
    carry_on(speed, factor)
    narrow(int(streams))
    if rows:
        hold(int(rows))
    from cli.app import main

    main()
