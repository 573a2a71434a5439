"""A page counts complete rows and says where the next one begins."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from include.binance.rest.klines import (
    FINAL_AFTER_US,
    KLINE_ROWS,
    LAG_IS_OVER_US,
    KlinePage,
    page_of,
)
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
    ("late_us", "final"), [(0, 3), (-1, 2), (-MINUTE_US, 2), (-MINUTE_US - 1, 1)]
)
def test_last_bars_are_omitted_until_final(late_us: int, final: int) -> None:
    page = page_of(
        KLINE_ROWS.decode(rows(3)),
        symbol="X",
        timeframe=timeframe("1m"),
        server_time_us=START + 3 * MINUTE_US + FINAL_AFTER_US + late_us,
        limit=3,
    )
    assert (len(page.candles), page.not_final) == (final, 3 - final)
    assert (page.next_start_us is None) == (final < 3)


def decoded_page(count: int, *, server_time_us: int, end_us: int | None = None) -> KlinePage:
    return page_of(
        KLINE_ROWS.decode(rows(count)),
        symbol="X",
        timeframe=timeframe("1m"),
        server_time_us=server_time_us,
        limit=100,
        end_us=end_us,
    )


def test_row_is_sure_once_another_follows_in_the_same_answer() -> None:
    final_us = START + 2 * MINUTE_US + FINAL_AFTER_US
    alone = decoded_page(2, server_time_us=final_us)
    assert (len(alone.candles), len(alone.sure), alone.is_followed) == (2, 1, False)
    before_an_open_one = decoded_page(3, server_time_us=final_us)
    assert (len(before_an_open_one.sure), before_an_open_one.not_final) == (2, 1)
    assert before_an_open_one.is_followed


@pytest.mark.parametrize("behind_us", [0, MINUTE_US])
def test_row_after_the_range_proves_the_last_and_is_omitted(behind_us: int) -> None:
    server_time_us = START + 2 * MINUTE_US + FINAL_AFTER_US + behind_us
    page = decoded_page(3, server_time_us=server_time_us, end_us=START + 2 * MINUTE_US)
    assert page.sure == page.candles
    assert (len(page.candles), page.not_final, page.is_followed) == (2, 0, True)


@pytest.mark.parametrize(("early_us", "sure"), [(0, 2), (1, 1)])
def test_row_older_than_any_lag_needs_no_follower(early_us: int, sure: int) -> None:
    page = decoded_page(2, server_time_us=START + 2 * MINUTE_US + LAG_IS_OVER_US - early_us)
    assert (len(page.sure), page.is_followed) == (sure, False)
    assert decoded_page(0, server_time_us=START).sure == []


def test_prices_keep_every_digit_and_extra_fields_are_ignored() -> None:
    candle = KLINE_ROWS.decode(rows(1))[0].candle("X")
    assert candle.close == Decimal("0.123456789012345678901234567890")
    assert (candle.first_trade_id, candle.last_trade_id) == (None, None)


def test_truncated_row_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        KLINE_ROWS.decode(b'[[1735689600000,"1","1"]]')
