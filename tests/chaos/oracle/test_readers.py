"""Bars that the hub published wrongly are differences."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from include.domain.timeframes import MINUTE_US
from tests.chaos.oracle.readers import unpublished
from tests.chaos.stage.reader import Published
from tests.integration.faults.staging import VALUES

MINUTE = 100 * MINUTE_US
SPAN = (MINUTE - 9 * MINUTE_US, MINUTE + 9 * MINUTE_US)
TRUE = {"BTCUSDT": {MINUTE: tuple(Decimal(n) for n in range(1, 10))}}


def bar(**changes: Any) -> dict[str, Any]:
    values = {name: str(number) for number, name in enumerate(VALUES, start=1)}
    known = {"symbol": "BTCUSDT", "open_time": MINUTE // 1_000, "is_closed": True}
    return {**known, "status": "verified", **values, **changes}


def judge(*bars: dict[str, Any], missed: bool = False) -> list[str]:
    published = Published(since_us=0)
    for one in bars:
        published.receive({"type": "candles", "data": [one]})
    if missed:
        published.receive({"type": "missed", "data": []})
    return unpublished([published], TRUE, ["BTCUSDT"], SPAN, {})


def test_published_bar_with_the_exchange_s_values_passes() -> None:
    assert judge(bar(status=None, is_closed=False, close="7"), bar()) == []


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (bar(close="7"), "true is"),
        (bar(status="unconfirmed"), "published it as unconfirmed"),
        (bar(open_time=MINUTE // 1_000 - 60_000), "did not publish it"),
    ],
)
def test_wrong_or_missing_bar_fails(last: dict[str, Any], told: str) -> None:
    (found,) = judge(last)
    assert told in found
    assert judge(last, missed=True) == []


def test_bar_that_goes_back_fails() -> None:
    found = judge(bar(), bar(status=None, is_closed=False), bar())
    assert found == ["BTCUSDT 01 01:40: None after verified in the hub"]
