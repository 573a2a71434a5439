"""Trade ids that repeat, skip, begin again or belong to no trade."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from include.binance.streams.messages import AggTrade, Trade
from include.domain.candles import Status, differing_values
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


def test_duplicates_count_once_and_void_trades_never(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(2, T0 + 2))
    one.on_trade(trade(2, T0 + 2))
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(3, T0 + 3, price="0", quantity="0", first=-1))
    one.on_trade(trade(4, T0 + 4, first=3))
    (shown, _) = one.live_candles()[0]
    assert (shown.trade_count, shown.low) == (3, 10)
    assert (one.duplicates, one.void_trades) == (2, 1)
    assert results.missing == []


def test_fill_of_the_insurance_fund_counts_in_no_candle(results: Results) -> None:
    one = aggregator(results, has_contiguous_ids=False, expects_klines=False)
    one.connected(T0 - SECOND_US)
    for number, price, trade_type in (
        (1, "10", "MARKET"), (2, "12.5", "INSURANCE_FUND"), (3, "7", "ADL"), (4, "11", "MARKET"),
    ):  # fmt: skip
        at = (T0 + number * SECOND_US) // 1_000
        one.on_trade(
            Trade(at, "BTCUSDT", number, Decimal(price), Decimal(1), at, False, trade_type)
        )
    (shown, _) = one.live_candles()[0]
    assert (shown.open, shown.high, shown.low, shown.close) == (10, 11, 10, 11)
    assert (shown.trade_count, shown.volume) == (2, 2)
    assert one.not_market_trades == 2


def test_ids_that_skip_by_design_are_not_missing(results: Results) -> None:
    one = aggregator(results, has_contiguous_ids=False, expects_klines=False)
    one.connected(T0 + SECOND_US)
    one.on_trade(trade(1, T0 + 2 * SECOND_US))
    one.on_trade(trade(9, T0 + MINUTE_US + 1))
    one.on_trade(trade(15, T0 + MINUTE_US + 2))
    one.on_clock(T0 + 2 * MINUTE_US + GRACE)
    assert results.missing == []
    assert [o.status for o in results.candidates] == [Status.PARTIAL, Status.UNCONFIRMED]


def test_minute_stays_open_while_its_last_trade_may_still_come(results: Results) -> None:
    one = aggregator(results, expects_klines=False)
    begin(one)
    one.on_trade(trade(1, T0 + SECOND_US))
    late = T0 + MINUTE_US + GRACE + 1
    one.on_trade(trade(3, late))  # the grace has ended, and trade 2 was overtaken
    one.on_clock(late)
    assert results.candidates == []
    one.on_trade(trade(2, T0 + MINUTE_US - 1, price="7"))
    one.on_clock(late)
    (candidate,) = results.candidates
    assert (candidate.status, candidate.candle.close) == (Status.UNCONFIRMED, 7)
    assert (candidate.candle.trade_count, results.missing) == (2, [])


def test_void_trade_does_not_replace_the_real_one(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(2, T0 + 2, price="0", quantity="0", first=-1))
    one.on_trade(trade(2, T0 + 2, price="8"))
    one.on_trade(trade(3, T0 + 3))
    (shown, _) = one.live_candles()[0]
    assert (shown.trade_count, shown.low) == (3, 8)
    assert (one.void_trades, one.duplicates, results.missing) == (1, 0, [])


def test_void_trade_that_hides_a_real_one_leaves_missing_trades(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(2, T0 + 2, price="0", quantity="0", first=-1))
    one.on_trade(trade(3, T0 + 3, first=3))  # the fill 2 is missing
    one.on_clock(T0 + SECOND_US)
    assert results.missing == [(2, 2)]


def test_reused_ticker_is_aggregated_from_its_first_complete_minute(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    old = minute_trades(0, 9_001)
    for each in old:
        one.on_trade(each)
    one.on_kline(kline_of(old, T0, closed=True, at_us=T0 + MINUTE_US + 1))
    new = [trade(n + 1, T0 + 5 * MINUTE_US + n * SECOND_US, price="3") for n in range(4)]
    new += minute_trades(6, 5)
    for each in new:
        one.on_trade(each)
    assert results.restarts == [(9_007, 1)]
    assert (one.duplicates, results.missing) == (0, [])
    fifth, sixth = T0 + 5 * MINUTE_US, T0 + 6 * MINUTE_US
    one.on_kline(kline_of(new, fifth, closed=True, at_us=sixth + 1))
    one.on_kline(kline_of(new, sixth, closed=True, at_us=sixth + MINUTE_US + 1))
    stored = results.stored()
    assert {stored[m].status for m in (T0, fifth, sixth)} == {Status.VERIFIED}
    assert stored[sixth].candle.trade_count == 6
    assert results.differing == []


@pytest.mark.parametrize("seed", range(8))
def test_overtaken_single_trades_are_aggregated_once_each(results: Results, seed: int) -> None:
    one = aggregator(results, has_contiguous_ids=False)
    draws = random.Random(seed)
    earlier = [trade(10, T0 - SECOND_US)]
    told = [
        trade(20 + 3 * n, T0 + n * SECOND_US, price=str(5 + n * 7 % 11), quantity=f"0.{n + 1}")
        for n in range(1, 31)
    ]
    one.connected(T0 - 2 * SECOND_US)
    came = [told[n] for n in sorted(range(30), key=lambda n: n + draws.uniform(0, 4))]
    came += [draws.choice(told) for _ in range(10)]  # and some come twice
    for each in earlier + came:
        one.on_trade(each)
    (_, _), (shown, _) = one.live_candles()
    kline = kline_of(told, T0, closed=True, at_us=T0 + MINUTE_US + 1)
    assert differing_values(shown, kline.candle("BTCUSDT")) == []
    assert (shown.first_trade_id, shown.last_trade_id) == (23, 110)
    one.on_kline(kline)
    assert results.stored()[T0].status is Status.VERIFIED
    assert (one.duplicates, results.differing, results.missing) == (10, [], [])


def quick_trades(first: int, count: int) -> list[AggTrade]:
    """Some milliseconds apart, from a second before the first minute's end on."""
    begin_us = T0 + MINUTE_US - SECOND_US
    return [
        trade(first + n, begin_us + n * 5_000, price=str(5 + n * 7 % 11), quantity=f"0.{n + 1}")
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_spot_trades_overtaken_by_milliseconds_are_aggregated_once_each(
    results: Results, seed: int
) -> None:
    one = aggregator(results)
    begin(one)
    draws = random.Random(seed)
    told = quick_trades(1, 400)  # over the minute's end
    order = [0, *sorted(range(1, 399), key=lambda n: n + draws.uniform(0, 4)), 399]
    came = [told[n] for n in order]
    came[200:200] = came[100:110]  # and some come twice
    for each in came:
        one.on_trade(each)
    for minute in range(2):
        at_us = T0 + minute * MINUTE_US
        one.on_kline(kline_of(told, at_us, closed=True, at_us=at_us + MINUTE_US + 1))
        one.on_clock(at_us + MINUTE_US + GRACE)
    stored = results.stored()
    assert [stored[T0 + n * MINUTE_US].status for n in range(2)] == [Status.VERIFIED] * 2
    assert one.equal_klines == 2  # no trade was missing
    assert (one.duplicates, results.missing, results.differing) == (10, [], [])
    late = sum(number < max(order[: at + 1]) for at, number in enumerate(order))
    assert one.ids.overtaken == late > 50


def test_early_trade_waits_for_overtaken_ones_until_they_count_as_missing(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    told = quick_trades(1, 80)
    for each in (told[0], told[2], *told[4:40]):
        one.on_trade(each)
    assert results.missing == []
    shown, _ = one.live_candles()[0]
    assert shown.trade_count == 1
    for each in told[40:]:
        one.on_trade(each)
    assert results.missing == [(2, 2), (4, 4)]
    one.on_trade(told[1])
    one.on_trade(told[3])  # too late
    assert one.duplicates == 2


def test_held_trades_are_aggregated_at_a_disconnect(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    told = quick_trades(1, 4)
    one.on_trade(told[0])
    one.on_trade(told[2])
    one.disconnected()
    assert results.missing == [(2, 2)]
    assert not one.ids.has_held


def test_trades_of_another_instrument_end_the_wait(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    told = quick_trades(9_001, 4)
    for each in (told[0], told[2], trade(1, T0 + 5 * MINUTE_US)):
        one.on_trade(each)
    assert results.missing == [(9_002, 9_002)]
    assert results.restarts == [(9_004, 1)]


@pytest.mark.parametrize("seed", range(8))
def test_very_late_spot_trades_do_not_change_the_exchanges_candle(
    results: Results, seed: int
) -> None:
    one = aggregator(results)
    begin(one)
    draws = random.Random(seed)
    told = [each for minute in range(4) for each in minute_trades(minute, 1 + 6 * minute)]
    order = sorted(range(len(told)), key=lambda n: n + draws.uniform(0, 3))
    for n in order:
        one.on_trade(told[n])
    for minute in range(4):
        at_us = T0 + minute * MINUTE_US
        one.on_kline(kline_of(told, at_us, closed=True, at_us=at_us + MINUTE_US + 1))
        one.on_clock(at_us + MINUTE_US + GRACE + TIMEOUT)
    for minute in range(4):
        at_us = T0 + minute * MINUTE_US
        offer = results.stored()[at_us]
        true = kline_of(told, at_us, closed=True, at_us=at_us).candle("BTCUSDT")
        assert offer.status is Status.VERIFIED
        assert differing_values(offer.candle, true) == []
    assert results.missing or one.ids.overtaken or order == sorted(order)
    assert results.differing == []  # what is not whole claims nothing


def test_minute_with_missing_trades_is_partial_without_its_kline(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.on_trade(trade(2, T0 + MINUTE_US + 1))
    one.on_trade(trade(4, T0 + MINUTE_US + 2, first=4))
    one.on_clock(T0 + 2 * MINUTE_US + GRACE + TIMEOUT)
    assert results.missing == [(3, 3)]
    assert [o.status for o in results.candidates] == [Status.PARTIAL] * 2
