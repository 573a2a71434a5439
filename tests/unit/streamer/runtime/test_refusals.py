"""A refusing market is left alone; a long refusal counts as permanent."""

from __future__ import annotations

from include.domain.instruments import Market
from streamer.runtime.refusals import LASTING_AFTER, Refusals


def test_refused_market_pauses_until_the_wait_is_over_and_others_do_not() -> None:
    refusals = Refusals()
    assert refusals.note(Market.SPOT, "403", now_s=5.0, wait_s=10.0)
    refusal = refusals.at(Market.SPOT, 14.9)
    assert refusal is not None
    assert refusal.reason == "403"
    assert refusals.at(Market.SPOT, 15.0) is None
    assert refusals.at(Market.UM, 6.0) is None


def test_refusal_is_new_if_the_market_served_before() -> None:
    refusals = Refusals()
    refusals.note(Market.SPOT, "403", now_s=5.0, wait_s=10.0)
    assert not refusals.note(Market.SPOT, "403", now_s=15.0, wait_s=10.0)
    refusals.served(Market.SPOT)
    assert refusals.at(Market.SPOT, 16.0) is None
    assert refusals.note(Market.SPOT, "403", now_s=16.0, wait_s=10.0)


def test_refusal_is_lasting_after_several_waits_however_many_callers() -> None:
    refusals = Refusals()
    seen = []
    for n in range(LASTING_AFTER):
        for _asker in range(2):
            refusals.note(Market.SPOT, "451", now_s=10.0 * n, wait_s=10.0)
        refusal = refusals.at(Market.SPOT, 10.0 * n)
        assert refusal is not None
        seen.append(refusal.is_lasting)
    assert seen == [False] * (LASTING_AFTER - 1) + [True]
