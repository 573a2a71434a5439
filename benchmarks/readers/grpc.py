"""One reader of ``StreamCandles`` of all symbols: updates a second, and their latency.

``python -m benchmarks.readers.grpc --address HOST:PORT --symbols NAME,… --sent-times FILE``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import grpc
import uvloop

from benchmarks.load.market import MINUTE_US
from benchmarks.load.processes import stand_for_other_machines
from benchmarks.load.sent_times import SentTimes
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services


async def run(options: argparse.Namespace) -> None:
    """Read for some seconds after the snapshot, and print the figures."""
    names = options.symbols.split(",")
    places = {name: place for place, name in enumerate(names)}
    sent = SentTimes(options.sent_times, len(names))
    counts: dict[tuple[str, int], int] = {}
    latencies: list[int] = []
    updates = messages = 0
    began_s = end_s = 0.0
    async with grpc.aio.insecure_channel(options.address) as channel:
        call = services.MarketDataStub(channel).StreamCandles(pb.StreamCandlesRequest())
        async for message in call:
            now_us = time.time_ns() // 1_000
            for update in message.updates:
                bar = update.candle
                minute_us = bar.open_time.seconds * 1_000_000
                key = bar.symbol, minute_us
                known = counts.get(key)
                if known is None:
                    is_begun = (bar.symbol, minute_us - MINUTE_US) in counts
                    known = 0 if is_begun else bar.trade_count
                if bar.trade_count > known and end_s:
                    moments = sent.of(places[bar.symbol], minute_us, known, bar.trade_count)
                    latencies += [now_us - one for one in moments]
                counts[key] = max(known, bar.trade_count)
            if message.is_snapshot_end:
                began_s = time.monotonic()
                end_s = began_s + options.seconds
                continue
            if end_s:
                updates += len(message.updates)
                messages += 1
                if time.monotonic() >= end_s:
                    break
        call.cancel()
    took_s = time.monotonic() - began_s
    latencies.sort()
    thinned = latencies[:: max(len(latencies) // 10_000, 1)]
    told = {"updates": updates, "messages": messages, "took_s": took_s, "trades": len(latencies)}
    print(json.dumps({"event": "read", **told, "latencies_us": thinned}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers.grpc")
    parser.add_argument("--address", required=True)
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--sent-times", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    stand_for_other_machines()
    uvloop.run(run(arguments))
