"""``python -m benchmarks [NAME …]``: run the benchmarks and print their ratios."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from benchmarks import (
    breadth,
    capture,
    depth,
    disk,
    history,
    latency,
    recovery,
    serving,
    snapshots,
    throughput,
    trade_dumps,
)
from benchmarks.marts import bars, trades
from benchmarks.simulator import streams, year
from include.logs import configure_logging

BENCHMARKS = {
    "breadth": breadth.run,
    "capture": capture.run,
    "depth": depth.run,
    "disk": disk.run,
    "history": history.run,
    "latency": latency.run,
    "marts": bars.run,
    "recovery": recovery.run,
    "serving": serving.run,
    "simulated_year": year.run,
    "simulator": streams.run,
    "snapshots": snapshots.run,
    "throughput": throughput.run,
    "trade_dumps": trade_dumps.run,
    "trade_marts": trades.run,
}


def _processor() -> str:
    """Return the processor's name, if the system has it."""
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        for line in cpus.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all of them."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 1
    configure_logging("WARNING", "console")  # only problems between the figures
    print(f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
