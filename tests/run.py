"""Run the tests with the linters beside them: ``python -m tests.run`` (see the Makefile)."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "tests.durations"]


def main() -> int:
    """Run lint and tests at the same time; non-zero where one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="3", help="pytest processes")
    parser.add_argument("--long", action="store_true", help="run the tests marked long, alone")
    parser.add_argument("--update", action="store_true", help="write the table of slowest tests")
    chosen = parser.parse_args()
    began = time.monotonic()
    selection = ["-m", "long" if chosen.long else "not long"]
    budget = [] if chosen.long else ["--budget", "update" if chosen.update else "check"]
    lint = None
    if not chosen.long:
        lint = subprocess.Popen(
            ["make", "-s", "lint"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    tests = subprocess.run(
        [*PYTEST, "-n", chosen.workers, "--durations=10", *selection, *budget, "tests"], check=False
    )
    failed = tests.returncode
    if lint is not None:
        output, _ = lint.communicate()
        if lint.returncode:
            print(output)  # noqa: T201
            failed = failed or lint.returncode
        print("lint:", "failed" if lint.returncode else "passed")  # noqa: T201
    print(f"took {(time.monotonic() - began) / 60:.1f} minutes")  # noqa: T201
    return failed


if __name__ == "__main__":
    sys.exit(main())
