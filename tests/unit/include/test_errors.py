"""Errors say whether trying again can help, and the page of them is the tree."""

from __future__ import annotations

import inspect
import re

import pytest

from include import errors
from include.errors import CandelabraError, PermanentError, RateLimitedError, TransientError


def kinds() -> list[type[CandelabraError]]:
    return [
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, CandelabraError)
    ]


@pytest.mark.parametrize("kind", kinds())
def test_every_error_except_the_root_is_transient_or_permanent(
    kind: type[CandelabraError],
) -> None:
    is_transient, is_permanent = issubclass(kind, TransientError), issubclass(kind, PermanentError)
    assert (is_transient != is_permanent) == (kind is not CandelabraError)


def test_docstring_shows_the_real_tree() -> None:
    drawn: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([ │├└─]*)([A-Z]\w+Error)\b", line)
        if match is None or not line.startswith("    "):
            continue
        depth = len(match[1])
        above = {level: name for level, name in above.items() if level < depth}
        drawn[match[2]] = above[max(above)] if above else "Exception"
        above[depth] = match[2]
    assert drawn == {one.__name__: one.__bases__[0].__name__ for one in kinds()}


def test_rate_limit_error_has_its_wait_and_message() -> None:
    error = RateLimitedError("slow down", retry_after_s=37.0)
    assert (str(error), error.retry_after_s, error.banned) == ("slow down", 37.0, False)
