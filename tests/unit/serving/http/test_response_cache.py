"""Answers are kept as long as nothing of what they say has changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from serving.http.response_cache import VERSION_TTL_S, CachedResponse, ResponseCache


class Table:
    """Something that answers are made of."""

    def __init__(self, text: bytes = b"one") -> None:
        self.text = text
        self.version = 1
        self.made = 0
        self.looked = 0

    def read_version(self) -> int:
        self.looked += 1
        return self.version

    def make(self) -> CachedResponse:
        self.made += 1
        return CachedResponse(self.text, f'"{self.text.decode()}"')

    def change(self, text: bytes) -> None:
        self.text = text
        self.version += 1


def strict(**bounds: int) -> ResponseCache:
    """Looks at the version for each request: its clock goes too fast for anything to be sure."""
    seconds = itertools.count(step=VERSION_TTL_S)
    return ResponseCache(clock=lambda: next(seconds), **bounds)


def requests_of(kept: ResponseCache, table: Table) -> Callable[[str], bytes]:
    def ask(key: str) -> bytes:
        made = kept.answer(key, table.read_version, table.make)
        assert made is not None
        return made.body

    return ask


def test_response_is_cached_on_its_second_request() -> None:
    table, kept = Table(), strict()
    ask = requests_of(kept, table)
    assert [ask("a") for _ in range(5)] == [b"one"] * 5
    assert (table.made, table.looked) == (2, 4)
    assert (len(kept), kept.bytes) == (1, 3)


def test_version_is_cached_briefly_from_the_start_of_its_lookup() -> None:
    now_s = 0.0
    table, kept = Table(), ResponseCache(clock=lambda: now_s)
    ask = requests_of(kept, table)

    def read_version_slowly() -> int:
        nonlocal now_s
        found = table.read_version()
        now_s += VERSION_TTL_S / 2
        return found

    assert kept.at_hand("a") is None
    ask("a")
    assert kept.at_hand("a") is None  # nothing is kept of a first request
    kept.answer("a", read_version_slowly, table.make)
    table.change(b"other")
    now_s = 0.9 * VERSION_TTL_S
    made = kept.at_hand("a")
    assert made is not None
    assert made.body == b"one"
    now_s = VERSION_TTL_S  # since the look began
    assert kept.at_hand("a") is None
    assert ask("a") == b"other"
    made = kept.at_hand("a")
    assert made is not None
    assert made.body == b"other"


def test_slow_lookup_does_not_replace_a_later_one() -> None:
    now_s = 0.0
    table, kept = Table(), ResponseCache(clock=lambda: now_s)
    ask = requests_of(kept, table)
    ask("a")

    def read_version_during_a_change() -> int:
        nonlocal now_s
        found = table.read_version()
        made = table.make()
        table.change(b"other")
        now_s = VERSION_TTL_S / 2
        assert ask("a") == b"other"
        table.make = lambda: made  # type: ignore[method-assign]
        return found

    kept.answer("a", read_version_during_a_change, lambda: table.make())
    made = kept.at_hand("a")
    assert made is not None
    assert made.body == b"other"


def test_first_request_looks_nothing_up_and_caches_nothing() -> None:
    table, kept = Table(), strict()
    ask = requests_of(kept, table)
    for number in range(10):
        ask(str(number))
    assert (table.made, table.looked, len(kept), kept.bytes) == (10, 0, 0, 0)


def test_changed_response_is_built_again() -> None:
    table, kept = Table(), strict()
    ask = requests_of(kept, table)
    for _ in range(3):
        ask("a")
    table.change(b"other")
    assert [ask("a"), ask("a")] == [b"other"] * 2
    assert table.made == 3
    assert kept.bytes == 5


def test_change_during_a_build_is_seen_by_the_next_request() -> None:
    table, kept = Table(), strict()
    ask = requests_of(kept, table)
    ask("a")

    def make() -> CachedResponse:
        made = table.make()
        table.change(b"later")  # after it was read
        return made

    kept.answer("a", table.read_version, make)
    assert ask("a") == b"later"


def test_bodies_are_bounded_and_the_least_recently_requested_are_evicted() -> None:
    table = Table(b"0123456789")
    kept = strict(max_bytes=30, max_bytes_of_one=20)
    ask = requests_of(kept, table)
    for key in ("a", "b", "c"):
        ask(key)
        ask(key)
    ask("a")
    ask("d")
    ask("d")
    assert (len(kept), kept.bytes) == (3, 30)
    made = table.made
    ask("a")
    assert table.made == made  # still there
    ask("b")
    assert table.made == made + 1


def test_oversized_response_is_not_cached() -> None:
    table = Table(b"x" * 21)
    kept = strict(max_bytes=30, max_bytes_of_one=20)
    ask = requests_of(kept, table)
    for _ in range(3):
        ask("a")
    assert (table.made, len(kept), kept.bytes) == (3, 0, 0)


def test_missing_response_is_not_cached() -> None:
    table, kept = Table(), strict()
    for _ in range(3):
        assert kept.answer("a", table.read_version, lambda: None) is None
    assert len(kept) == 0
