from __future__ import annotations

import asyncio
from dataclasses import replace

from include.domain.timeframes import MINUTE_US
from serving.sources.nats import news as module
from serving.sources.nats.news import News
from tests.unit.serving.sources.nats.test_states import T0, live, settled


async def test_of_each_minute_the_newest_state_is_told_and_a_revision_stays_one() -> None:
    news = News()
    news.put(live(last_id=1))
    news.put(live(last_id=2))
    news.put(settled(index=1, revision=True))
    news.put(settled(index=1))
    batch = await news.next()
    assert batch is not None
    assert batch.updates == [live(last_id=2), settled(index=1, revision=True)]
    assert (news.conflated, news.waiting, batch.missed) == (2, 0, {})


async def test_beyond_what_may_wait_the_first_is_missed() -> None:
    news = News(max_waiting=2)
    for index in range(4):
        news.put(settled(index=index))
    batch = await news.next()
    assert batch is not None
    assert [one.candle.open_time_us for one in batch.updates] == [
        T0 + 2 * MINUTE_US,
        T0 + 3 * MINUTE_US,
    ]
    assert batch.missed == {"BTCUSDT": (T0, T0 + 2 * MINUTE_US)}


async def test_what_is_missed_wakes_the_reader() -> None:
    news = News()
    reading = asyncio.create_task(news.next())
    await asyncio.sleep(0)
    news.miss("BTCUSDT", T0, T0 + MINUTE_US)
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert batch.missed == {"BTCUSDT": (T0, T0 + MINUTE_US)}


async def test_who_reads_the_past_waits_for_room() -> None:
    news = News()
    for index in range(module.ROOM):
        news.put(replace(settled(), candle=replace(settled().candle, symbol=f"S{index}")))
    waiting = asyncio.create_task(news.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    batch = await news.next()
    assert batch is not None
    assert batch.is_cut
    await asyncio.wait_for(waiting, 5)


async def test_who_leaves_gets_what_is_left_and_then_the_end() -> None:
    news = News()
    news.put(live())
    news.leave()
    assert await news.next() is not None
    assert await news.next() is None


async def test_which_symbols_are_streamed_wakes_the_reader_and_is_told_once() -> None:
    news = News()
    reading = asyncio.create_task(news.next())
    await asyncio.sleep(0)
    news.list(frozenset({"BTCUSDT"}))
    news.list(frozenset())
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (batch.streamed, batch.updates) == (frozenset(), [])
    news.put(live())
    batch = await news.next()
    assert batch is not None
    assert batch.streamed is None
