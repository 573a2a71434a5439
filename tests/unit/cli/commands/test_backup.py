from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from include.errors import PermanentError


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
