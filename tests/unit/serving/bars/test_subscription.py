"""Bar changes that a reader receives."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from include.domain.candles import Candle, Source, Status, silent_candle
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, Timeframe
from serving.bars.subscription import MIN_CAPACITY, BarSubscription, BarUpdate, MissedBars
from streamer.hub.subscription import CandleUpdate

T0 = 1_800_000_000_000_000 // MINUTE_US * MINUTE_US
FIVE = TIMEFRAMES["5m"]
MINUTE = TIMEFRAMES["1m"]


def candle(open_time_us: int = T0, close: str = "10") -> Candle:
    return silent_candle("BTCUSDT", open_time_us, Decimal(close))


class Bars:
    """The bars as they stand."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, int], BarUpdate] = {}

    def __call__(self, symbol: str, timeframe: Timeframe, open_time_us: int) -> BarUpdate | None:
        return self.now.get((timeframe.name, open_time_us))


def subscription_of(
    *timeframes: Timeframe, bars: Bars | None = None, closed_only: bool = False
) -> tuple[BarSubscription, list[BarSubscription]]:
    left: list[BarSubscription] = []
    subscription = BarSubscription(
        frozenset({"BTCUSDT"}),
        timeframes,
        closed_only=closed_only,
        bar=bars or Bars(),
        count_symbols=lambda: 1,
        on_unsubscribe=left.append,
    )
    return subscription, left


def test_states_of_a_minute_are_conflated_and_a_revision_stays_a_revision() -> None:
    subscription, _ = subscription_of(MINUTE)
    subscription.enqueue_minute(CandleUpdate(candle(), is_closed=True, is_revision=True))
    subscription.enqueue_minute(
        CandleUpdate(
            candle(close="11"), is_closed=True, status=Status.VERIFIED, source=Source.KLINE
        )
    )
    (told,) = subscription.drain().updates
    assert told == BarUpdate(
        "1m",
        candle(close="11"),
        is_closed=True,
        status=Status.VERIFIED,
        source=Source.KLINE,
        is_revision=True,
    )
    assert subscription.conflated == 1
    assert not subscription.drain()


def test_bar_is_delivered_once_in_its_current_state() -> None:
    bars = Bars()
    subscription, _ = subscription_of(FIVE, bars=bars)
    open_time_us = FIVE.open_time_us(T0)
    subscription.mark_bars("BTCUSDT", T0)
    bars.now["5m", open_time_us] = first = BarUpdate("5m", candle(open_time_us))
    assert subscription.drain().updates == [first]
    subscription.mark_bars("BTCUSDT", T0 + MINUTE_US)
    assert not subscription.drain()  # nothing about it is new


def test_closed_bar_with_other_values_is_a_revision() -> None:
    bars = Bars()
    subscription, _ = subscription_of(FIVE, bars=bars)
    open_time_us = FIVE.open_time_us(T0)
    for close, is_closed, is_revision in (
        ("10", False, False),
        ("11", True, False),
        ("12", True, True),
    ):
        bars.now["5m", open_time_us] = BarUpdate(
            "5m", candle(open_time_us, close), is_closed=is_closed
        )
        subscription.mark_bars("BTCUSDT", T0)
        (told,) = subscription.drain().updates
        assert (told.candle.close, told.is_revision) == (Decimal(close), is_revision)


def test_closed_bar_older_than_memory_may_be_a_revision() -> None:
    bars = Bars()
    subscription, _ = subscription_of(FIVE, bars=bars)
    first = FIVE.open_time_us(T0)
    for index, close, is_revision in (
        (0, "10", False),
        (1, "10", False),
        (2, "10", False),
        (0, "11", True),
        (-1, "10", True),
        (1, "12", True),
        (3, "10", False),
    ):
        open_time_us = first + index * 5 * MINUTE_US
        bars.now["5m", open_time_us] = BarUpdate("5m", candle(open_time_us, close), is_closed=True)
        subscription.mark_bars("BTCUSDT", open_time_us)
        (told,) = subscription.drain().updates
        assert (told.candle.close, told.is_revision) == (Decimal(close), is_revision)


def test_changed_hour_marks_the_bars_that_contain_it() -> None:
    subscription, _ = subscription_of(MINUTE, FIVE, TIMEFRAMES["1h"], TIMEFRAMES["1M"])
    subscription.mark_bars_of_hour("BTCUSDT", T0)
    assert {name for _, name, _ in subscription._items} == {"1h", "1M"}


def test_closed_only_omits_open_bars() -> None:
    bars = Bars()
    subscription, _ = subscription_of(MINUTE, FIVE, bars=bars, closed_only=True)
    open_time_us = FIVE.open_time_us(T0)
    bars.now["5m", open_time_us] = BarUpdate("5m", candle(open_time_us))
    subscription.enqueue_minute(CandleUpdate(candle(), is_closed=False))
    subscription.mark_bars("BTCUSDT", T0)
    assert not subscription.drain()
    bars.now["5m", open_time_us] = BarUpdate("5m", candle(open_time_us), is_closed=True)
    subscription.enqueue_minute(CandleUpdate(candle(), is_closed=True))
    subscription.mark_bars("BTCUSDT", T0)
    assert [one.timeframe for one in subscription.drain().updates] == ["1m", "5m"]


def test_waiting_bars_are_bounded_and_evicted_ones_reported() -> None:
    subscription, _ = subscription_of(MINUTE)
    for index in range(MIN_CAPACITY + 3):
        subscription.enqueue_minute(CandleUpdate(candle(T0 + index * MINUTE_US), is_closed=True))
    assert subscription.waiting == MIN_CAPACITY
    found = subscription.drain(10)
    assert found.missed == [MissedBars("BTCUSDT", "1m", T0, T0 + 3 * MINUTE_US)]
    assert found.updates[0].candle.open_time_us == T0 + 3 * MINUTE_US


def test_missed_minutes_are_reported_to_subscribers_of_minutes() -> None:
    minutes, _ = subscription_of(MINUTE)
    coarse, _ = subscription_of(FIVE)
    for one in (minutes, coarse):
        one.report_missed_minutes("BTCUSDT", T0, T0 + MINUTE_US)
        one.report_missed_minutes("ETHUSDT", T0, T0 + MINUTE_US)
    assert minutes.drain().missed == [MissedBars("BTCUSDT", "1m", T0, T0 + MINUTE_US)]
    assert not coarse.drain()


async def test_waiting_reader_gets_remaining_bars_before_the_end() -> None:
    subscription, left = subscription_of(MINUTE)
    waiting = asyncio.create_task(subscription.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    subscription.enqueue_minute(CandleUpdate(candle(), is_closed=True))
    bars = await waiting
    assert bars is not None
    assert len(bars.updates) == 1
    subscription.enqueue_minute(CandleUpdate(candle(T0 + MINUTE_US), is_closed=True))
    with subscription:
        pass
    assert left == [subscription]
    bars = await subscription.receive()
    assert bars is not None
    assert len(bars.updates) == 1
    assert await subscription.receive() is None


async def test_marks_without_a_change_do_not_wake_the_reader() -> None:
    subscription, _ = subscription_of(FIVE)
    subscription.mark_bars("BTCUSDT", T0)  # the bar is not in memory
    waiting = asyncio.create_task(subscription.receive())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    subscription.close()
    assert await waiting is None
