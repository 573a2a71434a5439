"""``python -m tests.chaos``: one seed or many, with a line for each."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import Process, Queue
from pathlib import Path
from queue import Empty

import psycopg
import structlog

from deploy.local.postgres import EmbeddedPostgres
from include.errors import CandelabraError
from tests.chaos.run import PATIENCE_S, ChaosError, run
from tests.chaos.scenario import draw
from tests.chaos.stage.servers import chaos_server

MINUTES = 6.0
SPEED = 60.0
FOUND = {
    7: "a symbol that left between a failover and the look at the table was not looked at",
    8: "nothing told of the last trade of a symbol that trades once in hours, once it was lost",
    16: "rows of a new symbol were written, and its gap in front of them was not, before an end",
    18: "the judge wanted minutes of a symbol that had been given up as gone",
    32: "the judge took the ids of a name's second instrument for the first one's",
    33: "a page without its last row was taken for a listing in which nobody had traded",
    40: "what a connection's first trade had overtaken was added to a kline that had it",
    58: "the judge took what a stall kept back for lost, where the market ran late",
    77: "PostgreSQL ended a connection right before BEGIN, and the streamer ended",
    91: "trades stored between two queries hid a hole in front of them",
    128: "a page of trades that ended with the void row of an id hid the true one",
    153: "a loss of USD-M trades began later than those on their way",
    165: "a symbol whose streamer was killed before its first row began anew at the next start",
    199: "a read for the chart that hung with PostgreSQL kept the process from ending",
}
"""Basic seeds that failed at 120 minutes and speed 300, and what they found."""

Told = tuple[int, bool, str]
"""A seed, whether it passed, and the message."""

TROUBLES = (
    AssertionError, CandelabraError, OSError, RuntimeError, psycopg.Error,
    subprocess.SubprocessError,
)  # fmt: skip
"""Errors of a run that cannot be set up or cleaned up; a stalled disk is enough."""


def main() -> int:
    """Runs the seeds; exit code 1 if one fails."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    done = Done(
        arguments.resume, f"{arguments.minutes:g} {arguments.speed:g}" + " basic" * arguments.basic
    )
    seeds = [seed for seed in ordered(arguments.seed, arguments.count) if seed not in done]
    if len(seeds) < arguments.count:
        sys.stdout.write(f"{arguments.count - len(seeds)} seeds went well before\n")
    told: Queue[Told] = Queue()
    # Each worker has a separate server, because runs kill it, and runs its part of the seeds.
    workers = [
        Process(target=_work, args=(seeds[first :: arguments.workers], arguments, told))
        for first in range(min(arguments.workers, len(seeds)))
    ]
    for worker in workers:
        worker.start()
    try:
        failed = _report(told, len(seeds), workers, done, is_enough=arguments.fail_fast)
    except KeyboardInterrupt:
        sys.stdout.write("ended early\n")
        for worker in workers:
            worker.terminate()
        return 130
    finally:
        for worker in workers:
            worker.join()
    outcome = f"failed: {failed}" if failed else "no differences"
    sys.stdout.write(f"{len(seeds)} runs of {arguments.minutes:g} simulated minutes: {outcome}\n")
    return 1 if failed else 0


def ordered(first: int, count: int) -> list[int]:
    """Seeds from a first one on, those that once found a fault before the others."""
    return sorted(range(first, first + count), key=lambda seed: (seed not in FOUND, seed))


class Done:
    """Seeds that went well before, in a file: a soak that was ended goes on where it was.

    Args:
        path: lines of a seed and how it was run; None to remember nothing.
        how: minutes and speed; runs of others do not count.
    """

    def __init__(self, path: Path | None, how: str) -> None:
        self._path = path
        self._how = how
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._seeds = {
            int(line.split(" ", 1)[0]) for line in lines if line.split(" ", 1)[1:] == [how]
        }

    def __contains__(self, seed: int) -> bool:
        return seed in self._seeds

    def add(self, seed: int) -> None:
        """It went well."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(f"{seed} {self._how}\n")


def _report(
    told: Queue[Told], count: int, workers: Sequence[Process], done: Done, *, is_enough: bool
) -> list[int]:
    """A line for each seed as it ends; returns those that failed.

    Args:
        is_enough: end with the first failure.
    """
    began_s = time.monotonic()
    failed: list[int] = []
    number = 0
    while number < count:
        try:
            seed, is_right, text = told.get(timeout=1)
        except Empty:
            if any(worker.exitcode for worker in workers):
                sys.stdout.write("a worker ended; its error is above\n")
                return [*failed, -1]
            continue
        number += 1
        if is_right:
            done.add(seed)
        else:
            failed.append(seed)
        minutes = (time.monotonic() - began_s) / 60
        left = minutes / number * (count - number)
        progress = f"[{number}/{count}, {len(failed)} failed, {left:.0f} min left]"
        sys.stdout.write(f"{progress} {text}\n")
        sys.stdout.flush()
        if failed and is_enough:
            for worker in workers:
                worker.terminate()
            return failed
    return sorted(failed)


def _work(seeds: Sequence[int], arguments: argparse.Namespace, told: Queue[Told]) -> None:
    """Run seeds one after the other; what they started ends with them, also on SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    work(seeds, arguments, told.put)


def work(
    seeds: Sequence[int], arguments: argparse.Namespace, tell: Callable[[Told], object]
) -> None:
    """Run seeds on a server; after one that could not be cleaned up, the next on another."""
    waiting = deque(seeds)
    while waiting:
        try:
            with (
                tempfile.TemporaryDirectory(prefix="candelabra-chaos-pg-") as folder,
                chaos_server(Path(folder)) as server,
            ):
                while waiting:
                    tell(_run(waiting[0], arguments, server))
                    waiting.popleft()
        except TROUBLES:
            if not waiting:
                raise
            tell((waiting[0], False, f"seed {waiting[0]} failed:\n{traceback.format_exc()}"))
            waiting.popleft()


def _run(seed: int, arguments: argparse.Namespace, server: EmbeddedPostgres) -> Told:
    scenario = draw(
        seed, minutes=arguments.minutes, speed=arguments.speed, is_basic=arguments.basic
    )
    try:
        outcome = run(scenario, server, keep=arguments.keep, patience_s=arguments.patience)
    except ChaosError as error:
        return seed, False, str(error)
    if arguments.strict and outcome.gaps.silent:
        return seed, False, f"seed {seed} failed: jobs did the streamer's work\n{outcome}"
    for log in arguments.keep.glob(f"*-{seed}[.-]*") if arguments.keep else ():
        log.unlink()
    return seed, True, str(outcome)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Random faults, kills and restarts; then the table is held to the exchange.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="the first, or only one")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="simulated, of faults")
    parser.add_argument("--speed", type=float, default=SPEED, help="simulated seconds per second")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_S, help="real seconds of calm to recover in"
    )
    parser.add_argument(
        "--basic",
        action="store_true",
        help="no long stops, tight weight, trades at bounds, TLS, small buffers, refusals, jobs",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail if jobs closed a gap that the streamer had not given up",
    )
    parser.add_argument("--fail-fast", action="store_true", help="end with the first failure")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="remember good seeds there, and leave them out"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the streamers' logs of runs that fail"
    )
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.speed <= 0 or arguments.count < 1:
        parser.error("--minutes, --speed and --count must be above 0")
    if not 1 <= arguments.workers <= (os.cpu_count() or 1) * 2:
        parser.error("--workers must lie between 1 and twice the number of cores")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
