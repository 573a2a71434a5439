from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from streamer.hub.mailbox import Mailbox, TimeRange

Key = tuple[str, int]


class Box(Mailbox[Key, int, str, TimeRange]):
    """Items of a symbol's seconds."""

    def __init__(self, capacity: int | None = None) -> None:
        self.left: list[Box] = []
        super().__init__(
            None if capacity is None else lambda: capacity, on_unsubscribe=self.left.append
        )

    def _missed_by_eviction(self, key: Key, item: int) -> tuple[str, TimeRange]:
        symbol, second = key
        return symbol, TimeRange(second, second + 1)


async def test_newer_item_replaces_the_waiting_one_in_its_place() -> None:
    box = Box()
    for key, item in ((("A", 0), 1), (("B", 0), 2), (("A", 0), 3)):
        box.enqueue(key, item)
    assert (box.waiting, box.conflated) == (2, 1)
    assert box.take(10) == [(("A", 0), 3), (("B", 0), 2)]
    assert box.take(10) == []


async def test_full_mailbox_evicts_the_oldest_key_and_reports_one_range_a_topic() -> None:
    box = Box(capacity=2)
    for second in range(4):
        box.enqueue(("A", second), second)
    box.enqueue(("A", 3), 30)  # replaces, so nothing is evicted
    assert (box.evicted, box.conflated) == (2, 1)
    assert box.take_missed() == {"A": (0, 2)}
    assert box.take_missed() == {}
    assert box.take(10) == [(("A", 2), 2), (("A", 3), 30)]


async def test_missed_ranges_of_a_topic_become_one() -> None:
    box = Box()
    box.report_missed("A", TimeRange(5, 6))
    box.report_missed("B", TimeRange(1, 2))
    box.report_missed("A", TimeRange(1, 3))
    assert await box.ready()
    assert box.take_missed() == {"A": (1, 6), "B": (1, 2)}


async def test_subscriber_wakes_for_items_missed_ranges_and_wake_ups() -> None:
    box = Box()
    for act in (
        lambda: box.enqueue(("A", 0), 1),
        lambda: box.report_missed("A", TimeRange(0, 1)),
        box.wake,
    ):
        waiting = asyncio.create_task(box.ready())
        await asyncio.sleep(0)
        assert not waiting.done()
        act()
        assert await asyncio.wait_for(waiting, 5)
        box.take(10)
        box.take_missed()


async def test_closed_mailbox_delivers_waiting_items_and_then_ends() -> None:
    with Box() as box:
        box.enqueue(("A", 0), 1)
    assert box.left == [box]
    assert await box.ready()
    box.take(10)
    assert not await box.ready()


async def test_waiting_subscriber_learns_of_the_end() -> None:
    box = Box()
    waiting = asyncio.create_task(box.ready())
    await asyncio.sleep(0)
    box.close()
    assert not await asyncio.wait_for(waiting, 5)


async def test_other_tasks_run_between_the_parts_of_a_backlog() -> None:
    box = Box()
    for second in range(25):
        box.enqueue(("A", second), second)
    ran: list[int] = []
    while box.waiting:
        asyncio.get_running_loop().call_soon(ran.append, box.waiting)
        assert await box.ready()
        box.take(10)
    assert ran == [25, 15, 5]


async def test_publisher_waits_for_room_until_items_are_taken_or_it_ends() -> None:
    box = Box()
    for second in range(3):
        box.enqueue(("A", second), second)
    await asyncio.wait_for(box.room(4), 5)
    waiting = asyncio.create_task(box.room(2))
    await asyncio.sleep(0)
    box.take(1)
    await asyncio.sleep(0)
    assert not waiting.done()
    box.take(1)
    await asyncio.wait_for(waiting, 5)
    waiting = asyncio.create_task(box.room(1))
    await asyncio.sleep(0)
    box.close()
    await asyncio.wait_for(waiting, 5)


async def test_discarded_items_are_neither_delivered_nor_missed() -> None:
    box = Box()
    box.enqueue(("A", 0), 1)
    box.enqueue(("B", 0), 2)
    box.discard(lambda key: key[0] == "A")
    assert box.take(10) == [(("B", 0), 2)]
    assert box.take_missed() == {}


@given(
    capacity=st.integers(1, 5),
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from("AB"), st.integers(0, 9)),
            st.integers(min_value=1, max_value=4),
        ),
        max_size=60,
    ),
)
async def test_every_key_is_delivered_in_its_newest_state_or_lies_in_a_missed_range(
    capacity: int, steps: list[Key | int]
) -> None:
    """A model: keys enqueued and batches taken in any order."""
    box = Box(capacity)
    newest: dict[Key, int] = {}
    delivered: dict[Key, int] = {}
    missed: dict[str, TimeRange] = {}

    def take(limit: int) -> None:
        taken = box.take(limit)
        assert len(taken) == min(limit, len(taken) + box.waiting)
        delivered.update(taken)
        for symbol, span in box.take_missed().items():
            missed[symbol] = span.union(missed.get(symbol, span))

    for number, step in enumerate(steps):
        if isinstance(step, int):
            take(step)
        else:
            newest[step] = number
            box.enqueue(step, number)
        assert box.waiting <= capacity
    take(100)
    for (symbol, second), item in newest.items():
        if delivered.get((symbol, second)) != item:
            assert missed[symbol].start_us <= second < missed[symbol].end_us
