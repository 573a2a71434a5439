from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from include.config import Settings
from include.errors import PermanentError, WrongValueError


def test_backup_does_not_replace_a_file_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "candles.dump"
    file.write_text("an earlier backup")
    monkeypatch.setattr("cli.terminal.command_logs.configure_command_logs", lambda *_: None)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = CliRunner().invoke(app, ["backup", str(file)])
    assert isinstance(done.exception, PermanentError)
    assert str(done.exception) == f"{file} exists: give another name, or --overwrite"
    assert file.read_text() == "an earlier backup"
    done = CliRunner().invoke(app, ["backup", str(file), "--overwrite"])
    assert "exists" not in str(done.exception)  # it went on to the database, which is away


def test_backup_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.terminal.command_logs.configure_command_logs", lambda *_: None)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    folder = tmp_path / "disk" / "backups"
    done = CliRunner().invoke(app, ["backup", str(folder / "candles.dump")])
    assert isinstance(done.exception, WrongValueError)
    assert str(done.exception).endswith(f"the folder {folder} does not exist; make it")
    assert not folder.parent.exists()


def test_restore_finds_the_running_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("CANDELABRA_HOME", str(tmp_path))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "environment.json").write_text(
        json.dumps({"DATABASE_URL": "postgresql://owner@127.0.0.1:1/candelabra"})
    )
    monkeypatch.setattr("cli.terminal.command_logs.configure_command_logs", lambda *_: None)
    file = tmp_path / "candles.dump"
    file.write_text("a backup")
    done = CliRunner().invoke(app, ["restore", str(file)])
    assert "127.0.0.1:1/candelabra" in str(done.exception)  # which is away
