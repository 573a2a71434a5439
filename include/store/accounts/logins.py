"""The audit log of logins: ``accounts.logins``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.domain.accounts import LoginOutcome
from include.domain.timeframes import to_us
from include.errors import RejectedInputError
from include.store.candles.merging import Connection
from include.store.postgres.pools import translated

# A name that is no account's may be a password in the wrong field, so it is never stored.
_RECORD = """
INSERT INTO accounts.logins (outcome, account, network, attempts)
SELECT %(outcome)s, (SELECT u.name FROM accounts.users AS u WHERE u.name = %(name)s),
    %(network)s::cidr, %(attempts)s
RETURNING account
"""

_IS_KNOWN = """
SELECT EXISTS (
    SELECT FROM accounts.logins
    WHERE account = %(name)s AND network = %(network)s::cidr AND outcome = 'succeeded'
)
"""

_LIST = """
SELECT at, outcome, account, network::text, attempts FROM accounts.logins
WHERE %(name)s::text IS NULL OR account = %(name)s
ORDER BY id DESC
LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """Login attempts with the same outcome.

    Attributes:
        name: as it was typed.
        network: in CIDR notation; None if it is unknown.
    """

    outcome: LoginOutcome
    name: str
    network: str | None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class RecordedLogin:
    """A row of the audit log. Time in µs since 1970.

    Attributes:
        account: None: no account has the name that was typed.
    """

    at_us: int
    outcome: LoginOutcome
    account: str | None
    network: str | None
    attempts: int


def record_logins(
    connection: Connection, attempts: Sequence[LoginAttempt]
) -> list[tuple[LoginAttempt, str | None]]:
    """Write attempts to the audit log; return each with its account, None if there is none."""
    found = []
    with translated(connection), connection.transaction():
        for one in attempts:
            arguments = {
                "outcome": one.outcome.value,
                "name": one.name.replace("\0", ""),
                "network": one.network,
                "attempts": one.attempts,
            }
            row = connection.execute(_RECORD, arguments).fetchone()
            found.append((one, None if row is None else row[0]))
    return found


def has_logged_in(connection: Connection, name: str, network: str) -> bool:
    """Whether this account has logged in from this network, as far as the log reaches back."""
    with translated(connection):
        row = connection.execute(_IS_KNOWN, {"name": name, "network": network}).fetchone()
    return row == (True,)


def list_logins(connection: Connection, name: str | None, *, most: int) -> list[RecordedLogin]:
    """Return the newest rows of the audit log, of all accounts or of one.

    Raises:
        RejectedInputError: the number of rows is below 1.
    """
    if most < 1:
        raise RejectedInputError(f"--limit {most}: should be 1 or more")
    with translated(connection):
        return [
            RecordedLogin(to_us(at), LoginOutcome(outcome), account, network, attempts)
            for at, outcome, account, network, attempts in connection.execute(
                _LIST, {"name": name, "most": most}
            )
        ]
