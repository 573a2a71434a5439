"""Fault rules that are added and removed while others look them up."""

from dataclasses import dataclass

import pytest

from simulator.http.fault_rules import FaultRules


@dataclass(frozen=True)
class _Rule:
    name: str
    times: int | None = None


def _named(board: FaultRules[_Rule], name: str, *, counts: bool = True) -> list[_Rule]:
    return board.matching(lambda rule: rule.name == name, counts=counts)


def test_rules_match_until_removal_and_count_hits() -> None:
    board: FaultRules[_Rule] = FaultRules()
    assert board.is_idle
    first, second = board.add(_Rule("a")), board.add(_Rule("b"))
    assert not board.is_idle
    assert _named(board, "a") == [_Rule("a")]
    assert _named(board, "a") == [_Rule("a")]
    assert {entry.rule_id: entry.hits for entry in board.active()} == {first: 2, second: 0}
    assert board.remove(first) == 2
    assert _named(board, "a") == []
    assert board.remove(second) == 0
    assert board.is_idle


def test_matching_without_counting_keeps_the_hits() -> None:
    board: FaultRules[_Rule] = FaultRules()
    board.add(_Rule("a"))
    assert _named(board, "a", counts=False)
    assert board.active()[0].hits == 0


def test_limited_rule_is_spent_after_its_hits_and_stays_listed() -> None:
    board: FaultRules[_Rule] = FaultRules()
    rule_id = board.add(_Rule("a", times=2))
    assert [bool(_named(board, "a")) for _ in range(4)] == [True, True, False, False]
    assert board.active()[0].is_spent
    assert board.remove(rule_id) == 2


def test_unknown_rule_cannot_be_removed() -> None:
    board: FaultRules[_Rule] = FaultRules()
    with pytest.raises(KeyError):
        board.remove(7)


def test_clear_removes_all_rules() -> None:
    board: FaultRules[_Rule] = FaultRules()
    board.add(_Rule("a"))
    board.clear()
    assert board.is_idle
    assert board.active() == []
