"""The program that setup creates, and the supported versions of Python."""

from __future__ import annotations

import os
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


PLAYED_PYTHON = """#!/bin/sh
case "$*" in
    *"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"-m uv"*) echo "$*" | grep -q broken && exit 3; sleep 2.2 ;;
    --version) echo "Python 3.11.9" ;;
esac
"""


def played(folder: Path, *, lock: str = "lock.txt") -> tuple[list[str], dict[str, str]]:
    """Return the command and environment of a setup whose Python only pretends to install."""
    python = folder / "python"
    python.write_text(PLAYED_PYTHON)
    python.chmod(0o755)
    (folder / lock).write_text("one==1 \\\n    --hash=sha256:0\ntwo==2 \\\n    --hash=sha256:0\n")
    command = ["sh", str(SETUP), str(folder / "venv"), str(folder / lock)]
    return command, {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}


def test_progress_says_what_is_installed_and_how_long_it_took(tmp_path: Path) -> None:
    command, environment = played(tmp_path)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    lines = re.sub(r"\b\d+ s$", "N s", done.stdout, flags=re.M).splitlines()
    first = f"setup: 2 packages into {tmp_path}/venv (Python 3.11.9); usually half a minute, "
    assert lines == [
        f"{first}longer with a slow network",
        "setup: an empty environment: N s",
        f"setup: 2 packages of {tmp_path}/lock.txt, fetched and compiled: N s",
        "setup: done in N s",
    ]
    # the second time it says nothing
    again = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert (again.stdout, again.stderr) == ("", "")


def test_seconds_are_counted_on_a_terminal(tmp_path: Path) -> None:
    command, environment = played(tmp_path)
    ours, its = os.openpty()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=its, timeout=60,
        check=True,
    )  # fmt: skip
    os.close(its)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert re.search(r"lock\.txt, fetched and compiled … [1-9]\d* s", shown)
    assert b"setup: done in" in done.stdout


def test_failed_install_names_the_step(tmp_path: Path) -> None:
    command, environment = played(tmp_path, lock="broken.txt")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert f"could not: 2 packages of {tmp_path}/broken.txt, fetched" in done.stderr
    assert not (tmp_path / "venv" / ".lock-stamp").exists()


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
