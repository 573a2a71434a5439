"""Hash passwords and create random secrets; only hashes are stored."""

from __future__ import annotations

import hashlib
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from include.errors import PermanentError

_HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)
"""RFC 9106, section 4, second choice (64 MiB, three passes), but with one lane: hashing must not
take processors from the handling of frames."""

DECOY = (
    "$argon2id$v=19$m=65536,t=3,p=1$T25seS1hLWRlY295ISEhIQ"
    "$kJ0gVZ3nJrNnZk1oTqFQhUqkYw3m6cS0V1uVd0bX2nA"
)
"""Hash of no account: checking an unknown name takes as long as checking a wrong password."""

TOKEN_PREFIX = "cdl_"  # noqa: S105 - tells tools that look for leaked secrets what they found
SECRET_BYTES = 32


def hash_password(password: str) -> str:
    """Hash a password for storage: argon2id with a random salt."""
    return _HASHER.hash(password)


def is_password(password: str, password_hash: str | None) -> bool:
    """Whether the password matches a hash; None never matches, after the same time.

    Raises:
        PermanentError: the stored value is not a hash.
    """
    try:
        _HASHER.verify(DECOY if password_hash is None else password_hash, password)
    except VerifyMismatchError:
        return False
    except (InvalidHashError, VerificationError) as error:
        raise PermanentError(
            "a stored password hash is unreadable; set the password again: candelabra "
            "user passwd NAME"
        ) from error
    return password_hash is not None


def new_session_secret() -> str:
    """Return a new secret for a cookie: 256 random bits."""
    return secrets.token_urlsafe(SECRET_BYTES)


def new_token() -> str:
    """Return a new API token, to be shown once."""
    return TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def secret_hash(secret: str) -> bytes:
    """Hash a random secret for storage: SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()
