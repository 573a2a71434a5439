"""``python -m benchmarks [NAME …]``: run the benchmarks and print their ratios."""

from __future__ import annotations

import platform
import sys

from benchmarks import (
    breadth,
    capture,
    history,
    latency,
    live_path,
    merge,
    recovery,
    simulator,
    throughput,
)

BENCHMARKS = {
    "breadth": breadth.run,
    "capture": capture.run,
    "history": history.run,
    "latency": latency.run,
    "live_path": live_path.run,
    "merge": merge.run,
    "recovery": recovery.run,
    "simulator": simulator.run,
    "throughput": throughput.run,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all of them."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 1
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
