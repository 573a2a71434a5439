"""The board over symbols that are dropped, taken up again, and begun with."""

from __future__ import annotations

from include.domain.live_bars import BarPart
from include.domain.timeframes import HOUR_US, MINUTE_US
from serving.bars.live_bars import Parts
from tests.unit.serving.bars.test_live_bars import (
    HOUR,
    MINUTE,
    MONTH,
    T0,
    candle,
    running,
    traded,
    until,
    update,
)
from tests.unit.serving.bars.test_live_bars import _next as following


async def test_bars_restart_when_a_dropped_ticker_is_reused() -> None:
    def read(_symbol: str, _newest_us: int) -> Parts:
        hour = BarPart(candle(HOUR.open_time_us(T0) - 2 * HOUR_US, close="99"), 60)
        return [candle(T0 - 9 * MINUTE_US, close="99")], [hour], []

    async with running(read, is_always_on=True) as (live_bars, played):
        played.publish(traded(0, 50_000, close="99"), streamed={"BTCUSDT"})
        await until(lambda: live_bars.knows("BTCUSDT"))
        played.publish(streamed=set())
        await until(lambda: not live_bars.knows("BTCUSDT"))
        played.publish(traded(9, 7, close="3"), streamed={"BTCUSDT"})
        await until(lambda: live_bars.knows("BTCUSDT"))
        assert live_bars.since_us("BTCUSDT") == T0 + 9 * MINUTE_US
        with live_bars.subscribe(["BTCUSDT"], [HOUR, MONTH]) as subscription:
            await until(lambda: subscription.waiting > 0)
            bars = subscription.drain().updates
            assert {one.timeframe: one.minute_count for one in bars} == {"1h": 1, "1M": 1}
            assert {one.candle.high for one in bars} == {3}


async def test_snapshot_is_complete_with_its_last_batch() -> None:
    async with running() as (live_bars, played):
        with (
            live_bars.subscribe(["BTCUSDT"], [MINUTE], reports_streamed=True) as subscription,
            live_bars.subscribe(["ETHUSDT"], [MINUTE], reports_streamed=True) as other,
        ):
            names = {"BTCUSDT", "ETHUSDT"}
            played.publish(update(0), streamed=names, is_cut=True)
            assert (await following(subscription)).updates
            assert (await following(other)).streamed
            assert not live_bars.is_snapshot_complete(subscription)
            assert not live_bars.is_snapshot_complete(other)
            played.publish(update(0, symbol="ETHUSDT"))
            assert not await following(subscription)  # nothing of it, but it wants to know
            assert live_bars.is_snapshot_complete(subscription)
            assert (await following(other)).updates
            assert live_bars.is_snapshot_complete(other)
            played.publish(update(1), is_cut=True)
            assert (await following(subscription)).updates
            assert live_bars.is_snapshot_complete(
                subscription
            )  # a backlog later on is no beginning
        played.publish(update(2))
        await until(lambda: played.listeners == 0)
        with live_bars.subscribe(["BTCUSDT"], [MINUTE], reports_streamed=True) as late:
            assert not live_bars.is_snapshot_complete(late)


async def test_callbacks_receive_dropped_and_added_symbols() -> None:
    told: list[tuple[set[str], set[str]]] = []
    async with running(is_always_on=True) as (live_bars, played):
        live_bars.on_streamed_changed.add(
            lambda dropped, taken_up: told.append((set(dropped), set(taken_up)))
        )
        for names in ({"BTCUSDT"}, {"BTCUSDT"}, {"ETHUSDT"}, set[str]()):
            played.publish(streamed=names)
        await until(lambda: len(told) == 2)
        assert told == [({"BTCUSDT"}, {"ETHUSDT"}), ({"ETHUSDT"}, set())]


async def test_waiting_bars_of_a_dropped_symbol_are_delivered() -> None:
    async with running() as (live_bars, played):
        with live_bars.subscribe(None, [MINUTE, HOUR]) as subscription:
            names = {"BTCUSDT", "ETHUSDT"}
            played.publish(update(0), update(0, symbol="ETHUSDT"), streamed=names)
            told = []
            while len(told) < 4:
                told += (await following(subscription)).updates
            played.publish(update(1, close="11"))
            await until(lambda: subscription.waiting == 2)
            played.publish(streamed={"ETHUSDT"})
            await until(lambda: not live_bars.knows("BTCUSDT"))
            last = {one.timeframe: one for one in subscription.drain().updates}
            assert last.keys() == {"1m", "1h"}
            assert (last["1h"].minute_count, last["1h"].candle.close) == (2, 11)
            assert not subscription.drain()
