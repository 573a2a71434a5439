"""How a minute ends: verified, unconfirmed, partial, revised."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec import structs

from include.domain.candles import Source, Status
from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.candles.aggregation import MINUTES_KEPT
from streamer.candles.events import NO_CLOSED_KLINE
from tests.unit.streamer.played_exchange import (
    GRACE,
    INSTRUMENT,
    ROUNDED,
    T0,
    TIMEOUT,
    Results,
    aggregator,
    begin,
    kline_of,
    minute_trades,
    trade,
)


def test_minute_that_equals_its_closed_kline_is_verified(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 50_000))
    (offer,) = results.candidates
    assert (offer.status, offer.source) == (Status.VERIFIED, Source.KLINE)
    assert offer.evidence_at_us == T0 + MINUTE_US + 50_000
    assert not results.differing
    assert one.live_candles() == []


def test_minute_joined_midway_emits_its_closed_kline_once(results: Results) -> None:
    one = aggregator(results)
    trades = minute_trades(0, 1)
    one.connected(T0 + 1)
    for each in trades[-3:]:
        one.on_trade(each)  # kept: a seed may come
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 50_000))
    one.on_trade(trade(trades[-1].id + 1, T0 + MINUTE_US + SECOND_US))
    assert [(o.candle.open_time_us, o.status) for o in results.candidates] == [
        (T0, Status.VERIFIED)
    ]


def test_trades_lost_before_the_first_one_are_not_a_difference(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades[2:]:
        one.on_trade(each)  # a network lost the first two; no earlier id tells
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 50_000))
    (candidate,) = results.candidates
    assert (candidate.status, candidate.candle.trade_count) == (Status.VERIFIED, len(trades))
    assert (results.differing, results.disputed) == ([], [])


def test_kline_ahead_of_its_trades_waits_for_them(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades[:-1]:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
    assert results.candidates == []
    one.on_trade(trades[-1])
    assert [offer.status for offer in results.candidates] == [Status.VERIFIED]
    assert not results.differing


@pytest.mark.parametrize(("arrived", "status"), [(6, Status.UNCONFIRMED), (5, Status.PARTIAL)])
def test_candle_behind_its_open_kline_closes_as_partial(
    results: Results, arrived: int, status: Status
) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades[:arrived]:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=False, at_us=T0 + MINUTE_US - SECOND_US))
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [candidate.status for candidate in results.candidates] == [status]
    assert results.requested == [(T0, NO_CLOSED_KLINE)]


def test_candle_and_kline_are_both_emitted_if_they_differ(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US, high=Decimal(99)))
    assert results.differing == [["high"]]
    assert [o.source for o in results.candidates] == [Source.STREAM]
    assert [o.candle.high for o in results.disputed] == [99]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("open", Decimal(12)),
        ("high", Decimal(99)),
        ("low", Decimal("0.5")),
        ("close", Decimal(11)),
        ("volume", Decimal(77)),
        ("quote_volume", Decimal(77)),
        ("trade_count", 7),
        ("taker_buy_volume", Decimal("0.05")),
        ("taker_buy_quote_volume", Decimal("0.05")),
        ("first_trade_id", 0),
        ("last_trade_id", 5),
    ],
)
def test_each_value_and_both_ids_are_part_of_the_checksum(
    results: Results, name: str, theirs: Decimal | int
) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US, **{name: theirs}))
    assert results.differing == [[name]]
    if name.endswith("trade_id"):  # equal values
        (kline,) = results.candidates
    else:
        (kline,) = results.disputed
        assert [offer.status for offer in results.candidates] == [Status.UNCONFIRMED]
    assert kline.source is Source.KLINE
    assert getattr(kline.candle, name) == theirs
    assert one.equal_klines == 0


def test_rounded_quote_volume_does_not_count_as_a_difference(results: Results) -> None:
    one = aggregator(results, instrument=ROUNDED)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    kline = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US, quote_volume=Decimal("1.5"))
    one.on_kline(kline)
    assert results.differing == []
    assert results.stored()[T0].candle.quote_volume == Decimal("1.5")


def test_differing_candle_takes_the_klines_quote_volume_if_fills_are_rounded(
    results: Results,
) -> None:
    one = aggregator(results, instrument=ROUNDED)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    told = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US)
    body = structs.replace(
        told.body, volume=told.body.volume + 1, quote_volume=Decimal("1.23"),
        taker_buy_quote_volume=Decimal("0.5"),
    )  # fmt: skip
    one.on_kline(structs.replace(told, body=body))
    aggregated, kline = results.candidates[0].candle, results.disputed[0].candle
    assert aggregated.volume == told.body.volume
    assert aggregated == replace(kline, volume=aggregated.volume)
    assert results.differing == [["volume"]]


def test_later_right_kline_verifies_a_disputed_minute(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    true = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US)
    one.on_kline(structs.replace(true, body=structs.replace(true.body, volume=Decimal(999))))
    assert results.stored()[T0].candle == true.candle("BTCUSDT")
    assert results.stored()[T0].status is Status.UNCONFIRMED
    assert one.live_candles() == []
    one.on_kline(structs.replace(true, event_time=true.event_time + SECOND_US))
    assert results.stored()[T0].status is Status.VERIFIED
    assert results.stored()[T0].candle == true.candle("BTCUSDT")


def test_late_wrong_kline_is_disputed_too(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    true = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 9 * SECOND_US)
    one.on_kline(structs.replace(true, body=structs.replace(true.body, trade_count=1)))
    assert {offer.source for offer in results.candidates} == {Source.STREAM}
    assert len(results.disputed) == 1


@pytest.mark.parametrize("name", ["volume", "close"])
def test_wrong_kline_of_the_first_minute_is_disputed(results: Results, name: str) -> None:
    """No trade before shows that none is missing; the kline's ids do."""
    one = aggregator(results)
    one.connected(T0)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US, **{name: Decimal(77)}))
    assert results.differing == [[name]]
    assert [getattr(one.candle, name) for one in results.disputed] == [77]
    assert [candidate.source for candidate in results.candidates] == [Source.STREAM]


def test_kline_with_fewer_trades_than_ids_is_disputed(results: Results) -> None:
    trades = minute_trades(0, 1)
    wrong = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US, trade_count=len(trades) - 1)
    one = aggregator(results)
    one.on_kline(wrong)
    assert [disputed.candle.trade_count for disputed in results.disputed] == [len(trades) - 1]
    assert results.candidates == []
    um = aggregator(results, instrument=replace(INSTRUMENT, market=Market.UM))
    um.on_kline(wrong)  # its ids may skip
    assert [candidate.source for candidate in results.candidates] == [Source.KLINE]


def test_kline_decides_if_ids_prove_nothing(results: Results) -> None:
    """Trades are missing, or ids skip by design on USD-M."""
    trades = minute_trades(0, 1)
    true = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US)
    wrong = structs.replace(true, body=structs.replace(true.body, volume=true.body.volume + 1))
    um = replace(INSTRUMENT, market=Market.UM)
    for instrument, sent in ((um, trades), (INSTRUMENT, trades[1:])):
        one = aggregator(results, instrument=instrument)
        if instrument is um:
            begin(one)
        else:
            one.connected(T0)
        for each in sent:
            one.on_trade(each)
        one.on_kline(wrong)
        assert results.stored()[T0].candle.volume == wrong.body.volume
        assert results.disputed == []


def test_later_closed_kline_is_emitted_without_waiting_for_trades(
    results: Results,
) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
    more = [*trades, trade(trades[-1].id + 1, T0 + MINUTE_US - 1, price="50")]
    later = kline_of(more, T0, closed=True, at_us=T0 + MINUTE_US + SECOND_US)
    one.on_kline(later)  # and its last trade never comes
    assert results.stored()[T0].candle == later.candle("BTCUSDT")


def test_earlier_and_repeated_closed_klines_are_ignored(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    last = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + SECOND_US)
    one.on_kline(last)
    one.on_kline(kline_of(trades[:-1], T0, closed=True, at_us=T0 + MINUTE_US))
    one.on_kline(last)
    assert len(results.candidates) == one.equal_klines == 1
    assert results.differing == []
    assert one.minutes[T0].kline is last


def test_minute_without_kline_is_unconfirmed_and_requested(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    for each in minute_trades(0, 1):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE - 1)
    assert not one.live_candles()[0][1]
    one.on_clock(T0 + MINUTE_US + GRACE)
    assert one.live_candles()[0][1]  # closed and readable, not verified
    assert results.candidates == []
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.status for o in results.candidates] == [Status.UNCONFIRMED]
    assert results.requested == [(T0, "no closed kline")]
    assert results.resubscribed == 1


def test_late_kline_still_verifies(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 9 * SECOND_US))
    assert results.stored()[T0].status is Status.VERIFIED


def test_late_kline_counts_once_if_trades_are_later_or_missing(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1, count=50)
    for each in trades[:10]:
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    late = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 9 * SECOND_US)
    one.on_kline(late)
    assert results.stored()[T0].candle == late.candle("BTCUSDT")
    for each in trades[10:-1]:
        one.on_trade(each)
    assert [offer.source for offer in results.candidates] == [Source.STREAM, Source.KLINE]
    one.on_trade(trades[-1])
    assert results.differing == []


def test_minute_with_rounded_quote_volumes_waits_for_the_exchange(results: Results) -> None:
    one = aggregator(results, instrument=ROUNDED)
    begin(one)
    for each in minute_trades(0, 1):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert results.candidates == []
    assert results.requested == [(T0, "no closed kline")]


def test_silent_minute_is_stored_only_with_its_closed_kline(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_kline(kline_of([], T0, closed=True, at_us=T0 + MINUTE_US, previous="7"))
    one.on_clock(T0 + 2 * MINUTE_US + GRACE + TIMEOUT)
    (offer,) = results.candidates
    assert offer.candle.is_silent
    assert offer.candle.close == 7
    assert results.requested == [(T0 + MINUTE_US, "no frames received")]


def test_late_trade_revises_its_own_candle(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    for each in minute_trades(0, 1):
        one.on_trade(each)
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    one.on_trade(trade(7, T0 + MINUTE_US - 1, price="50"))
    assert results.stored()[T0].candle.high == 50
    assert results.stored()[T0].candle.trade_count == 7
    assert one.late_trades == 1
    one.on_trade(trade(8, T0 + MINUTE_US + 1))
    assert one.live_candles()[-1][0].trade_count == 1
    assert one.late_trades == 1


def test_minute_of_a_very_late_trade_is_requested(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    one.on_trade(trade(1, T0 + 1))
    for minutes in range(1, MINUTES_KEPT + 4):
        one.on_clock(T0 + minutes * MINUTE_US)
    results.requested.clear()
    one.on_trade(trade(2, T0 + 2))
    assert results.requested == [(T0, "late trade")]
    assert one.late_trades == 1


def test_trades_long_after_their_kline_change_nothing(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    one.on_trade(trades[0])
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
    one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
    assert [o.source for o in results.candidates] == [Source.KLINE]
    for each in trades[1:]:
        one.on_trade(each)
    assert results.differing == []
    assert {o.source for o in results.candidates} == {Source.KLINE}


def test_memory_stays_bounded_over_many_minutes(results: Results) -> None:
    one = aggregator(results)
    begin(one)
    for minute in range(500):
        one.on_trade(trade(minute + 1, T0 + minute * MINUTE_US + 1))
        one.on_clock(T0 + (minute + 1) * MINUTE_US)
    assert len(one.minutes) <= MINUTES_KEPT + 3


def test_verified_minute_is_in_memory_once_and_accepts_late_trades(results: Results) -> None:
    """Of 1,500 symbols, aggregated numbers beside the exchange's equal ones take megabytes."""
    one = aggregator(results)
    begin(one)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    kline = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US)
    one.on_kline(kline)
    builder = one.minutes[T0].builder
    assert builder is not None
    assert builder.open is kline.body.open
    assert builder.taker_buy_quote_volume is kline.body.taker_buy_quote_volume
    assert builder.candle() == kline.candle(one.symbol)
    late = trade(trades[-1].id + 1, T0 + MINUTE_US - 1)
    one.on_trade(late)
    assert builder.volume == kline.body.volume + late.quantity
