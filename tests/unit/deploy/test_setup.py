"""The program that setup creates, and the supported versions of Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
SETUP = ROOT / "deploy" / "setup.sh"


def made_environment(folder: Path) -> Path:
    """Create an environment that setup considers complete except for its program."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    lock = folder / "lock.txt"
    lock.write_text("")
    stamp = subprocess.run(
        ["sh", "-c", r"printf '%s\n' \"$PWD\" | cat - \"$0\" | cksum".replace('\\"', '"'), lock],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (folder / ".lock-stamp").write_text(stamp)
    return folder


def test_program_runs_from_any_folder_and_through_a_link(tmp_path: Path) -> None:
    environment = made_environment(tmp_path / "it's a place")
    done = subprocess.run(
        ["sh", str(SETUP), str(environment), str(environment / "lock.txt")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    link = tmp_path / "candelabra"
    link.symlink_to(environment / "bin" / "candelabra")
    shown = subprocess.run(
        [str(link), "migrate", "--help"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Usage: candelabra migrate" in shown.stdout, shown.stderr


def test_supported_python_versions_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    promised = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["project"]["requires-python"])
    assert promised is not None
    oldest, newest = int(promised[1]), int(promised[2]) - 1
    versions = [f"3.{minor}" for minor in range(oldest, newest + 1)]
    script = SETUP.read_text()
    assert f"(3, {oldest}) <= sys.version_info[:2] <= (3, {newest})" in script
    assert " ".join(["python3", *(f"python{version}" for version in versions)]) in script
    assert f"no Python 3.{oldest} to 3.{newest} found" in script
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"Python {', '.join(versions[:-1])} or {versions[-1]}" in readme
    assert project["tool"]["ruff"]["target-version"] == f"py3{oldest}"
    assert project["tool"]["mypy"]["python_version"] == f"3.{oldest}"
    assert f"\nLOCK_PYTHON := 3.{oldest}\n" in (ROOT / "Makefile").read_text()
    assert versions[0] <= f"{sys.version_info[0]}.{sys.version_info[1]}" <= versions[-1]
