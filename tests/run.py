"""Run the tests with the linters beside them: ``python -m tests.run`` (see the Makefile)."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "tests.durations", "--durations=10"]
CHAOS = "tests/chaos"
"""Its long tests run alone, one on each core: a clock that runs 300 times as fast leaves a streamer
that waits for a core no time to start."""


def main() -> int:
    """Run lint and tests at the same time; non-zero where one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="3", help="pytest processes")
    parser.add_argument("--long", action="store_true", help="run the tests marked long, alone")
    parser.add_argument("--update", action="store_true", help="write the table of slowest tests")
    chosen = parser.parse_args()
    began = time.monotonic()
    failed = _long(chosen.workers) if chosen.long else _short(chosen.workers, chosen.update)
    print(f"took {(time.monotonic() - began) / 60:.1f} minutes")  # noqa: T201
    return failed


def _short(workers: str, is_update: bool) -> int:
    lint = subprocess.Popen(
        ["make", "-s", "lint"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    budget = "update" if is_update else "check"
    failed = _pytest(workers, "-m", "not long", "--budget", budget, "tests")
    output, _ = lint.communicate()
    if lint.returncode:
        print(output)  # noqa: T201
        failed = failed or lint.returncode
    print("lint:", "failed" if lint.returncode else "passed")  # noqa: T201
    return failed


def _long(workers: str) -> int:
    failed = _pytest(workers, "-m", "long", f"--ignore={CHAOS}", "tests")
    return _pytest(str(os.cpu_count() or 1), "-m", "long", CHAOS) or failed


def _pytest(workers: str, *arguments: str) -> int:
    return subprocess.run([*PYTEST, "-n", workers, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
