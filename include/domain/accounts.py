"""Accounts: what a name and a password may be, and what a role means. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from include.errors import RejectedInputError

MIN_PASSWORD = 10
MAX_PASSWORD = 1_000
"""Characters; a bound on what is hashed."""
MAX_LABEL = 64
MAX_WATCHED = 100
"""Symbols of one watchlist: what anybody may have the streamer take up."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Role(StrEnum):
    """What an account may do."""

    READER = "reader"
    """Read, and keep a watchlist of its own."""
    ADMIN = "admin"
    """Also see the other accounts, and end their sessions."""


class Kind(StrEnum):
    """By what somebody is known."""

    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a word


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks.

    Attributes:
        kind: by a session's cookie, or by a token.
        key_id: of that session or token.
        expires_us: when it ends (µs since 1970); None: never by itself.
    """

    user_id: int
    name: str
    role: Role
    kind: Kind
    key_id: int
    expires_us: int | None


def is_name(name: str) -> bool:
    """Whether an account may be called so."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """The name of an account.

    Raises:
        RejectedInputError: it cannot be one.
    """
    if not is_name(name):
        raise RejectedInputError(
            f"{name[:80]!r} is no name of an account; should be 1 to 63 small letters, digits, "
            "dots, hyphens or underscores, the first a letter or a digit"
        )
    return name


def checked_password(password: str) -> str:
    """A password that may be set.

    Raises:
        RejectedInputError: it is too short or too long.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise RejectedInputError(
            f"the password has {len(password)} characters; should have {MIN_PASSWORD} to "
            f"{MAX_PASSWORD:,}"
        )
    return password


def checked_label(label: str) -> str:
    """What a token is for.

    Raises:
        RejectedInputError: it is empty or too long.
    """
    if not (0 < len(label) <= MAX_LABEL and label.isprintable() and label.strip() == label):
        raise RejectedInputError(
            f"{label[:80]!r} is no label; should be 1 to {MAX_LABEL} characters such as 'notebook'"
        )
    return label
