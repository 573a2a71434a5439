from __future__ import annotations

from include.quality.open_faults import MAX_SPANS, united


def test_spans_that_meet_are_one_and_those_apart_stay_apart() -> None:
    assert united({"A": [(60, 120), (0, 60)], "B": [(0, 60)]}, {"A": [(180, 240), (30, 90)]}) == {
        "A": ((0, 120), (180, 240)),
        "B": ((0, 60),),
    }


def test_too_many_spans_of_one_symbol_become_one_that_holds_them() -> None:
    spans = [(120 * place, 120 * place + 60) for place in range(MAX_SPANS + 1)]
    assert len(united({"A": spans[1:]})["A"]) == MAX_SPANS
    assert united({"A": spans}) == {"A": ((0, 120 * MAX_SPANS + 60),)}
