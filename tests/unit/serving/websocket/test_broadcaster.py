"""Many readers, each at its own pace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from include.domain.timeframes import MINUTE_US
from serving.websocket import broadcaster as module
from serving.websocket.broadcaster import CANDLES, PRICES, MessageFormat
from tests.unit.serving.http.readers import T0, Reader, listener, listening, until


async def test_reader_receives_its_symbols_and_each_change_is_encoded_once() -> None:
    encoded: list[str] = []

    def encode(update: Any) -> bytes:
        encoded.append(update.candle.symbol)
        return CANDLES.encode(update)

    async with listening(MessageFormat(encode, CANDLES.join)) as (changes, _, broadcaster):
        readers = [Reader() for _ in range(5)]
        for one in readers:
            await broadcaster.add(listener(one), ["A"])
        other = Reader()
        await broadcaster.add(listener(other), ["B"])
        changes.publish("A", 1)
        await until(lambda: all(one.closes() == ["1"] for one in readers))
        changes.publish("B", 2)
        await until(lambda: other.closes("B") == ["2"])
        assert encoded == ["A", "B"]
        assert not other.closes("A")


async def test_later_reader_starts_with_the_current_state() -> None:
    async with listening() as (changes, _, broadcaster):
        first, second = Reader(), Reader()
        await broadcaster.add(listener(first), ["A"])
        changes.publish("A", 1)
        await until(lambda: first.closes() == ["1"])
        await broadcaster.add(listener(second), ["A"])
        assert second.closes() == ["1"]
        assert first.closes() == ["1"]  # delivered once
        changes.publish("A", 2)
        await until(lambda: first.closes() == second.closes() == ["1", "2"])


async def test_slow_reader_gets_the_newest_state() -> None:
    async with listening() as (changes, _, broadcaster):
        slow, quick = Reader(), Reader()
        await broadcaster.add(listener(slow), ["A"])
        await broadcaster.add(listener(quick), ["A"])
        slow.is_open = False
        for close in range(1, 50):
            changes.publish("A", close)
            await until(lambda close=close: quick.closes()[-1:] == [str(close)])  # type: ignore[misc]
        slow.resume()
        assert slow.closes() == ["49"]
        changes.publish("A", 50)
        await until(lambda: slow.closes() == ["49", "50"])


async def test_reader_that_reads_nothing_for_long_is_disconnected(monkeypatch: Any) -> None:
    gone = asyncio.Event()
    async with listening() as (changes, _, broadcaster):
        reader = Reader()
        one = listener(reader, on_gone=gone.set, patience_s=0.01)
        await broadcaster.add(one, ["A"])
        reader.is_open = False
        changes.publish("A", 1)
        async with asyncio.timeout(10):
            await gone.wait()


async def test_waiting_bars_are_bounded_and_evicted_ones_reported(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MIN_BARS_WAITING", 10)
    monkeypatch.setattr(module, "BARS_PER_SYMBOL", 10)
    async with listening() as (changes, _, broadcaster):
        slow, quick = Reader(), Reader()
        one = listener(slow)
        await broadcaster.add(one, ["A"])
        await broadcaster.add(listener(quick), ["A"])
        slow.is_open = False
        for minute in range(40):
            changes.publish("A", minute, minute=minute)
        await until(lambda: quick.closes()[-1:] == ["39"])
        assert len(one.waiting) <= 10
        slow.resume()
        assert slow.closes() == [str(close) for close in range(30, 40)]
        assert slow.messages[-1] == {
            "type": "missed",
            "data": [
                {
                    "symbol": "A",
                    "timeframe": "1m",
                    "from": T0 // 1_000,
                    "to": (T0 + 30 * MINUTE_US) // 1_000,
                }
            ],
        }


async def test_missed_minutes_are_reported_to_their_readers() -> None:
    async with listening() as (changes, _, broadcaster):
        reader, other = Reader(), Reader()
        await broadcaster.add(listener(reader), ["A"])
        await broadcaster.add(listener(other), ["B"])
        changes.publish("A", 1, missed={"A": (T0 - MINUTE_US, T0)})
        await until(lambda: [one["type"] for one in reader.messages] == ["candles", "missed"])
        assert not other.messages


async def test_prices_never_go_back_to_an_older_minute() -> None:
    async with listening(PRICES) as (changes, _, broadcaster):
        reader = Reader()
        await broadcaster.add(listener(reader), ["A"])
        changes.publish("A", 5, minute=1)
        changes.publish("A", 4, minute=0)
        await until(lambda: reader.closes() == ["5"])
        changes.publish("A", 6, minute=1)
        await until(lambda: reader.closes() == ["5", "6"])


async def test_removed_reader_receives_nothing_and_the_last_one_ends_the_subscription() -> None:
    async with listening() as (changes, live_bars, broadcaster):
        leaving, staying = Reader(), Reader()
        one, two = listener(leaving), listener(staying)
        await broadcaster.add(one, ["A", "B"])
        await broadcaster.add(two, ["A"])
        broadcaster.remove(one, ["A"])
        changes.publish("A", 1)
        changes.publish("B", 2)
        await until(lambda: leaving.closes("B") == ["2"] and staying.closes() == ["1"])
        assert not leaving.closes("A")
        assert live_bars.subscribers == 1
        broadcaster.remove(one, ["B"])
        broadcaster.remove(two, ["A"])
        assert live_bars.subscribers == 0
        await broadcaster.add(two, ["A"])  # and again
        changes.publish("A", 3)
        await until(lambda: staying.closes()[-1:] == ["3"])


async def test_all_readers_end_with_the_source() -> None:
    ended: list[int] = []
    async with listening() as (changes, _, broadcaster):
        for number in range(3):
            one = listener(Reader(), on_end=lambda number=number: ended.append(number))
            await broadcaster.add(one, ["A", "B"])
        changes.queue.put_nowait(None)
        await until(lambda: len(ended) == 3)
    assert sorted(ended) == [0, 1, 2]


async def test_slow_reader_receives_the_number_of_conflated_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CONFLATED_INTERVAL_S", 1e9)
    async with listening() as (changes, _, broadcaster):
        slow, quick = Reader(), Reader()
        for reader in (slow, quick):
            await broadcaster.add(listener(reader), ["A"])
        slow.is_open = False
        for close in range(1, 6):
            changes.publish("A", close)
            await until(lambda close=close: quick.closes()[-1:] == [str(close)])  # type: ignore[misc]
        assert broadcaster.conflated == 4
        slow.resume()
        assert slow.closes() == ["5"]
        assert slow.messages[-1] == {"type": "conflated", "count": 4}
        slow.is_open = False
        for close in range(6, 9):
            changes.publish("A", close)
            await until(lambda close=close: quick.closes()[-1:] == [str(close)])  # type: ignore[misc]
        slow.resume()  # too soon for another report
        assert slow.closes() == ["5", "8"]
        assert slow.messages[-1]["type"] == "candles"
        slow.is_open = False
        changes.publish("A", 9)
        await until(lambda: quick.closes()[-1:] == ["9"])
        monkeypatch.setattr(module, "CONFLATED_INTERVAL_S", 0.0)
        slow.resume()
        assert slow.messages[-1] == {"type": "conflated", "count": 2}
        assert {one["type"] for one in quick.messages} == {"candles"}
