"""Accounts: valid names and passwords, and the permissions of each role. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from include.counts import counted
from include.errors import RejectedInputError

MIN_PASSWORD = 10
MAX_PASSWORD = 1_000
"""Maximum length in characters; bounds the cost of hashing."""
MAX_LABEL = 64
MAX_WATCHED = 100
"""Maximum symbols of one watchlist: each may add streams to the streamer."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Role(StrEnum):
    """Permissions of an account."""

    READER = "reader"
    """Read, and edit the account's watchlist."""
    ADMIN = "admin"
    """As reader; also list other accounts and end their sessions."""


class AuthMethod(StrEnum):
    """How a request was authenticated."""

    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a word


class LoginOutcome(StrEnum):
    """How a login ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Name or password was wrong, or the account is disabled."""
    REFUSED = "refused"
    """There were too many logins; the password was not checked."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Authenticated identity.

    Attributes:
        kind: session cookie or API token.
        key_id: id of that session or token.
        expires_us: when it expires (µs since 1970); None: never.
    """

    user_id: int
    name: str
    role: Role
    kind: AuthMethod
    key_id: int
    expires_us: int | None


def is_name(name: str) -> bool:
    """Whether this is a valid account name."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """Return a valid account name.

    Raises:
        RejectedInputError: it is invalid.
    """
    if not is_name(name):
        raise RejectedInputError(
            f"{name[:80]!r} is not an account name; should be 1 to 63 small letters, digits, "
            "dots, hyphens or underscores, the first a letter or a digit"
        )
    return name


def checked_password(password: str) -> str:
    """Return a valid password.

    Raises:
        RejectedInputError: it is too short or too long.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise RejectedInputError(
            f"the password has {counted(len(password), 'character')}; should have "
            f"{MIN_PASSWORD} to {MAX_PASSWORD:,}"
        )
    return password


def checked_label(label: str) -> str:
    """Return a valid token label.

    Raises:
        RejectedInputError: it is empty or too long.
    """
    if not (0 < len(label) <= MAX_LABEL and label.isprintable() and label.strip() == label):
        raise RejectedInputError(
            f"{label[:80]!r} is not a label; use 1 to {MAX_LABEL} characters, such as 'notebook'"
        )
    return label
