from __future__ import annotations

import pytest

from include.domain.accounts import checked_label, checked_name, checked_password
from include.errors import RejectedInputError


@pytest.mark.parametrize("name", ["anna", "a", "0", "anna.b-c_d", "a" * 63])
def test_name_may_have_small_letters_digits_and_marks(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Anna", ".anna", "-a", "an na", "änne", "a" * 64, "anna\n", "a'; DROP", "a/../b"]
)
def test_invalid_name_is_refused_with_the_allowed_characters(name: str) -> None:
    with pytest.raises(RejectedInputError, match="small letters"):
        checked_name(name)


def test_password_length_has_bounds() -> None:
    assert checked_password("ten chars!") == "ten chars!"
    for wrong in ("nine char", "x" * 1_001):
        with pytest.raises(RejectedInputError, match="10 to 1,000") as caught:
            checked_password(wrong)
        assert wrong not in str(caught.value)


@pytest.mark.parametrize("label", ["", " x", "x\n", "x" * 65, "\x1b[2J"])
def test_label_has_few_printable_characters(label: str) -> None:
    assert checked_label("my notebook") == "my notebook"
    with pytest.raises(RejectedInputError, match="label"):
        checked_label(label)
