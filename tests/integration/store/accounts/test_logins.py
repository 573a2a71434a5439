"""The audit log of logins, as the role of serving processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
from psycopg import errors

from include.domain.accounts import LoginOutcome, Role
from include.errors import RejectedInputError
from include.store.accounts import users as accounts
from include.store.accounts.logins import (
    LoginAttempt,
    has_logged_in,
    list_logins,
    record_logins,
)
from include.store.migrate import ACCOUNTS

Connection = psycopg.Connection[Any]
ActingAs = Callable[[str], AbstractContextManager[Connection]]

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
SUCCEEDED = LoginAttempt(LoginOutcome.SUCCEEDED, "anna", "192.0.2.1/32")
FAILED = LoginAttempt(LoginOutcome.FAILED, "correct horse\0", "2001:db8::/64")
REFUSED = LoginAttempt(LoginOutcome.REFUSED, "anna", None, attempts=300)


def test_attempts_are_recorded_with_their_account(
    connection: Connection, acting_as: ActingAs
) -> None:
    accounts.add_user(connection, "anna", HASH, Role.READER)
    with acting_as(ACCOUNTS):
        found = record_logins(connection, [SUCCEEDED, FAILED, REFUSED])
        assert has_logged_in(connection, "anna", "192.0.2.1/32")
        assert not has_logged_in(connection, "anna", "192.0.2.2/32")
        assert not has_logged_in(connection, "bob", "192.0.2.1/32")
    assert [account for _, account in found] == ["anna", None, "anna"]
    rows = list_logins(connection, None, most=10)
    assert [(one.outcome, one.account, one.network, one.attempts) for one in rows] == [
        (LoginOutcome.REFUSED, "anna", None, 300),
        (LoginOutcome.FAILED, None, "2001:db8::/64", 1),
        (LoginOutcome.SUCCEEDED, "anna", "192.0.2.1/32", 1),
    ]
    assert [one.outcome for one in list_logins(connection, "anna", most=1)] == ["refused"]
    with pytest.raises(RejectedInputError, match="--limit 0"):
        list_logins(connection, None, most=0)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM accounts.logins",
        "UPDATE accounts.logins SET network = NULL",
        "TRUNCATE accounts.logins",
        "INSERT INTO accounts.logins (outcome, at) VALUES ('succeeded', '2020-01-01')",
        "UPDATE accounts.limits SET session_hours = 8760",
        "DELETE FROM accounts.limits",
    ],
)
def test_serving_processes_cannot_change_what_they_wrote(
    acting_as: ActingAs, statement: str
) -> None:
    with acting_as(ACCOUNTS) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)


def test_rows_are_removed_after_ninety_days(connection: Connection, acting_as: ActingAs) -> None:
    connection.execute(
        "INSERT INTO accounts.logins (outcome, at) SELECT 'succeeded', now() - make_interval("
        "days => days) FROM generate_series(80, 100) AS days"
    )
    with acting_as(ACCOUNTS):
        record_logins(connection, [FAILED])
    (rows,) = connection.execute("SELECT count(*) FROM accounts.logins").fetchone() or (0,)
    assert rows == 11  # 80 to 89 days old, and the new one


def test_failures_beyond_a_million_are_removed(connection: Connection, acting_as: ActingAs) -> None:
    with acting_as(ACCOUNTS):
        record_logins(connection, [SUCCEEDED, FAILED])
    connection.execute("ALTER TABLE accounts.logins ALTER COLUMN id RESTART WITH 1000003")
    with acting_as(ACCOUNTS):
        record_logins(connection, [REFUSED])
    rows = [one.outcome for one in list_logins(connection, None, most=10)]
    assert rows == [LoginOutcome.REFUSED, LoginOutcome.SUCCEEDED]
