"""What an aggregator makes of cut connections and of frames that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from include.binance.streams.messages import AggTrade, Kline
from include.domain.candles import Candle, Status
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


def test_aggregation_continues_after_a_disconnect_without_missing_trades(results: Results) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1) + minute_trades(1, 7)
    begin(one)
    for each in trades[:3]:
        one.on_trade(each)
    one.disconnected()
    one.connected(trades[3].trade_time - 1)
    for each in trades[3:]:
        one.on_trade(each)
    one.on_clock(T0 + 2 * MINUTE_US + GRACE + TIMEOUT)
    assert results.missing == []
    assert [o.status for o in results.candidates] == [Status.UNCONFIRMED] * 2


def test_after_a_disconnect_a_trade_or_kline_must_prove_the_candle(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.disconnected()
    one.connected(T0 + 30 * SECOND_US)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.status for o in results.candidates] == [Status.PARTIAL]


def test_minutes_that_closed_during_a_disconnect_are_requested(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    back = T0 + 10 * MINUTE_US + 5 * SECOND_US
    one.disconnected()
    one.connected(back)
    one.on_trade(trade(50, back + 1))
    one.on_clock(back + 2)
    assert [at for at, _ in results.requested] == [T0 + n * MINUTE_US for n in range(10)]
    assert results.resubscribed == 0


def test_aggregation_resumes_after_the_last_stored_minute(results: Results) -> None:
    one = aggregator(results)
    one.resume_after(T0 - 5 * MINUTE_US)
    one.connected(T0 + SECOND_US)
    one.on_clock(T0 + 4 * SECOND_US)
    assert [at for at, _ in results.requested] == [T0 - n * MINUTE_US for n in (4, 3, 2, 1)]


def test_symbol_is_not_resubscribed_before_its_streams_deliver_again(results: Results) -> None:
    """After a cut, another symbol's frame moves the clock first."""
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.disconnected()
    one.on_clock(T0 + 3 * MINUTE_US)
    assert results.resubscribed == 0
    assert {at for at, _ in results.requested} >= {T0, T0 + MINUTE_US}


def test_long_disconnect_is_requested_as_one_range(results: Results) -> None:
    """Its streams are acknowledged seconds after others have moved the clock by hours."""
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    one.disconnected()
    back = T0 + 180 * MINUTE_US + 5 * SECOND_US
    one.on_clock(back)
    assert [at for at, _ in results.requested] == [T0 + n * MINUTE_US for n in range(180)]
    assert [cause for _, cause in results.requested[1:-1]] == ["not streamed"] * 178
    assert results.silences == []
    one.connected(back + 5 * SECOND_US)
    assert results.silences == []


@dataclass
class Event:
    at_us: int
    order: int
    frame: AggTrade | Kline


def _stream(trades: list[AggTrade], minutes: int, ahead_us: int) -> Iterator[Event]:
    for order, each in enumerate(trades):
        yield Event(each.trade_time + 20_000, order, each)
    for minute in range(minutes):
        open_us = T0 + minute * MINUTE_US
        for second in range(2, 60, 2):
            at = open_us + second * SECOND_US
            known = [t for t in trades if t.trade_time <= at]
            kline = kline_of(known, open_us, closed=False, at_us=at)
            yield Event(at + 20_000 - ahead_us, 10_000 + second, kline)
        closed = kline_of(trades, open_us, closed=True, at_us=open_us + MINUTE_US + 10_000)
        yield Event(open_us + MINUTE_US + 20_000 - ahead_us, 20_000, closed)


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    cuts=st.lists(st.tuples(st.integers(0, 230), st.integers(0, 90)), max_size=3),
    lost=st.sets(st.integers(2, 45), max_size=4),
    lost_klines=st.sets(st.integers(0, 3), max_size=2),
    repeats=st.booleans(),
    ahead_us=st.sampled_from([0, 15_000, 500_000]),
)
def test_every_minute_is_right_or_requested_whatever_frames_are_lost(
    counts: list[int],
    cuts: list[tuple[int, int]],
    lost: set[int],
    lost_klines: set[int],
    repeats: bool,
    ahead_us: int,
) -> None:
    """Every minute is either equal to the exchange's, or has been asked of REST."""
    trades: list[AggTrade] = []
    for minute, count in enumerate(counts):
        trades += minute_trades(minute, len(trades) + 1, count)
    results = Results()
    one = aggregator(results)
    events = sorted(_stream(trades, len(counts), ahead_us), key=lambda e: (e.at_us, e.order))
    silences = [
        (T0 + start * SECOND_US, T0 + (start + length) * SECOND_US) for start, length in cuts
    ]
    begin(one)
    was_cut = False
    for event in events:
        if any(start <= event.at_us < end for start, end in silences):
            one.disconnected()
            was_cut = True
            continue
        if was_cut:
            one.connected(event.at_us)
            was_cut = False
        if isinstance(event.frame, AggTrade):
            if event.frame.id in lost:
                continue
            one.on_trade(event.frame)
            if repeats:
                one.on_trade(event.frame)
        else:
            minute = (event.frame.body.open_time - T0) // MINUTE_US
            if event.frame.body.is_closed and minute in lost_klines:
                continue
            one.on_kline(event.frame)
        one.on_clock(event.at_us)
    end_us = T0 + len(counts) * MINUTE_US
    one.on_clock(end_us + GRACE + TIMEOUT)
    stored, asked = results.stored(), {at for at, _ in results.requested}
    for minute in range(len(counts)):
        open_us = T0 + minute * MINUTE_US
        expected = kline_of(trades, open_us, closed=True, at_us=0).candle("BTCUSDT")
        offer = stored.get(open_us)
        if offer is None or offer.status is Status.PARTIAL:
            assert open_us in asked
        else:
            _assert_equal(offer.candle, expected)
            assert offer.status is Status.VERIFIED or open_us in asked


def _assert_equal(candle: Candle, expected: Candle) -> None:
    if expected.trade_count:
        assert candle == expected
    else:
        assert candle.trade_count == 0
