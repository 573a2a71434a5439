from __future__ import annotations

from include.quality.open_faults import MAX_SPANS, united


def test_adjacent_spans_are_joined_and_distant_ones_are_not() -> None:
    assert united({"A": [(60, 120), (0, 60)], "B": [(0, 60)]}, {"A": [(180, 240), (30, 90)]}) == {
        "A": ((0, 120), (180, 240)),
        "B": ((0, 60),),
    }


def test_too_many_spans_of_a_symbol_become_one() -> None:
    spans = [(120 * place, 120 * place + 60) for place in range(MAX_SPANS + 1)]
    assert len(united({"A": spans[1:]})["A"]) == MAX_SPANS
    assert united({"A": spans}) == {"A": ((0, 120 * MAX_SPANS + 60),)}
