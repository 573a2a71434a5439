from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from cli.app import app, main
from include.config import Settings

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    names = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=environment | {"COLUMNS": "200"} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["stream", "--symbols", "A"], {}, "no database: set STREAMER_DATABASE_URL or"),
        (["demo"], {"CANDELABRA_HOME": "/proc/none"}, "cannot make /proc/none/demo: "),
        (
            ["migrate"],
            {"DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/db"},
            "cannot reach PostgreSQL at 127.0.0.1:1/db: ",
        ),
        (
            ["psql"],
            {"CANDELABRA_HOME": "/nonexistent"},
            "no database: set READER_DATABASE_URL or DATABASE_URL",
        ),
    ],
)
def test_wrong_usage_is_a_message_and_an_exit_code(
    arguments: list[str], variables: dict[str, str], message: str
) -> None:
    done = run(*arguments, **variables)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


BAD_VALUES: list[tuple[list[str], dict[str, str]]] = [
    (["archive", "restore", "--first", "soon"], {}),
    (["backfill", "--symbols", "A", "--from", "soon"], {}),
    (["backfill", "--symbols", "A", "--from", "2026-11-02", "--to", "2026-11-01"], {}),
    (["backfill", "--symbols", "A", "--from", "2026-11-01", "--market", "moon"], {}),
    (["backfill", "--symbols", "A*", "--from", "2026-11-01"], {}),
    (["backfill", "--symbols", "A", "--from", "2026-11-01", "--mode", "some"], {}),
    (["backfill", "--symbols", "A", "--from", "2026-11-01", "--kind", "some"], {}),
    (["backup", str(ROOT / "README.md")], {}),
    (["backup", str(ROOT / "no-such-folder" / "candles.dump")], {}),
    (["check", "--from", "soon"], {}),
    (["check", "--all", "--from", "2026-11-01"], {}),
    (["clean"], {"BATCH_SIZE": "lots"}),
    (["compare", "--interval", "7m", "--symbols", "A", "--from", "2026-11-01"], {}),
    (["compare", "--interval", "1h", "--symbols", "A", "--from", "soon"], {}),
    (["compare", "--interval", "1h", "--symbols", "A"], {}),
    (["dbt-env"], {"DATABASE_URL": "mysql://x"}),
    (["demo", "--symbols", "BTC*"], {}),
    (["import", "no-such-file.csv"], {}),
    (["migrate"], {"DATABASE_URL": "mysql://x"}),
    (["psql"], {"BATCH_SIZE": "lots"}),
    (["restore", "no-such-file.dump"], {}),
    (["serve"], {"API_PORT": "lots"}),
    (["simulate", "--port", "lots"], {}),
    (["status", "--since", "soon"], {}),
    (["stream", "--symbols-file", "no-such-file"], {}),
    (["stream", "--symbols", "A", "--trade-stream", "all"], {}),
    (["sync-instruments"], {"BATCH_SIZE": "lots"}),
    (["up"], {"BATCH_SIZE": "lots"}),
    (["user", "add", "no name"], {}),
]


@pytest.mark.parametrize(("arguments", "variables"), BAD_VALUES, ids=lambda one: " ".join(one))
def test_a_bad_value_ends_every_command_with_exit_code_2(
    arguments: list[str],
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    nowhere = {"DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/db"}
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in ({"CANDELABRA_HOME": str(tmp_path)} | nowhere | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(structlog, "configure", lambda **_: None)  # keep the tests' own logs
    monkeypatch.setattr(sys, "argv", ["candelabra", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert told
    assert "secret" not in told


def test_every_command_is_among_the_bad_values() -> None:
    named = {arguments[0] for arguments, _ in BAD_VALUES}
    commands = {
        one.name or (one.callback.__name__ if one.callback else "")
        for one in app.registered_commands
    }
    assert commands <= named


def test_usage_shows_the_name_of_the_program() -> None:
    assert "Usage: candelabra migrate" in run("migrate", "--help").stdout
    wrong = run("migrate", "--no-such-option")
    assert wrong.returncode == 2
    assert "Usage: candelabra migrate" in wrong.stderr


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert name in shown


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cli.app import app;"
        "heavy = {'airflow', 'dbt', 'great_expectations', 'polars', 'psycopg'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_version_equals_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version").stdout == f"candelabra {project['version']}\n"
