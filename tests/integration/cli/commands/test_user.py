"""``candelabra user`` as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from include.domain.accounts import LoginOutcome
from include.errors import RejectedInputError
from include.store.accounts import users as accounts
from include.store.accounts import watchlists
from include.store.accounts.credentials import is_password, secret_hash
from include.store.accounts.logins import LoginAttempt, record_logins
from include.store.postgres.pools import connect

ROOT = Path(__file__).parents[4]
PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)


def run_user(*arguments: str, says: str = "") -> Result:
    done = CliRunner().invoke(app, ["user", *arguments], input=says, prog_name="candelabra")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def stored(database_url: str, name: str) -> accounts.Password | None:
    with connect(database_url, application_name="test") as connection:
        return accounts.password_of(connection, name)


def test_account_is_created_listed_changed_and_removed(database_url: str) -> None:
    assert run_user("list").stderr == "no accounts yet: candelabra user add NAME\n"
    assert run_user("add", "anna", "--admin", says=f"{PASSWORD}\n").stdout == "anna may log in\n"
    found = stored(database_url, "anna")
    assert found is not None
    assert is_password(PASSWORD, found.password_hash)
    assert run_user("list").stdout.splitlines()[1].split()[:2] == ["anna", "admin"]
    assert run_user("role", "anna", "reader").stdout == "anna is reader\n"

    with connect(database_url, application_name="test") as connection:
        login = stored(database_url, "anna")
        assert login is not None
        accounts.begin_session(connection, login, secret_hash("s"), lifetime_s=60)
        watchlists.watch(connection, login.user_id, "BTCUSDT")
    assert "1 sessions ended" in run_user("passwd", "anna", says="another horse\n").stdout
    changed = stored(database_url, "anna")
    assert changed is not None
    assert is_password("another horse", changed.password_hash)
    assert run_user("watch", "list").stdout.splitlines()[1].split()[:2] == ["anna", "BTCUSDT"]
    assert run_user("logout", "anna").stdout == "0 sessions of anna ended\n"
    run_user("disable", "anna")
    assert "disabled" in run_user("list").stdout
    run_user("enable", "anna")
    assert "disabled" not in run_user("list").stdout
    run_user("remove", "anna")
    assert stored(database_url, "anna") is None


def test_audit_log_shows_logins_newest_first(database_url: str) -> None:
    assert run_user("logins").stderr == "no logins in the last 90 days\n"
    run_user("add", "anna", says=f"{PASSWORD}\n")
    with connect(database_url, application_name="test") as connection:
        attempts = [
            LoginAttempt(LoginOutcome.FAILED, "nobody", None),
            LoginAttempt(LoginOutcome.SUCCEEDED, "anna", "192.0.2.1/32"),
        ]
        record_logins(connection, attempts)
    shown = [line.split()[2:] for line in run_user("logins").stdout.splitlines()[1:]]
    assert shown == [["succeeded", "anna", "192.0.2.1/32", "1"], ["failed", "-", "-", "1"]]
    assert len(run_user("logins", "anna").stdout.splitlines()) == 2
    assert len(run_user("logins", "--limit", "1").stdout.splitlines()) == 2


def test_token_is_shown_once_and_only_its_hash_stored(database_url: str) -> None:
    run_user("add", "anna", says=f"{PASSWORD}\n")
    secret = run_user("token", "add", "anna", "my notebook", "--days", "30").stdout.strip()
    with connect(database_url, application_name="test") as connection:
        (known,) = accounts.identities(connection, [secret_hash(secret)]).values()
        dumped = str(connection.execute("SELECT * FROM accounts.tokens").fetchall())
    assert known.name == "anna"
    assert secret not in dumped
    shown = run_user("token", "list", "anna").stdout
    assert "my notebook" in shown
    assert secret not in shown
    run_user("token", "revoke", "anna", "my notebook")
    assert run_user("token", "list").stderr.startswith("no tokens")


@pytest.mark.parametrize(
    ("arguments", "says", "message"),
    [
        (["add", "Anna"], PASSWORD, "small letters"),
        (["add", "anna"], "short", "has 5 characters"),
        (["add", "anna"], "", "has 0 characters"),
        (["passwd", "nobody"], PASSWORD, "no account 'nobody'"),
        (["role", "nobody", "king"], "", "reader or admin"),
        (["role", "nobody", "admin"], "", "no account 'nobody'"),
        (["remove", "nobody"], "", "no account 'nobody'"),
        (["token", "add", "nobody", "x"], "", "no account 'nobody'"),
        (["token", "add", "nobody", "\n"], "", "is not a label"),
        (["watch", "list", "nobody"], "", "no account 'nobody'"),
    ],
)
def test_invalid_input_is_an_error_message(arguments: list[str], says: str, message: str) -> None:
    with pytest.raises(RejectedInputError, match=message) as caught:
        run_user(*arguments, says=says)
    assert PASSWORD not in str(caught.value)


IN_A_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, "-m", "cli", *sys.argv[1:]])))
"""


def test_terminal_asks_twice_for_a_hidden_password(database_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, "user", "add", "anna"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        shown = b""
        for _ in range(2):  # what is typed before the question is thrown away
            asked = b""
            while not asked.endswith(b": "):
                asked += child.stdout.read(1)
            child.stdin.write(f"{PASSWORD}\n".encode())
            child.stdin.flush()
            shown += asked
        shown += child.stdout.read()
        child.stdin.close()
        assert child.wait(30) == 0
    assert b"Password of anna" in shown
    assert b"anna may log in" in shown
    assert PASSWORD.encode() not in shown
    found = stored(database_url, "anna")
    assert found is not None
    assert is_password(PASSWORD, found.password_hash)
