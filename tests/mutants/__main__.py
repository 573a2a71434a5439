"""Plant each defect of ``defects.toml`` in a copy of the tree and run the tests that must fail.

``make mutants``, or ``python -m tests.mutants NAME…`` for some of them. The command fails if a
defect turns no test red, or no longer applies to the code. ``--by chaos`` runs seeds of chaos
instead of tests, and fails below ``CHAOS_GOAL``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEFECTS = Path(__file__).with_name("defects.toml")
TIMEOUT_S = 900.0
"""For the tests of one defect; a defect that makes them hang counts as caught."""
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long"]
PASSED, FAILED = 0, 1  # exit codes of pytest and of chaos
CHAOS = [
    sys.executable, "-m", "tests.chaos", "--fail-fast", "--minutes", "60", "--speed", "300",
    "--patience", "25", "--strict",
]  # fmt: skip
CHAOS_DEFECTS = 25
"""The first defects of the list: those of the live path, raw capture and its writers."""
CHAOS_GOAL = 15
CHAOS_SEEDS = ("41", "304", "29", "227", "590")
"""In this order. The first two refuse rows and kill PostgreSQL without a standby; the second holds
few rows in memory, the third has halts that no later start repairs, the fourth holds few rows
through two long outages of PostgreSQL, the fifth captures every dataset."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A change of one file that must turn a test red.

    Attributes:
        old: text that occurs once in the file.
        tests: arguments of pytest, the fastest first.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted_in(self, text: str) -> str:
        """Return the file's text with the defect.

        Raises:
            ValueError: the text to replace does not occur exactly once.
        """
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.file} has {found} places like {self.old!r}")
        return text.replace(self.old, self.new)


def defects() -> list[Defect]:
    """Read the list of defects."""
    listed = tomllib.loads(DEFECTS.read_text())["defect"]
    return [Defect(**{**one, "tests": tuple(one["tests"])}) for one in listed]


def copy_tree(target: Path) -> None:
    """Copy the files of the project, with uncommitted changes, and without what tools make."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())


def run_tests(folder: Path, tests: list[str]) -> tuple[int, str]:
    """Run tests in a folder; returns pytest's exit code and its last lines."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [*PYTEST, *tests], cwd=folder, env=environment, timeout=TIMEOUT_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return FAILED, f"no end within {TIMEOUT_S:g} s"
    lines = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return ended.returncode, "\n".join(lines or ended.stdout.splitlines()[-3:])


def run_chaos(folder: Path, seeds: Sequence[str]) -> tuple[int, str]:
    """Run seeds of chaos in a folder, until one fails; returns the exit code and the first
    difference."""
    code, output = PASSED, ""
    for seed in seeds:
        code, output = _run_seed(folder, seed)
        if code != PASSED:
            break
    return code, output


def _run_seed(folder: Path, seed: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [*CHAOS, "--seed", seed], cwd=folder, env=environment,
            timeout=TIMEOUT_S, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return FAILED, f"no end within {TIMEOUT_S:g} s"
    failed = [part for part in ended.stdout.splitlines() if " failed: " in part]
    lines = ended.stdout.splitlines()
    told = [" ".join(part[:200] for part in lines[lines.index(one) :][:2]) for one in failed[:1]]
    return ended.returncode, "\n".join(told or lines[-1:] or ["no output"])


def verdict_on(
    defect: Defect, folder: Path, run: Callable[[], tuple[int, str]]
) -> tuple[bool, str]:
    """Plant a defect, run what must fail, and restore the file; returns whether it failed."""
    path = folder / defect.file
    original = path.read_text()
    try:
        path.write_text(defect.planted_in(original))
        code, output = run()
    except (OSError, ValueError) as error:
        return False, f"DOES NOT APPLY: {error}"
    finally:
        path.write_text(original)
    if code == PASSED:
        return False, "SURVIVED"
    if code != FAILED:
        return False, f"NO VERDICT, the run ended with {code}: {output}"
    return True, output.splitlines()[0].removeprefix("FAILED ").split(" - ")[0]


def main() -> int:
    """Try the defects; non-zero unless tests catch every one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="defects to try; by default all")
    parser.add_argument("--by", choices=("tests", "chaos"), default="tests", help="what must fail")
    parser.add_argument("--seeds", nargs="+", default=CHAOS_SEEDS, help="of chaos, in this order")
    chosen = parser.parse_args()
    is_chaos = chosen.by == "chaos"
    listed = defects()[:CHAOS_DEFECTS] if is_chaos else defects()
    wanted = [one for one in listed if not chosen.names or one.name in chosen.names]
    if unknown := set(chosen.names) - {one.name for one in wanted}:
        parser.error(f"no such defect: {', '.join(sorted(unknown))}")
    survivors = []
    with tempfile.TemporaryDirectory(prefix="candelabra-mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        if is_chaos:
            code, output = run_chaos(folder, chosen.seeds)
        else:
            code, output = run_tests(
                folder, list(dict.fromkeys(t for one in wanted for t in one.tests))
            )
        if code != PASSED:
            print(f"this fails without any defect:\n{output}")  # noqa: T201
            return 1
        for defect in wanted:
            began_s = time.monotonic()
            is_caught, reason = verdict_on(
                defect,
                folder,
                partial(run_chaos, folder, chosen.seeds)
                if is_chaos
                else partial(run_tests, folder, list(defect.tests)),
            )
            took_s = time.monotonic() - began_s
            mark = "caught  " if is_caught else "ESCAPED "
            print(f"{mark} {took_s:5.1f} s  {defect.name}: {reason}", flush=True)  # noqa: T201
            if not is_caught:
                survivors.append(defect.name)
    print(f"{len(wanted) - len(survivors)} of {len(wanted)} defects caught")  # noqa: T201
    goal = min(CHAOS_GOAL, len(wanted)) if is_chaos else len(wanted)
    return 1 if len(wanted) - len(survivors) < goal else 0


if __name__ == "__main__":
    sys.exit(main())
