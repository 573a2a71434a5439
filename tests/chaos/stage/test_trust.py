"""Authorities of several runs are trusted at once, and none afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from include.binance.tls import trusted
from simulator.http.certificates import generate_certificates
from tests.chaos.stage.trust import VARIABLE, Trust


def made(folder: Path) -> str:
    folder.mkdir()
    authority = generate_certificates(folder, "localhost").authority
    assert authority is not None
    return str(authority)


def test_authorities_are_trusted_while_their_runs_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "usual.pem"
    usual.write_text(Path(made(tmp_path / "usual")).read_text())
    monkeypatch.setenv(VARIABLE, str(usual))
    trust = Trust()
    one, other = trust.of(made(tmp_path / "one")), trust.of(made(tmp_path / "other"))
    with trust.of(None):
        assert os.environ[VARIABLE] == str(usual)
    one.__enter__()
    other.__enter__()
    assert len(trusted().get_ca_certs()) == 3
    one.__exit__(None, None, None)
    assert len(trusted().get_ca_certs()) == 2
    own = Path(os.environ[VARIABLE])
    other.__exit__(None, None, None)
    assert (own.exists(), os.environ[VARIABLE]) == (False, str(usual))
    trusted.cache_clear()
