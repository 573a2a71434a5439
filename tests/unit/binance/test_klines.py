"""A page counts what is settled and tells where the next begins."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from include.binance.klines import KLINE_ROWS, SETTLING_US, page_of
from include.domain.timeframes import MINUTE_US, timeframe

START = 1_735_689_600_000_000


def rows(count: int) -> bytes:
    body = ["0.1", "0.3", "0.1", "0.123456789012345678901234567890", "7"]
    return msgspec.json.encode(
        [
            [START + n * MINUTE_US, *body, START + n * MINUTE_US + 1, "5", 3, "1", "2", "0", "new"]
            for n in range(count)
        ]
    )


@pytest.mark.parametrize(
    ("late_us", "settled"), [(0, 3), (-1, 2), (-MINUTE_US, 2), (-MINUTE_US - 1, 1)]
)
def test_the_last_bars_wait_until_they_are_settled(late_us: int, settled: int) -> None:
    page = page_of(
        KLINE_ROWS.decode(rows(3)),
        symbol="X",
        timeframe=timeframe("1m"),
        server_time_us=START + 3 * MINUTE_US + SETTLING_US + late_us,
        limit=3,
    )
    assert (len(page.candles), page.unsettled) == (settled, 3 - settled)
    assert (page.next_start_us is None) == (settled < 3)


def test_prices_keep_every_digit_and_further_fields_are_ignored() -> None:
    candle = KLINE_ROWS.decode(rows(1))[0].candle("X")
    assert candle.close == Decimal("0.123456789012345678901234567890")
    assert (candle.first_trade_id, candle.last_trade_id) == (None, None)


def test_a_cut_row_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        KLINE_ROWS.decode(b'[[1735689600000,"1","1"]]')
