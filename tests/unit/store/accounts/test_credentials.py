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


def test_only_the_right_password_matches_its_hash() -> None:
    stored = hash_password("correct horse")
    assert stored.startswith("$argon2id$")
    assert "correct" not in stored
    assert is_password("correct horse", stored)
    assert not is_password("correct horsf", stored)
    assert hash_password("correct horse") != stored


def test_decoy_hash_costs_as_much_as_a_real_one_and_matches_nothing() -> None:
    assert parameters_of(DECOY) == parameters_of(hash_password("correct horse"))
    assert not is_password("correct horse", None)


def test_error_about_a_broken_hash_does_not_show_it() -> None:
    with pytest.raises(PermanentError, match="user passwd") as caught:
        is_password("correct horse", "$argon2id$broken")
    assert "broken" not in str(caught.value)


def test_secrets_have_256_bits_and_are_unique() -> None:
    found = {new_session_secret() for _ in range(100)} | {new_token() for _ in range(100)}
    assert len(found) == 200
    for one in found:
        assert re.fullmatch(rf"({TOKEN_PREFIX})?[A-Za-z0-9_-]{{43}}", one)
        assert len(secret_hash(one)) == 32
