from __future__ import annotations

import asyncio
from dataclasses import replace

from include.domain.timeframes import MINUTE_US
from serving.sources.candle_mailbox import MAX_WAITING_PAST, CandleMailbox
from tests.unit.serving.sources.nats.test_minute_states import T0, closed, live


async def test_newest_state_of_a_minute_is_delivered_and_a_revision_stays_marked() -> None:
    mailbox = CandleMailbox()
    mailbox.publish(live(last_id=1))
    mailbox.publish(live(last_id=2))
    mailbox.publish(closed(index=1, revision=True))
    mailbox.publish(closed(index=1))
    batch = await mailbox.receive()
    assert batch is not None
    assert batch.updates == [live(last_id=2), closed(index=1, revision=True)]
    assert (mailbox.conflated, mailbox.waiting, batch.missed) == (2, 0, {})


async def test_evicted_minutes_are_reported_as_one_range() -> None:
    mailbox = CandleMailbox(max_waiting=2)
    for index in range(4):
        mailbox.publish(closed(index=index))
    batch = await mailbox.receive()
    assert batch is not None
    assert [one.candle.open_time_us for one in batch.updates] == [
        T0 + 2 * MINUTE_US,
        T0 + 3 * MINUTE_US,
    ]
    assert batch.missed == {"BTCUSDT": (T0, T0 + 2 * MINUTE_US)}


async def test_reads_of_the_past_wait_for_room() -> None:
    mailbox = CandleMailbox()
    for index in range(MAX_WAITING_PAST):
        mailbox.publish(replace(closed(), candle=replace(closed().candle, symbol=f"S{index}")))
    waiting = asyncio.create_task(mailbox.room_for_past())
    await asyncio.sleep(0)
    assert not waiting.done()
    batch = await mailbox.receive()
    assert batch is not None
    assert batch.is_cut
    await asyncio.wait_for(waiting, 5)


async def test_newest_list_of_streamed_symbols_wakes_the_reader_and_is_delivered_once() -> None:
    mailbox = CandleMailbox()
    reading = asyncio.create_task(mailbox.receive())
    await asyncio.sleep(0)
    mailbox.report_streamed(frozenset({"BTCUSDT"}))
    mailbox.report_streamed(frozenset())
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (batch.streamed, batch.updates) == (frozenset(), [])
    mailbox.publish(live())
    batch = await mailbox.receive()
    assert batch is not None
    assert batch.streamed is None


async def test_batches_are_incomplete_until_the_snapshot_has_ended() -> None:
    mailbox = CandleMailbox(has_snapshot=False)
    mailbox.publish(live())
    batch = await mailbox.receive()
    assert batch is not None
    assert batch.is_cut
    mailbox.end_snapshot()
    batch = await mailbox.receive()
    assert batch is not None
    assert (batch.updates, batch.is_cut) == ([], False)
