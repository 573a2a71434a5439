"""Which changes of candles the hub publishes to which readers."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from include.domain.candles import Status
from include.domain.timeframes import MINUTE_US
from streamer.hub.hub import CLOSED_MINUTES, MINUTES_PER_SYMBOL, Hub
from tests.unit.streamer.played_exchange import (
    ROUNDED,
    T0,
    kline_of,
    minute_trades,
    trade,
)
from tests.unit.streamer.played_hub import OTHER, HubEvents, listed, rest_candidate, turn


async def test_changes_are_not_tracked_without_subscribers(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    one.on_trade(trade(1, T0 + 1))
    assert one.on_change is None
    with hub.subscribe(["XRPUSDT"]):
        assert one.on_change is None
        with hub.subscribe(["BTCUSDT"]), hub.subscribe():
            assert one.on_change is not None
        assert one.on_change is None
    assert hub.subscribers == 0


async def test_reader_waits_until_a_trade_changes_a_candle(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    with hub.subscribe() as subscription:
        reading = asyncio.create_task(subscription.receive())
        await turn()
        assert not reading.done()
        one.on_trade(trade(1, T0 + 1, price="12.5", quantity="3"))
        batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert batch.missed == {}
    (update,) = batch.updates
    assert update.candle == one.live_candles()[0][0]
    assert update.candle.quote_volume == Decimal("37.5")
    assert (update.is_closed, update.status, update.is_revision) == (False, None, False)


async def test_repair_older_than_memory_may_be_a_revision(hub: Hub, hub_events: HubEvents) -> None:
    listed(hub, hub_events)
    with hub.subscribe() as subscription:
        hub.publish_closed(rest_candidate(minute_trades(50, 1), 50))
        hub.publish_closed(
            rest_candidate(minute_trades(49 - CLOSED_MINUTES, 1), 49 - CLOSED_MINUTES)
        )
        hub.publish_closed(
            rest_candidate(minute_trades(51 - CLOSED_MINUTES, 1), 51 - CLOSED_MINUTES)
        )
        assert [update.is_revision for update in subscription.drain().updates] == [
            False,
            True,
            False,
        ]


async def test_subscription_starts_with_the_candles_in_memory(
    hub: Hub, hub_events: HubEvents
) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
    one.on_trade(trade(7, T0 + MINUTE_US + 1))
    with hub.subscribe() as subscription:
        closed, open_ = subscription.drain().updates
    assert (closed.candle.open_time_us, closed.status) == (T0, Status.VERIFIED)
    assert (open_.candle.open_time_us, open_.status) == (T0 + MINUTE_US, None)


async def test_reader_receives_only_its_symbols(hub: Hub, hub_events: HubEvents) -> None:
    btc, xrp = (
        *listed(hub, hub_events),
        *listed(hub, hub_events, OTHER),
    )
    with hub.subscribe(["XRPUSDT"]) as some, hub.subscribe() as everything:
        btc.on_trade(trade(1, T0 + 1))
        xrp.on_trade(trade(1, T0 + 1))
        await turn()
        assert [update.candle.symbol for update in some.drain().updates] == ["XRPUSDT"]
        told = {update.candle.symbol for update in everything.drain().updates}
        assert told == {"BTCUSDT", "XRPUSDT"}


async def test_reader_receives_added_symbols_and_the_last_state_of_removed_ones(
    hub: Hub, hub_events: HubEvents
) -> None:
    with hub.subscribe(["BTCUSDT"]) as one_symbol, hub.subscribe() as everything:
        (one,) = listed(hub, hub_events)
        one.on_trade(trade(1, T0 + 1))
        await turn()
        hub.remove("BTCUSDT")
        one.on_trade(trade(2, T0 + 2))
        for subscription in (one_symbol, everything):
            (update,) = subscription.drain().updates
            assert update.candle.symbol == "BTCUSDT"
        hub.publish_closed(rest_candidate(minute_trades(0, 1), 0))
        await turn()
        assert not everything.drain()


async def test_waiting_updates_are_bounded_per_symbol(hub: Hub, hub_events: HubEvents) -> None:
    listed(hub, hub_events)
    listed(hub, hub_events, OTHER)
    with hub.subscribe() as subscription:
        for minute in range(100):
            hub.publish_closed(rest_candidate(minute_trades(minute, 1), minute))
        assert subscription.waiting == 2 * MINUTES_PER_SYMBOL
        missed = subscription.drain().missed
        assert missed == {"BTCUSDT": (T0, T0 + 80 * MINUTE_US)}


@pytest.mark.parametrize("ends", [Hub.close, None])
async def test_remaining_updates_are_delivered_before_the_end(
    hub: Hub, hub_events: HubEvents, ends: object
) -> None:
    (one,) = listed(hub, hub_events)
    subscription = hub.subscribe()
    one.on_trade(trade(1, T0 + 1))
    if ends is None:
        await turn()
        subscription.unsubscribe()
        subscription.unsubscribe()
    else:
        hub.close()
    updates = []
    async with asyncio.timeout(30):
        async for batch in subscription:
            updates += batch.updates
    assert [update.candle.trade_count for update in updates] == [1]
    assert await hub_end(hub) if ends is not None else True


async def hub_end(hub: Hub) -> bool:
    """Whether a late subscriber receives the present states and then the end."""
    subscription = hub.subscribe()
    assert await subscription.receive() is not None
    return await subscription.receive() is None


async def test_newest_minute_is_available_on_request(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    assert hub.newest("BTCUSDT") is None
    assert hub.newest("NONE") is None
    hub.publish_closed(rest_candidate(minute_trades(0, 1), 0))
    closed = hub.newest("BTCUSDT")
    assert closed is not None
    one.on_trade(trade(9, T0 + MINUTE_US + 1, price="12.5"))
    newest = hub.newest("BTCUSDT")
    assert newest is not None
    assert (newest.candle.open_time_us, newest.candle.close) == (T0 + MINUTE_US, Decimal("12.5"))
    assert (newest.is_closed, newest.status) == (False, None)
    assert (closed.candle.open_time_us, closed.status) == (T0, Status.VERIFIED)


async def test_closed_kline_is_newer_than_the_last_open_one(
    hub: Hub, hub_events: HubEvents
) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    one.on_kline(kline_of(trades[:3], T0, closed=False, at_us=T0 + MINUTE_US // 2))
    before = hub.newest("BTCUSDT")
    assert before is not None
    assert before.candle.last_trade_id == 3
    closed = kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US)
    one.on_kline(closed)
    newest = hub.newest("BTCUSDT")
    assert newest is not None
    assert newest.candle == closed.candle("BTCUSDT")
    assert one.minutes[T0].frame is None  # which would be kept for minutes


async def test_each_closed_candle_is_reported_once(hub: Hub, hub_events: HubEvents) -> None:
    listed(hub, hub_events)
    told: list[int] = []
    hub.on_closed = lambda update: told.append(update.candle.open_time_us)
    for _ in range(2):
        hub.publish_closed(rest_candidate(minute_trades(3, 1), 3))
    assert told == [T0 + 3 * MINUTE_US]


async def test_subscriber_can_receive_the_streamed_symbols(hub: Hub, hub_events: HubEvents) -> None:
    listed(hub, hub_events)
    with (
        hub.subscribe(reports_streamed=True) as every,
        hub.subscribe(["ETHUSDT"], reports_streamed=True) as some,
        hub.subscribe() as plain,
    ):
        assert every.drain().streamed == {"BTCUSDT"}
        assert some.drain().streamed == frozenset()
        assert not every.drain()
        reading = asyncio.create_task(every.receive())
        await turn()
        listed(hub, hub_events, OTHER)
        batch = await asyncio.wait_for(reading, 5)
        assert batch is not None
        assert batch.streamed == {"BTCUSDT", OTHER.symbol}
        hub.remove("BTCUSDT")
        assert every.drain().streamed == {OTHER.symbol}
        assert not plain.drain()


async def test_forgotten_closed_minute_is_not_published_as_open(
    hub: Hub, hub_events: HubEvents
) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    for each in trades:
        one.on_trade(each)
    with hub.subscribe() as subscription:
        one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
        await turn()
        assert [update.status for update in subscription.drain().updates] == [Status.VERIFIED]
        for number in range(1, CLOSED_MINUTES + 2):  # klines that come before the clock moves on
            hub.publish_closed(rest_candidate(minute_trades(number, 1), number))
        subscription.drain()
        one.disconnected()
        one.on_trade(trade(900, T0 + 9 * MINUTE_US))  # skips ids: no minute is whole
        await turn()
        opened = [update.candle.open_time_us for update in subscription.drain().updates]
        assert T0 not in opened
    with hub.subscribe() as subscription:
        opened = [one.candle.open_time_us for one in subscription.drain().updates]
        assert T0 not in opened


async def test_quotes_that_cannot_be_aggregated_are_marked(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events, ROUNDED)
    with hub.subscribe() as subscription:
        one.on_trade(trade(1, T0 + 1))
        await turn()
        newest = hub.newest(ROUNDED.symbol)
        assert newest is not None
        assert not newest.has_quotes
        hub.remove(ROUNDED.symbol)
        (update,) = subscription.drain().updates  # waited in the mailbox
        assert not update.has_quotes
