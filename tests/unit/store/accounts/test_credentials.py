from __future__ import annotations

import re

import pytest

from include.errors import PermanentError
from include.store.accounts.credentials import (
    DECOY,
    TOKEN_PREFIX,
    hash_password,
    is_password,
    new_session_secret,
    new_token,
    secret_hash,
)


def parameters_of(password_hash: str) -> str:
    return password_hash.rpartition("$")[0].rpartition("$")[0]


def test_a_password_is_known_by_its_hash_and_another_is_not() -> None:
    stored = hash_password("correct horse")
    assert stored.startswith("$argon2id$")
    assert "correct" not in stored
    assert is_password("correct horse", stored)
    assert not is_password("correct horsf", stored)
    assert hash_password("correct horse") != stored


def test_nobodys_hash_costs_what_a_real_one_costs_and_fits_nothing() -> None:
    assert parameters_of(DECOY) == parameters_of(hash_password("correct horse"))
    assert not is_password("correct horse", None)


def test_a_hash_that_is_broken_is_told_without_it() -> None:
    with pytest.raises(PermanentError, match="user passwd") as caught:
        is_password("correct horse", "$argon2id$broken")
    assert "broken" not in str(caught.value)


def test_secrets_are_of_256_bits_and_never_the_same() -> None:
    found = {new_session_secret() for _ in range(100)} | {new_token() for _ in range(100)}
    assert len(found) == 200
    for one in found:
        assert re.fullmatch(rf"({TOKEN_PREFIX})?[A-Za-z0-9_-]{{43}}", one)
        assert len(secret_hash(one)) == 32
