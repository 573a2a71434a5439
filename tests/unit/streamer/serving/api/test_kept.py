"""Answers are kept as long as nothing of what they say has changed."""

from __future__ import annotations

from collections.abc import Callable

from streamer.serving.api.kept import Kept, Made


class Table:
    """Something that answers are made of."""

    def __init__(self, text: bytes = b"one") -> None:
        self.text = text
        self.version = 1
        self.made = 0
        self.looked = 0

    def look(self) -> int:
        self.looked += 1
        return self.version

    def make(self) -> Made:
        self.made += 1
        return Made(self.text, f'"{self.text.decode()}"')

    def change(self, text: bytes) -> None:
        self.text = text
        self.version += 1


def asking(kept: Kept, table: Table) -> Callable[[str], bytes]:
    def ask(key: str) -> bytes:
        made = kept.answer(key, table.look, table.make)
        assert made is not None
        return made.body

    return ask


def test_an_answer_is_made_twice_and_then_kept() -> None:
    table, kept = Table(), Kept()
    ask = asking(kept, table)
    assert [ask("a") for _ in range(5)] == [b"one"] * 5
    assert (table.made, table.looked) == (2, 4)
    assert (len(kept), kept.bytes) == (1, 3)


def test_a_first_request_costs_no_look_and_keeps_nothing() -> None:
    table, kept = Table(), Kept()
    ask = asking(kept, table)
    for number in range(10):
        ask(str(number))
    assert (table.made, table.looked, len(kept), kept.bytes) == (10, 0, 0, 0)


def test_what_has_changed_is_made_anew() -> None:
    table, kept = Table(), Kept()
    ask = asking(kept, table)
    for _ in range(3):
        ask("a")
    table.change(b"other")
    assert [ask("a"), ask("a")] == [b"other"] * 2
    assert table.made == 3
    assert kept.bytes == 5


def test_a_change_while_an_answer_is_made_is_seen_by_the_next_request() -> None:
    table, kept = Table(), Kept()
    ask = asking(kept, table)
    ask("a")

    def make() -> Made:
        made = table.make()
        table.change(b"later")  # after it was read
        return made

    kept.answer("a", table.look, make)
    assert ask("a") == b"later"


def test_bodies_are_bounded_and_those_asked_for_longest_ago_go_first() -> None:
    table = Table(b"0123456789")
    kept = Kept(most_bytes=30, most_bytes_of_one=20)
    ask = asking(kept, table)
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


def test_one_that_is_too_large_is_not_kept() -> None:
    table = Table(b"x" * 21)
    kept = Kept(most_bytes=30, most_bytes_of_one=20)
    ask = asking(kept, table)
    for _ in range(3):
        ask("a")
    assert (table.made, len(kept), kept.bytes) == (3, 0, 0)


def test_what_cannot_be_made_is_not_kept() -> None:
    table, kept = Table(), Kept()
    for _ in range(3):
        assert kept.answer("a", table.look, lambda: None) is None
    assert len(kept) == 0
