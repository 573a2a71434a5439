"""Live serving: readers, latency and cost: ``python -m benchmarks.serving``.

Parts, by name, or all: ``readers`` (WebSockets at 10,000 trades/s), ``broadcast`` (the cost of a
message against a bare broadcast), ``forms`` (binary against JSON), ``rest`` (500 candles for 50
clients) and ``grpc`` (one reader of all symbols).

All processes share two cores: the server has one; the exchange, PostgreSQL and the readers have the
other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.load.processes import CORES, Talking, cpu_s, talking, waited_s
from benchmarks.load.stage import percentile, verdict
from benchmarks.serving_parts import formats as forms
from benchmarks.serving_parts import rest
from benchmarks.serving_parts.stage import (
    CONNECT_TIMEOUT_S,
    NAMES,
    SYMBOLS,
    TRADES_PER_S,
    served,
)

EACH = 5
SECONDS = 15.0
READERS = (10, 250, 500, 1_000, 2_000, 5_000)
GOAL_MS = 100.0
GOAL_OF_TEN_MS = 3.0
LATE_MS = 250.0
PARTS = ("readers", "broadcast", "forms", "rest", "grpc")


@contextmanager
def readers_of(url: str, count: int, sent_times: Path, *, probes: int = 10) -> Iterator[Talking]:
    """Readers that are connected and receive messages, in a process on the exchange's core.

    Args:
        probes: number of readers that decode, to find when each trade arrived.
    """
    command = [
        "-m", "benchmarks.readers.websocket", "--url", url, "--readers", str(count),
        "--symbols", NAMES,
        "--each", str(EACH), "--sent-times", str(sent_times), "--probes", str(probes),
    ]  # fmt: skip
    with talking(command, core=CORES[-1]) as reading:
        reading.wait("ready", timeout_s=CONNECT_TIMEOUT_S)
        yield reading


# --- readers


def readers(counts: Sequence[int], seconds: float) -> None:
    """Print the latency and rate of messages for this many readers."""
    for count in counts:
        with served() as to:
            process_id = to.live.streamer.pid
            idle = _cpu_share(process_id, 3.0)
            url = to.api_url.replace("http://", "ws://") + "/api/v1/ws"
            with readers_of(url, count, to.sent_times) as reading:
                time.sleep(1.0)
                reading.tell("begin")
                began_cpu_s, began_s = cpu_s(process_id), time.monotonic()
                waited = [waited_s(one) for one in (process_id, reading.pid)]
                time.sleep(seconds)
                took_s = time.monotonic() - began_s
                used_s = cpu_s(process_id) - began_cpu_s
                waited = [
                    (waited_s(one) - before) / took_s
                    for one, before in zip((process_id, reading.pid), waited, strict=True)
                ]
                reading.tell("end")
                _print_readers(count, reading.wait("read"), took_s, used_s, idle * took_s)
                print(
                    f"serving: {count:,} readers: the streamer waited for its core "
                    f"{waited[0]:.1%} of the time, the readers for theirs {waited[1]:.1%}"
                )


def _cpu_share(process_id: int, seconds: float) -> float:
    before = cpu_s(process_id)
    time.sleep(seconds)
    return (cpu_s(process_id) - before) / seconds


def _print_readers(
    count: int, read: dict[str, Any], took_s: float, used_s: float, idle_s: float
) -> None:
    latencies = [us / 1_000 for us in read["latencies_us"]]
    p50, p99 = (percentile(latencies, share) for share in (0.5, 0.99))
    newest = [us / 1_000 for us in read["newest_us"]]
    pauses = [us / 1_000 for us in read["longest_us"]]
    goal = GOAL_OF_TEN_MS if count <= 10 else GOAL_MS
    rate = read["messages"] / took_s
    print(
        f"serving: {count:,} readers of {EACH} of {SYMBOLS} symbols at {TRADES_PER_S:,} trades/s: "
        f"frame to reader p50 {p50:.1f} ms, p99 {p99:.1f} ms (goal {goal:g}: "
        f"{verdict(p99, goal)}), most {latencies[-1]:.0f} ms; later than {LATE_MS:g} ms "
        f"{read['late'] / max(read['trades'], 1):.2%} of trades; "
        f"conflated {1 - read['states'] / max(read['trades'], 1):.0%} of changes; newest "
        f"trade of a state to reader p50 {percentile(newest, 0.5):.1f} ms, p99 "
        f"{percentile(newest, 0.99):.1f} ms; longest pause of "
        f"a reader: median {percentile(pauses, 0.5):.0f} ms, most {pauses[-1]:.0f} ms; "
        f"{rate:,.0f} messages/s of {read['bytes'] / max(read['messages'], 1):,.0f} bytes, "
        f"{read['fewest'] / took_s:.1f}/s to the one told least, {read['lost']} lost; "
        f"streamer's core {used_s / took_s:.0%}, {idle_s / took_s:.0%} of it without readers, "
        f"{(used_s - idle_s) / max(read['messages'], 1) * 1e6:.0f} µs a message"
    )


# --- broadcast


def broadcast(count: int = 1_000, seconds: float = 8.0) -> None:
    """Print a message's cost for the server and for the library's broadcast of as many bytes."""
    costs = {}
    for which in ("ours", "bare"):
        command = [
            "-m",
            "benchmarks.readers.bare_websocket_server",
            which,
            "--symbols",
            NAMES,
            "--each",
            str(EACH),
        ]
        with (
            tempfile.NamedTemporaryFile(dir="/dev/shm") as empty,
            talking(command, core=CORES[0]) as server,
        ):
            url = server.wait("ready")["url"]
            with readers_of(url, count, Path(empty.name), probes=0) as reading:
                reading.tell("begin")
                began_s = cpu_s(server.pid)
                time.sleep(seconds)
                used_s = cpu_s(server.pid) - began_s
                reading.tell("end")
                read = reading.wait("read")
                costs[which] = used_s / max(read["messages"], 1) * 1e6
                rate, size = read["messages"] / seconds, read["bytes"] / max(read["messages"], 1)
                print(
                    f"serving: {which}: {rate:,.0f} messages/s of {size:,.0f} bytes to {count:,} "
                    f"readers, {costs[which]:.1f} µs of the server's core a message"
                )
    print(
        f"serving: a message of ours, each of other {EACH} symbols, costs "
        f"{costs['ours'] / costs['bare']:.2f} of the library's broadcast of one to all"
    )


# --- grpc


def grpc(seconds: float) -> None:
    """Print what one gRPC reader of all symbols receives."""
    with served() as to:
        process_id = to.live.streamer.pid
        idle = _cpu_share(process_id, 3.0)
        command = [
            "-m", "benchmarks.readers.grpc", "--address", to.grpc_address, "--symbols", NAMES,
            "--sent-times", str(to.sent_times), "--seconds", str(seconds),
        ]  # fmt: skip
        began_s, began_cpu_s = time.monotonic(), cpu_s(process_id)
        with talking(command, core=CORES[-1]) as reader:
            read = reader.wait("read", timeout_s=seconds + 60)
        used = (cpu_s(process_id) - began_cpu_s) / (time.monotonic() - began_s)
    latencies = [us / 1_000 for us in read["latencies_us"]]
    print(
        f"serving: gRPC, one reader of {SYMBOLS} symbols at {TRADES_PER_S:,} trades/s: "
        f"{read['updates'] / read['took_s']:,.0f} updates/s in "
        f"{read['messages'] / read['took_s']:,.0f} messages/s, frame to reader p50 "
        f"{percentile(latencies, 0.5):.1f} ms, p99 {percentile(latencies, 0.99):.1f} ms; "
        f"streamer's core {used:.0%}, {idle:.0%} without the reader"
    )


def run(
    parts: Sequence[str] = PARTS, counts: Sequence[int] = READERS, seconds: float = SECONDS
) -> None:
    """Print the figures of these parts."""
    works = {
        "readers": lambda: readers(counts, seconds),
        "broadcast": lambda: broadcast(seconds=seconds),
        "forms": forms.run,
        "rest": lambda: rest.run(seconds),
        "grpc": lambda: grpc(seconds),
    }
    for part in parts:
        works[part]()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS))
    parser.add_argument("--readers", type=int, nargs="+", default=READERS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    run(asked.parts or PARTS, asked.readers, asked.seconds)
