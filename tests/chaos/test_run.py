"""A run fails if it proves nothing."""

from __future__ import annotations

import pytest

from tests.chaos.run import check_hits


def test_run_in_which_few_faults_took_effect_fails() -> None:
    check_hits(10, 100)
    check_hits(0, 0)
    with pytest.raises(AssertionError, match="only 9 of 100 faults took effect"):
        check_hits(9, 100)
