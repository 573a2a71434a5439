"""Ten minutes of 1,500 symbols at 20,000 frames a second: memory, lag, and every candle compared.

``candelabra stream`` runs in its own process with the aggTrades and klines of all symbols. The
kernel reports its memory; its own metrics report everything else. The lag is the time from a
frame's event time, which is its time of sending, until the frame is handled; every 64th frame is
sampled. The loop's delay says how late the event loop's ticks of at most 20 ms are. Percentiles are
upper bounds of the metrics' buckets. At the end the benchmark compares each minute of each symbol
with the market's own candle.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load.market import MINUTE_US
from benchmarks.load.stage import Stage, expected, minute_end_us, stage, stored, verdict

SYMBOLS = 1_500
TRADES_PER_S = 19_250
"""Trades a second; with the klines of open minutes this makes 20,000 frames a second."""
KLINE_EVERY_S = 2.0
SECONDS = 600
LOOKS = 20
"""Number of readings over the whole run."""
RSS_GOAL_MB = 250.0
RSS_GROWTH_GOAL = 1.05
"""Maximum ratio of the peak memory in the last quarter of the run to that in the second quarter."""
RATE_GOAL = 0.99
START_TIMEOUT_S = 60.0

Buckets = Counter[float]


@dataclass(slots=True)
class Look:
    """One sample of memory and metrics; counters start at the start of the process."""

    at_s: float
    rss_mb: float
    frames: int
    waiting: int
    lag: Buckets = field(default_factory=Counter)
    delay: Buckets = field(default_factory=Counter)


def look(process_id: int, url: str) -> Look:
    """Read memory and metrics."""
    status = Path(f"/proc/{process_id}/status").read_text()
    rss_kb = int(status.partition("VmRSS:")[2].split()[0])
    found = Look(time.monotonic(), rss_kb / 1024, 0, 0)
    text = httpx.get(f"{url}/metrics", timeout=10).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "candelabra_frames_total":
                found.frames += int(sample.value)
            elif sample.name == "candelabra_queue_depth":
                found.waiting += int(sample.value)
            elif sample.name == "candelabra_lag_seconds_bucket":
                found.lag[float(sample.labels["le"])] += int(sample.value)
            elif sample.name == "candelabra_loop_delay_seconds_bucket":
                found.delay[float(sample.labels["le"])] += int(sample.value)
    return found


def bound_ms(later: Buckets, earlier: Buckets, share: float) -> float:
    """Return an upper bound of this quantile of the values between two readings."""
    counts = {bound: later[bound] - earlier[bound] for bound in sorted(later)}
    wanted = share * max(counts.values(), default=0)
    return next((bound for bound, count in counts.items() if count >= wanted), 0.0) * 1_000


def run(seconds: int = SECONDS) -> None:
    """Run the benchmark: print readings at intervals, then the verdict."""
    options = (
        "--symbols", str(SYMBOLS), "--trades-per-s", str(TRADES_PER_S),
        "--kline-every-s", str(KLINE_EVERY_S),
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "cli", "stream", "--symbols", "*USDT"]
    environment = {"STREAMER_HTTP_PORT": str(port), "LOG_LEVEL": "WARNING"}
    with stage(options, command, environment) as live:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url)
        first_us = minute_end_us(time.time_ns() // 1_000)
        looks = [look(live.streamer.pid, url)]
        print(f"breadth: {SYMBOLS:,} symbols, aggTrade and kline_1m, for {seconds} s")
        for number in range(1, LOOKS + 1):
            time.sleep(max(0.0, looks[0].at_s + seconds * number / LOOKS - time.monotonic()))
            looks.append(look(live.streamer.pid, url))
            _print(looks[0], looks[-2], looks[-1])
        _judge(looks)
        _check(live, first_us)


def _wait_until_ready(url: str) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if httpx.get(f"{url}/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # the streamer does not listen yet
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"the streamer is not ready after {START_TIMEOUT_S} s")
        time.sleep(0.2)


def _print(first: Look, before: Look, now: Look) -> None:
    rate = (now.frames - before.frames) / (now.at_s - before.at_s)
    lags = [bound_ms(now.lag, before.lag, share) for share in (0.5, 0.99)]
    print(
        f"breadth: {now.at_s - first.at_s:4.0f} s: {rate:,.0f} frames/s, RSS {now.rss_mb:.0f} MB, "
        f"lag p50 ≤ {lags[0]:g} ms, p99 ≤ {lags[1]:g} ms, "
        f"loop delay p99 ≤ {bound_ms(now.delay, before.delay, 0.99):g} ms, waiting {now.waiting}"
    )


def _judge(looks: list[Look]) -> None:
    quarter = len(looks) // 4
    early = max(one.rss_mb for one in looks[quarter : 2 * quarter])
    most = max(one.rss_mb for one in looks)
    growth = max(one.rss_mb for one in looks[-quarter:]) / early
    middle = looks[len(looks) // 2]
    lags = [
        bound_ms(later.lag, earlier.lag, 0.99)
        for earlier, later in ((looks[0], middle), (middle, looks[-1]))
    ]
    rate = (looks[-1].frames - looks[0].frames) / (looks[-1].at_s - looks[0].at_s)
    print(
        f"breadth: RSS at most {most:.0f} MB (goal {RSS_GOAL_MB:.0f}: "
        f"{verdict(most, RSS_GOAL_MB)}), last quarter to second {growth:.3f} "
        f"(goal {RSS_GROWTH_GOAL}: {verdict(growth, RSS_GROWTH_GOAL)}); lag p99 ≤ {lags[0]:g} ms "
        f"in the first half, ≤ {lags[1]:g} ms in the second "
        f"({'MISSED: it grows' if lags[1] > lags[0] else 'met: it does not grow'}); "
        f"{rate:,.0f} frames/s"
    )
    assert rate > RATE_GOAL * 20_000, f"{rate:,.0f} frames/s in place of 20,000"


def _check(live: Stage, first_us: int) -> None:
    """Check that every whole minute of every symbol is verified and equals the market's candle."""
    last_us = minute_end_us(time.time_ns() // 1_000) - 2 * MINUTE_US
    if last_us <= first_us:
        print("breadth: too short for a whole minute, no candle was compared")
        return
    rows = stored(live.database_url)
    symbols = {symbol for symbol, _ in rows}
    assert len(symbols) == SYMBOLS, f"{len(symbols)} symbols have rows"
    right = expected(live.rest_url, symbols, first_us, last_us)
    wrong = [key for key, values in right.items() if rows.get(key) != ("verified", values)]
    assert not wrong, f"{len(wrong)} of {len(right)} differ, such as {wrong[:3]}"
    print(f"breadth: {len(right):,} candles are verified and equal the market's")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breadth")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    run(parser.parse_args().seconds)
