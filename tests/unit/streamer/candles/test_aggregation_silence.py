"""Streams that do not deliver are reported, requested from REST and subscribed again."""

from __future__ import annotations

from include.domain.candles import Status
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.events import NO_FRAMES
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


def pass_minutes(one: SymbolAggregator, first: int, count: int) -> None:
    """Advance exchange time, as frames of another symbol do."""
    for minute in range(first, first + count):
        one.on_clock(T0 + (minute + 1) * MINUTE_US + GRACE + TIMEOUT)


def test_silent_symbol_is_reported_once_and_requested_ever_less_often(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_kline(kline_of([trade(1, T0 + 1)], T0, closed=True, at_us=T0 + MINUTE_US))
    pass_minutes(one, 1, 24 * 60)
    assert results.silences == [(T0 + MINUTE_US, None)]
    assert results.resubscribed == 4 + 24 * 60 // 16  # 1, 2, 4, 8, then each 16th
    asked = [minute for minute, _ in results.requested]
    assert asked == [T0 + n * MINUTE_US for n in range(1, 24 * 60 + 1)]
    assert [offer.candle.open_time_us for offer in results.candidates] == [T0]  # no flat rows


def test_all_minutes_of_a_silence_are_requested_when_it_ends(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    pass_minutes(one, 0, 11)
    assert len(results.requested) == 8
    back = T0 + 11 * MINUTE_US + SECOND_US
    one.on_trade(trade(1, back))
    assert [minute for minute, _ in results.requested] == [T0 + n * MINUTE_US for n in range(11)]
    assert results.silences == [(T0, None), (T0, back)]


def test_disconnect_ends_a_silence_and_requests_its_minutes(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    pass_minutes(one, 0, 11)
    one.disconnected()
    one.disconnected()
    assert [minute for minute, _ in results.requested] == [T0 + n * MINUTE_US for n in range(11)]
    assert results.silences == [(T0, None)]


def test_one_lost_closed_kline_does_not_cause_a_new_subscription(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades[:3], T0, closed=False, at_us=T0 + 30 * SECOND_US))
    pass_minutes(one, 0, 1)
    assert results.requested == [(T0, "no closed kline")]
    assert results.resubscribed == 0


def test_missing_klines_are_subscribed_again_on_a_lossy_connection(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    for minute in range(9):
        trades = minute_trades(minute, 1 + 6 * minute)
        for each in (*trades[:2], *trades[3:]):
            one.on_trade(each)
        pass_minutes(one, minute, 1)
    assert len(results.missing) == 9
    assert results.reasons == ["no closed kline in time"] * 4  # the 1st, 2nd, 4th and 8th


def test_unrequested_minutes_of_a_silence_count_as_unfinished(results: Results) -> None:
    one = aggregator(results)
    assert one.unfinished_since_us is None
    begin(one)
    assert one.unfinished_since_us == T0
    pass_minutes(one, 0, 13)
    assert len(results.requested) == 8
    assert one.unfinished_since_us == T0 + 8 * MINUTE_US


def test_dead_trade_stream_is_subscribed_again(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    for minute in range(6):
        open_us = T0 + minute * MINUTE_US
        kline = kline_of(
            minute_trades(minute, 1 + 6 * minute), open_us, closed=True, at_us=open_us + MINUTE_US
        )
        one.on_kline(kline)
        pass_minutes(one, minute, 1)
    assert set(results.reasons) == {"klines count trades that did not arrive"}
    assert results.resubscribed == 3  # the 1st, 2nd and 4th of five minutes that are two behind
    assert all(offer.status is Status.VERIFIED for offer in results.candidates)
    assert len(results.candidates) == 6


def test_idle_new_connection_requests_ever_less_often(
    results: Results,
) -> None:
    """All symbols are halted: each connection is replaced after a while, and gives nothing."""
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_kline(kline_of([trade(1, T0 + 1)], T0, closed=True, at_us=T0 + MINUTE_US))
    one.disconnected()
    calls: list[int] = []
    ask = results.rest_needed
    results.rest_needed = lambda *told: (calls.append(told[1]), ask(*told))  # type: ignore[method-assign]
    for minute in range(1, 24 * 60 + 1):
        pass_minutes(one, minute, 1)
        if minute % 2:
            one.disconnected()  # and again nothing had come
    assert len(calls) == 4 + 24 * 60 // 16
    assert [minute for minute, _ in results.requested] == [
        T0 + n * MINUTE_US for n in range(1, 24 * 60 + 1)
    ]
    assert {cause for _, cause in results.requested} == {NO_FRAMES}
    assert results.silences == [(T0 + MINUTE_US, None)]
    assert results.resubscribed == 0  # that is the connection's business


def test_remaining_minutes_are_requested_when_an_idle_connection_resumes(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.disconnected()
    pass_minutes(one, 0, 11)
    back = T0 + 11 * MINUTE_US + SECOND_US
    one.connected(back)
    one.on_trade(trade(1, back))
    assert [minute for minute, _ in results.requested] == [T0 + n * MINUTE_US for n in range(11)]
    assert results.silences == [(T0, None), (T0, back)]


def test_silent_minutes_after_a_wrong_close_come_from_the_exchange(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    told = minute_trades(0, 1)
    for each in told[:-1]:  # the one that closes the minute is lost, and its kline as well
        one.on_trade(each)
    true_close = str(told[-1].price)
    second, third = T0 + MINUTE_US, T0 + 2 * MINUTE_US
    one.on_kline(kline_of([], second, closed=True, at_us=third + 1, previous=true_close))
    for minute in (1, 2, 3):
        one.on_clock(T0 + minute * MINUTE_US + GRACE + TIMEOUT)
    stored = results.stored()
    assert sorted(stored) == [T0, second]  # of the third no frames received: it has no row
    assert stored[T0].candle.close == told[-2].price != told[-1].price
    assert stored[T0].status is not Status.VERIFIED
    assert stored[second].candle.is_silent
    assert stored[second].candle.close == told[-1].price
    assert {minute for minute, _ in results.requested} == {T0, third}
    one.on_trade(told[-1])  # the close is mended by the trade itself, late
    stored = results.stored()
    assert stored[T0].candle.close == stored[second].candle.close == told[-1].price
    assert sorted(stored) == [T0, second]
