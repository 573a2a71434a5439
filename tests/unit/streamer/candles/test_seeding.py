"""A minute that was joined midway, or that has a hole, goes on from the exchange's kline."""

from __future__ import annotations

import pytest

from include.domain.candles import Status
from include.domain.timeframes import MINUTE_US, SECOND_US
from tests.unit.streamer.played_exchange import (
    GRACE,
    T0,
    TIMEOUT,
    Results,
    aggregator,
    begin,
    kline_of,
    minute_trades,
    trade,
)


def test_minute_joined_midway_without_a_seed_is_partial(results: Results) -> None:
    one = aggregator(results, expects_klines=False)
    trades = minute_trades(0, 1) + minute_trades(1, 7)
    one.connected(T0 + 20 * SECOND_US)
    for each in trades[3:]:
        one.on_trade(each)
    one.on_clock(T0 + 2 * MINUTE_US + GRACE)
    assert [o.status for o in results.candidates] == [Status.PARTIAL, Status.UNCONFIRMED]


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_minute_joined_midway_is_seeded_from_a_kline(cut: int, ahead: int) -> None:
    """For any start of the connection and any lead of the kline over its trades."""
    results = Results()
    one = aggregator(results)
    trades = minute_trades(0, 1)
    seen = min(cut + ahead, len(trades))
    one.connected(trades[cut].trade_time - 1)
    kline = kline_of(trades[:seen], T0, closed=False, at_us=trades[cut].trade_time)
    one.on_trade(trades[cut])
    one.on_kline(kline)
    for each in trades[cut + 1 :]:
        one.on_trade(each)
    (shown, _) = one.live_candles()[0]
    assert shown == kline_of(trades, T0, closed=False, at_us=0).candle("BTCUSDT")
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.stored()[T0].status is Status.UNCONFIRMED


def test_overtaken_trade_is_not_added_to_a_seed_that_includes_it(
    results: Results,
) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    one.connected(trades[1].trade_time)
    one.on_trade(trades[3])
    one.on_kline(kline_of(trades[:4], T0, closed=False, at_us=trades[3].trade_time))
    one.on_trade(trades[2])  # overtaken on its way
    for each in trades[4:]:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 1))
    assert results.stored()[T0].status is Status.VERIFIED
    assert (one.equal_klines, results.differing) == (1, [])


def test_kline_that_ends_inside_an_agg_trade_is_no_seed_until_the_next(results: Results) -> None:
    one = aggregator(results)
    trades = [
        trade(1, T0 + 1, first=10),
        trade(2, T0 + SECOND_US, first=11, fills=5),
        trade(3, T0 + 2 * SECOND_US, first=16),
    ]
    inside = kline_of(trades[:2], T0, closed=False, at_us=T0, last_trade_id=13, trade_count=4)
    one.connected(T0 + 1_000)
    one.on_kline(inside)
    for each in trades[1:]:
        one.on_trade(each)
    assert one.live_candles()[0][0].trade_count == 4  # the kline itself, not a wrong aggregation
    one.on_kline(kline_of(trades, T0, closed=False, at_us=T0 + 3 * SECOND_US))
    assert one.live_candles()[0][0].trade_count == 7
    one.on_trade(trade(4, T0 + 4 * SECOND_US, first=17))
    assert one.live_candles()[0][0].trade_count == 8


def test_missing_trades_are_reported_and_the_minute_is_seeded_again(
    results: Results,
) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    begin(one)
    one.on_trade(trades[0])
    one.on_trade(trades[3])
    assert results.missing == []  # they may be on their way
    one.on_kline(kline_of(trades[:4], T0, closed=False, at_us=trades[3].trade_time))
    assert results.missing == [(2, 3)]
    for each in trades[4:]:
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.stored()[T0].status is Status.UNCONFIRMED
    assert results.stored()[T0].candle.trade_count == 6


@pytest.mark.parametrize(("known", "seen_by"), [(1, "first_trade_id"), (3, "trade_count")])
def test_missing_first_trade_is_detected_by_the_first_id_of_the_kline(
    results: Results, known: int, seen_by: str
) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    begin(one)
    for each in trades[1:3]:
        one.on_trade(each)
    one.on_kline(kline_of(trades[:known], T0, closed=False, at_us=trades[3].trade_time))
    for each in trades[3:]:
        one.on_trade(each)
    one.on_kline(kline_of(trades[:5], T0, closed=False, at_us=trades[5].trade_time))
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.corrections == [[seen_by]]
    assert results.differing == []
    if known == 3:
        assert results.stored()[T0].candle.trade_count == 6
        assert results.stored()[T0].status is Status.UNCONFIRMED


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_empty_kline_from_before_missing_trades_is_no_seed(
    results: Results, is_confirmed: bool
) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1) + minute_trades(1, 7)
    begin(one)
    for each in trades[:6]:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
    one.on_trade(trades[8])  # two of the minute are missing
    opened_us = T0 + MINUTE_US
    one.on_kline(kline_of([], opened_us, closed=False, at_us=opened_us + 1_000))
    for each in trades[9:]:
        one.on_trade(each)
    if is_confirmed:
        one.on_kline(kline_of(trades, opened_us, closed=True, at_us=T0 + 2 * MINUTE_US))
    one.on_clock(T0 + 2 * MINUTE_US + GRACE + TIMEOUT)
    assert results.missing == [(7, 8)]
    assert results.differing == []
    if is_confirmed:
        assert results.stored()[opened_us].status is Status.VERIFIED
    else:
        assert opened_us not in results.stored()
        assert [minute for minute, _ in results.requested] == [opened_us]


def test_missing_trades_without_a_seed_leave_the_minute_partial(results: Results) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    begin(one)
    for each in (*trades[:2], *trades[4:]):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.status for o in results.candidates] == [Status.PARTIAL]
    assert results.requested == [(T0, "no closed kline")]
