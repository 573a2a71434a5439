"""docs/testing-your-bot.md: its commands and programs run, its tables are complete."""

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulator.faults.kinds import KINDS, FaultKind
from simulator.faults.plan import parse_plan

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "testing-your-bot.md"
PORTS = ("8080", "8081", "8082", "8083")
SERVER = "candelabra simulate "


def _blocks() -> list[tuple[str, str]]:
    """Yield language and text of each fenced block, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE.read_text(), flags=re.DOTALL | re.MULTILINE)


def _free_ports() -> dict[str, str]:
    """Replace each port of the page by a free one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    found = {name: str(one.getsockname()[1]) for name, one in zip(PORTS, sockets, strict=True)}
    for one in sockets:
        one.close()
    return found


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


@contextmanager
def _served(command: str, folder: Path) -> Iterator[None]:
    """Start the simulator as on the page and wait for its ready line."""
    with (folder / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=_environment(),
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], 60)
            line = process.stdout.readline() if ready else ""
            assert line, (folder / "stderr").read_text()
            assert json.loads(line)["event"] == "simulator_ready"
            yield
            assert process.poll() is None
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(timeout=30)
            if process.stdout is not None:
                process.stdout.close()


def _run(language: str, text: str, folder: Path) -> str:
    program = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    ended = subprocess.run(
        [*program, text], cwd=folder, env=_environment(), capture_output=True, text=True,
        timeout=90, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def _sections() -> list[tuple[str | None, list[tuple[str, str]]]]:
    """Return each command that starts the simulator (None at first) with the blocks after it."""
    sections: list[tuple[str | None, list[tuple[str, str]]]] = [(None, [])]
    for language, text in _blocks():
        assert language in ("bash", "python"), f"a block of {language!r} is run by nobody"
        if text.startswith(SERVER):
            sections.append((text, []))
        else:
            sections[-1][1].append((language, text))
    return sections


@pytest.mark.long
def test_every_command_and_program_of_the_page_runs(tmp_path: Path) -> None:
    sections = _sections()
    assert len(sections) == 4
    assert sections[0] == (None, [])
    outputs: list[str] = []
    ports = _free_ports()

    def local(text: str) -> str:
        """The text with free ports, and a faster clock: the programs wait for minutes."""
        text = text.replace("--speed 20", "--speed 120")
        return re.sub("|".join(PORTS), lambda found: ports[found[0]], text)

    for command, blocks in sections[1:]:
        assert command is not None
        with _served(local(command), tmp_path):
            outputs += [_run(language, local(text), tmp_path) for language, text in blocks]
    printed = "\n".join(outputs)
    assert '"serverTime":' in printed
    assert "3 candles, 0 of them wrong" in printed
    assert "3 mark price candles, 0 of them wrong" in printed
    assert '"state":"active"' in printed
    assert len(parse_plan((tmp_path / "plan.json").read_bytes())) == 7
    drawn = parse_plan((tmp_path / "drawn.json").read_bytes())
    happened = parse_plan((tmp_path / "happened.json").read_bytes())
    assert [one.id for one in drawn] == [one.id for one in happened]


def test_start_time_does_not_depend_on_the_length_of_history(tmp_path: Path) -> None:
    began = time.monotonic()
    with _served("candelabra simulate --symbols BTCUSDT --start 2019-01-01", tmp_path):
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_each_kind_has_a_row_with_its_meaning_and_parameters(kind: FaultKind) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in GUIDE.read_text().splitlines()
        if line.startswith(f"| `{kind.name}` |")
    ]
    assert len(rows) == 1
    _, meaning, parameters, advice = (cell.strip(" |") for cell in rows[0])
    assert meaning == kind.meaning
    assert re.findall(r"`(\w+)`", parameters) == [one.name for one in kind.parameters]
    assert advice


def test_page_has_only_existing_kinds() -> None:
    named = re.findall(r'"kind": "(\w+)"', GUIDE.read_text())
    assert named
    assert set(named) <= set(KINDS)
