"""`up` and `demo`: what the screen shows, and when."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.local import demo as module
from cli.local.demo import Steps, run_up
from include.errors import TransientError


class PlayedStack:
    """A stack whose Airflow does not start."""

    def __init__(self, home: Path, **_: Any) -> None:
        self.home, self.logs = home, home / "logs"
        self.airflow = None
        self.waits = 3
        self.written: dict[str, str] = {}

    def __enter__(self) -> PlayedStack:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def start_database(self) -> None:
        return

    def start_streamer(self, _arguments: list[str]) -> None:
        return

    def check(self) -> None:
        self.waits -= 1

    def streamer_trouble(self) -> str:
        return ""

    def environment_url(self, _role: str) -> str:
        return "postgresql://reader@127.0.0.1:5/candelabra"

    def streamer_serves(self) -> dict[str, str]:
        return {} if self.waits else {"API": "http://127.0.0.1:8300"}

    def write_links(self, links: dict[str, str]) -> None:
        self.written = links

    def start_airflow(self, *_: object) -> None:
        raise TransientError(f"no Airflow; links: {sorted(self.written)}")


def test_links_are_shown_before_airflow_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANDELABRA_HOME", str(tmp_path))
    monkeypatch.setattr(module, "configure_command_logs", lambda *_: None)
    monkeypatch.setattr(module, "LocalStack", PlayedStack)
    assert run_up(symbols=("*USDT", "ETHUSDT")) == 1
    shown = capsys.readouterr().out
    before, _, after = shown.partition("no Airflow")
    assert "chart      http://127.0.0.1:8300/" in before
    assert "symbol=ETHUSDT" in before
    # `candelabra status` in another terminal knows them as well
    assert after.startswith("; links: ['REST', 'chart', 'database', 'logs']")
    assert after.endswith("\nstopped\n")


def test_end_is_one_line_after_all_services_have_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(PlayedStack):
        def start_database(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None:
            print("the services stop")  # noqa: T201

    monkeypatch.setenv("CANDELABRA_HOME", str(tmp_path))
    monkeypatch.setattr(module, "configure_command_logs", lambda *_: None)
    monkeypatch.setattr(module, "LocalStack", Interrupted)
    assert run_up(symbols=("ETHUSDT",)) == 0
    assert capsys.readouterr().out == (
        "stopping, at most ten seconds …\nthe services stop\nstopped\n"
    )


def test_step_is_one_line_in_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    what = "history of BTCUSDT, ETHBTC, BTCUSDT.P (DAG backfill_history)"
    with Steps(console).step(what) as progress:
        progress("running, 12 of 72 tasks")
        console.print("")  # draws the spinner again
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\r", console.file.getvalue())
    assert "running" in text
    drawn = [line for part in text.split("\n") for line in part.split("\r")]
    assert max(len(line) for line in drawn if "✓" not in line) < 80
    assert any(line.endswith(f"{what} (0.0 s, at 0 s)") for line in drawn)
