"""A ticker belongs to another instrument once its trade ids restart."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from include.domain.candles import Candle
from include.domain.timeframes import MINUTE_US
from serving.bars import reused_tickers
from serving.bars.reused_tickers import ReusedTickers

T0 = 1_700_000_040_000_000


def minute(index: int, first_id: int | None) -> Candle:
    one = Decimal(1)
    last_id = None if first_id is None else first_id + 4
    return Candle(
        "LUNAUSDT", T0 + index * MINUTE_US, one, one, one, one, one, one, 5, one, one, first_id,
        last_id,
    )  # fmt: skip


def test_restarted_ids_mark_another_instrument() -> None:
    tickers = ReusedTickers()
    assert not tickers.note(minute(0, 1_000))
    assert not tickers.note(minute(1, None))
    assert not tickers.note(minute(1, 1_005))
    assert not tickers.note(minute(0, 1_000))  # repeated
    assert tickers.since_us("LUNAUSDT") == 0
    assert tickers.note(minute(9, 0))
    assert tickers.since_us("LUNAUSDT") == T0 + 9 * MINUTE_US
    assert not tickers.note(minute(10, 5))
    assert not tickers.note(replace(minute(10, 5), symbol="BTCUSDT"))


def test_memory_is_bounded_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reused_tickers, "MAX_REMEMBERED", 2)
    tickers = ReusedTickers()
    tickers.note(minute(0, 1_000))
    assert tickers.note(minute(9, 0))
    for index, symbol in enumerate(["BTCUSDT", "ETHUSDT"], start=10):
        tickers.note(replace(minute(index, 1_000), symbol=symbol))
    assert tickers.since_us("LUNAUSDT") == 0
    assert tickers.note(replace(minute(20, 0), symbol="BTCUSDT"))
    assert not tickers.note(minute(30, 0))
