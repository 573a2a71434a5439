"""The states of a candle that a reader receives, at any pace."""

from __future__ import annotations

import asyncio
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.binance.streams.messages import AggTrade
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.merge import merge
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.candles.aggregation import SymbolAggregator
from streamer.hub.hub import Hub
from streamer.hub.subscription import CandleUpdate, Subscription
from tests.unit.streamer.played_exchange import (
    GRACE,
    ROUNDED,
    T0,
    TIMEOUT,
    kline_of,
    minute_trades,
    trade,
)
from tests.unit.streamer.played_hub import HubEvents, listed, rest_candidate, turn


async def test_trades_of_one_turn_are_one_update_with_all_of_them(
    hub: Hub, hub_events: HubEvents
) -> None:
    (one,) = listed(hub, hub_events)
    with hub.subscribe() as subscription:
        for number in range(1, 51):
            one.on_trade(trade(number, T0 + number))
        await turn()
        (update,) = subscription.drain().updates
        assert (update.candle.trade_count, update.candle.last_trade_id) == (50, 50)
        one.on_trade(trade(51, T0 + 51))
        assert subscription.drain().updates == []  # known in the next turn
        await turn()
        assert subscription.drain().updates[0].candle.last_trade_id == 51


async def test_slow_reader_gets_the_newest_state_of_each_minute(
    hub: Hub, hub_events: HubEvents
) -> None:
    """The closed candle is not lost to the open one of the next minute."""
    (one,) = listed(hub, hub_events)
    first, second = minute_trades(0, 1), minute_trades(1, 7)
    with hub.subscribe() as subscription:
        for each in [*first, *second]:
            one.on_trade(each)
            await turn()
        one.on_clock(T0 + MINUTE_US + GRACE)
        await turn()
        closed, open_ = subscription.drain().updates
    assert closed.candle.open_time_us == T0
    assert closed.is_closed
    assert closed.status is None
    assert closed.candle.trade_count == open_.candle.trade_count == 6
    assert not open_.is_closed
    assert hub.counts.conflated >= 10
    assert hub.counts.delivered == 2


async def test_closed_kline_closes_the_candle(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    with hub.subscribe() as subscription:
        for each in trades:
            one.on_trade(each)
        one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 5))
        await turn()
        (update,) = subscription.drain().updates
        await turn()
        assert not subscription.drain(), "told once"
    assert (update.status, update.source) == (Status.VERIFIED, Source.KLINE)
    assert update.is_closed
    assert not update.is_revision
    assert update.candle == hub_events.candidates[0].candle


async def test_better_evidence_for_the_same_values_is_an_update_but_no_revision(
    hub: Hub, hub_events: HubEvents
) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    with hub.subscribe() as subscription:
        for each in trades:
            one.on_trade(each)
        one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
        assert [update.status for update in subscription.drain().updates] == [Status.UNCONFIRMED]
        hub.publish_closed(rest_candidate(trades, 0))
        (update,) = subscription.drain().updates
        assert (update.status, update.source) == (Status.VERIFIED, Source.REST)
        assert not update.is_revision
        await turn()
        assert not subscription.drain()


async def test_changed_values_are_a_revision_only_for_readers_of_the_first(
    hub: Hub, hub_events: HubEvents
) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    prompt, slow = hub.subscribe(), hub.subscribe()
    one.on_kline(kline_of(trades[:4], T0, closed=True, at_us=T0 + MINUTE_US))
    assert not prompt.drain().updates[0].is_revision
    hub.publish_closed(rest_candidate(trades, 0))
    later = hub.subscribe()
    updates = [each.drain().updates for each in (prompt, slow, later)]
    assert [[update.is_revision for update in some] for some in updates] == [
        [True],
        [False],
        [False],
    ]
    assert {update.candle.trade_count for some in updates for update in some} == {6}


async def test_waiting_revision_stays_a_revision(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    with hub.subscribe() as subscription:
        one.on_kline(kline_of(trades[:4], T0, closed=True, at_us=T0 + MINUTE_US))
        subscription.drain()
        one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US + 5))
        hub.publish_closed(rest_candidate(trades, 0))
        (update,) = subscription.drain().updates
    assert update.is_revision
    assert update.source is Source.REST


async def test_lower_ranked_candidate_is_not_delivered(hub: Hub, hub_events: HubEvents) -> None:
    listed(hub, hub_events)
    trades = minute_trades(0, 1)
    aggregated = CandleCandidate(
        rest_candidate(trades[:3], 0).candle, Status.UNCONFIRMED, Source.STREAM
    )
    with hub.subscribe() as subscription:
        hub.publish_closed(rest_candidate(trades, 0))
        subscription.drain()
        hub.publish_closed(aggregated)
        hub.publish_closed(rest_candidate(trades, 0))
        assert not subscription.drain()


async def test_late_trade_does_not_reopen_a_closed_candle(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1)
    with hub.subscribe() as subscription:
        one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + MINUTE_US))
        one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
        subscription.drain()
        for each in trades:
            one.on_trade(each)
        await turn()
        assert not subscription.drain()


async def test_update_has_no_quote_volume_until_the_exchange_sends_it(
    hub: Hub, hub_events: HubEvents
) -> None:
    (one,) = listed(hub, hub_events, ROUNDED)
    trades = minute_trades(0, 1)
    with hub.subscribe(["ETHBTC"]) as subscription:
        for each in trades:
            one.on_trade(each)
        one.on_clock(T0 + MINUTE_US + GRACE + TIMEOUT)
        await turn()
        (update,) = subscription.drain().updates
        assert (update.is_closed, update.status, update.has_quotes) == (True, None, False)
        one.on_kline(kline_of(trades, T0, closed=True, at_us=T0 + 2 * MINUTE_US))
        (update,) = subscription.drain().updates
        assert (update.status, update.has_quotes) == (Status.VERIFIED, True)


async def test_states_do_not_go_back_after_a_disconnect(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    trades = minute_trades(0, 1, count=20)
    with hub.subscribe() as subscription:
        for each in trades[:10]:
            one.on_trade(each)
        await turn()
        assert subscription.drain().updates[0].candle.trade_count == 10
        one.disconnected()
        one.connected(trades[12].trade_time)
        one.on_trade(trades[13])  # three are missing
        for last in (7, 12):  # the first frame is older than what was folded
            one.on_kline(kline_of(trades[:last], T0, closed=False, at_us=trades[last].trade_time))
            await turn()
            counts = [update.candle.trade_count for update in subscription.drain().updates]
            assert counts == ([] if last == 7 else [12])


async def test_evicted_minutes_are_reported(hub: Hub, hub_events: HubEvents) -> None:
    (one,) = listed(hub, hub_events)
    with hub.subscribe(max_waiting=3) as subscription:
        for minute in range(8):
            one.on_kline(
                kline_of(minute_trades(minute, 1 + 6 * minute), T0 + minute * MINUTE_US,
                         closed=True, at_us=T0 + (minute + 1) * MINUTE_US)
            )  # fmt: skip
        assert subscription.waiting == 3
        batch = subscription.drain()
        assert batch.missed == {"BTCUSDT": (T0, T0 + 5 * MINUTE_US)}
        minutes = [(update.candle.open_time_us - T0) // MINUTE_US for update in batch.updates]
        assert minutes == [5, 6, 7]
        assert hub.counts.missed == 5
        assert not subscription.drain(), "told once"


async def test_long_backlog_is_delivered_in_parts_while_other_tasks_run(
    hub: Hub, hub_events: HubEvents
) -> None:
    listed(hub, hub_events)
    with hub.subscribe(max_waiting=100) as subscription:
        for minute in range(25):
            hub.publish_closed(rest_candidate(minute_trades(minute, 1), minute))
        others = []
        told: list[CandleUpdate] = []
        while subscription.waiting:
            asyncio.get_running_loop().call_soon(others.append, len(told))
            batch = await subscription.receive(10)
            assert batch is not None
            told += batch.updates
            assert batch.is_cut == (len(told) < 25)
        assert len(told) == 25
        assert others == [0, 10, 20]


def final_of(hub_events: HubEvents, one: SymbolAggregator) -> dict[int, Candle]:
    """The last state of every minute: what the merge keeps, else what is shown live."""
    shown = {candle.open_time_us: candle for candle, _ in one.live_candles()}
    for open_time_us in {offer.candle.open_time_us for offer in hub_events.candidates}:
        offers = [
            each for each in hub_events.candidates if each.candle.open_time_us == open_time_us
        ]
        shown[open_time_us] = merge(offers).candle
    return shown


def last_id(candle: Candle) -> int:
    return -1 if candle.last_trade_id is None else candle.last_trade_id


class Reader:
    """Remembers the last state of every minute, and that none goes back."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.last: dict[int, CandleUpdate] = {}
        self.missed: set[int] = set()

    def read(self, most: int) -> None:
        batch = self.subscription.drain(most)
        for update in batch.updates:
            before = self.last.get(update.candle.open_time_us)
            if before is not None and before.status is not None:
                assert update.status is not None, "a closed candle is not opened again"
                assert update.is_revision == (before.candle.values != update.candle.values)
            self.last[update.candle.open_time_us] = update
        for start_us, end_us in batch.missed.values():
            self.missed |= set(range(start_us, end_us, MINUTE_US))


@settings(max_examples=150)
@example(seed=184611837, pace=1.0, max_waiting=None)  # trades are missing at the end
@given(seed=st.integers(0, 2**32), pace=st.floats(0, 1), max_waiting=st.sampled_from([None, 2]))
async def test_last_delivered_state_is_final_at_any_reading_pace(
    seed: int, pace: float, max_waiting: int | None
) -> None:
    """Trades, some late or lost, klines, some lost, cuts and repairs; a reader that sleeps."""
    draw = random.Random(seed)
    hub = Hub()
    hub_events = HubEvents(hub)
    (one,) = listed(hub, hub_events)
    reader = Reader(hub.subscribe(max_waiting=max_waiting))
    trades = [each for minute in range(6) for each in minute_trades(minute, 1 + 6 * minute)]
    frames: list[tuple[int, object]] = []
    for each in trades:
        late_us = draw.choice([0, 0, 0, 3, 70]) * SECOND_US
        if draw.random() > 0.05:
            frames.append((each.trade_time + late_us, each))
    for minute in range(6):
        open_us = T0 + minute * MINUTE_US
        for at_s in (20, 40, 62):
            at_us = open_us + at_s * SECOND_US
            if draw.random() > 0.2:
                known = [each for each in trades if each.trade_time < at_us]
                kline = kline_of(known, open_us, closed=at_s > 60, at_us=at_us)
                frames.append((at_us, kline))
        if draw.random() < 0.3:
            frames.append((open_us + 100 * SECOND_US, rest_candidate(trades, minute)))
    if draw.random() < 0.5:
        frames.append((T0 + draw.randrange(6 * 60) * SECOND_US, "cut"))
    for at_us, frame in sorted(frames, key=lambda pair: pair[0]):
        if isinstance(frame, AggTrade):
            one.on_trade(frame)
        elif isinstance(frame, CandleCandidate):
            hub_events.candle_closed(frame)
        elif frame == "cut":
            one.disconnected()
            one.connected(at_us)
        else:
            one.on_kline(frame)  # type: ignore[arg-type]
        one.on_clock(at_us)
        if draw.random() < 0.7:
            await turn()
        if draw.random() < pace:
            reader.read(draw.choice([1, 2, 100]))
    await turn()
    while reader.subscription.waiting:
        reader.read(100)
    reader.read(100)
    final = final_of(hub_events, one)
    assert final
    for open_time_us, candle in final.items():
        if open_time_us in reader.missed:
            continue
        last = reader.last[open_time_us]
        if last.status is None and not last.is_closed and last_id(last.candle) > last_id(candle):
            continue  # after missing trades the table may have an older state
        assert last.candle.values == candle.values
    assert max_waiting or not reader.missed
