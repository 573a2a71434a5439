"""Gaps of many symbols are opened, widened, closed and given up by one statement each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, from_us
from include.store.candles.merging import merge_candidates
from include.store.ledgers.gap_batches import (
    ClosedGap,
    GapRow,
    GivenUpGap,
    NewGap,
    WiderGap,
    close_gaps_async,
    close_proven_gaps_async,
    give_up_gaps_async,
    open_gaps_async,
    widen_gaps_async,
)
from include.store.ledgers.gaps import claim_gaps
from include.store.postgres.pools import connect, connect_async
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, moved

Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    opened = await connect_async(database_url, application_name="test")
    await opened.execute("SET ROLE candelabra_streamer")
    async with opened:
        yield opened


def at(minute: int) -> int:
    return NOVEMBER_END_US + minute * MINUTE_US


def new(symbol: str, start: int = 0, end: int = 1, **changes: Any) -> NewGap:
    return NewGap(symbol, at(start), at(end), "connection lost", **{"age_s": 0.0} | changes)


async def stored(connection: Connection) -> list[tuple[Any, ...]]:
    """Symbol, minutes and whether open, by id."""
    cursor = await connection.execute(
        "SELECT symbol, from_time, to_time, repaired_by FROM ops.gaps ORDER BY id"
    )
    minute_of = {from_us(at(minute)): minute for minute in range(100)}
    return [(s, minute_of[a], minute_of[b], by) for s, a, b, by in await cursor.fetchall()]


async def test_ids_are_returned_in_the_order_of_the_gaps(connection: Connection) -> None:
    first = await open_gaps_async(connection, [new("B"), new("A"), new("A", 3, 4)])
    again = await open_gaps_async(
        connection, [new("A", 3, 4), new("C"), new("B", detail={"error": "x"})]
    )
    assert again[0] == first[2]
    assert again[2] == first[0]
    assert len({*first, *again}) == 4
    cursor = await connection.execute("SELECT detail FROM ops.gaps WHERE symbol = 'B'")
    assert await cursor.fetchall() == [({"error": "x"},)]


async def test_gap_is_dated_by_its_event(connection: Connection) -> None:
    (number,) = await open_gaps_async(connection, [new("A", age_s=3_600.0)])
    await close_gaps_async(connection, [ClosedGap(number, 600.0, "rest")])
    cursor = await connection.execute(
        "SELECT round(extract(epoch FROM now() - opened_at) / 60),"
        " round(extract(epoch FROM now() - repaired_at) / 60) FROM ops.gaps"
    )
    assert await cursor.fetchall() == [(60, 10)]


async def test_open_gap_widens_unless_another_has_its_range(
    connection: Connection,
) -> None:
    a, b, c, _ = await open_gaps_async(connection, [new("A"), new("B"), new("C"), new("A", 0, 9)])
    assert await close_gaps_async(connection, [ClosedGap(b, 0.0, "rest")]) == 1
    assert await close_gaps_async(connection, [ClosedGap(b, 0.0, "kline")]) == 0
    wider = [WiderGap(one, at(0), at(9)) for one in (a, b, c)]
    assert await widen_gaps_async(connection, wider) == {c}
    assert await stored(connection) == [
        ("A", 0, 1, None), ("A", 0, 9, None), ("B", 0, 1, "rest"), ("C", 0, 9, None),
    ]  # fmt: skip


async def test_given_up_gap_can_be_claimed_immediately(
    connection: Connection, database_url: str
) -> None:
    (number,) = await open_gaps_async(connection, [new("A")])
    with connect(database_url, application_name="test") as jobs:
        assert [gap.id for gap in claim_gaps(jobs, worker="streamer")] == [number.id]
        assert claim_gaps(jobs, worker="dag") == []
        await give_up_gaps_async(connection, [GivenUpGap(number, {"error": "refused"})])
        (gap,) = claim_gaps(jobs, worker="dag")
    assert gap.detail == {"error": "refused"}


async def test_check_returns_gaps_closed_by_any_worker(
    connection: Connection, database_url: str
) -> None:
    ids = await open_gaps_async(connection, [new("A"), new("B"), new("C"), new("D")])
    await close_gaps_async(connection, [ClosedGap(ids[0], 0.0, "rest")])
    with connect(database_url, application_name="test") as jobs:
        merge_candidates(jobs, [moved(candidate(), "B", 0)])
        jobs.execute("DELETE FROM ops.gaps WHERE id = %s", (ids[2].id,))
    assert await close_proven_gaps_async(connection, ids) == (set(ids[:2]), {ids[2]})
    assert [by for *_, by in await stored(connection)] == ["rest", "rows", None]
    assert await close_proven_gaps_async(connection, []) == (set(), set())


async def test_gaps_left_to_others_are_reported_when_closed_without_reading_their_minutes(
    connection: Connection, database_url: str
) -> None:
    ids = await open_gaps_async(connection, [new("A"), new("B")])
    with connect(database_url, application_name="test") as jobs:
        merge_candidates(jobs, [moved(candidate(), "B", 0)])
    assert await close_proven_gaps_async(connection, [], others=ids) == (set(), set())
    await close_gaps_async(connection, [ClosedGap(ids[1], 0.0, "rest")])
    told = await close_proven_gaps_async(connection, ids[:1], others=ids[1:])
    assert told == ({ids[1]}, set())


async def test_gap_with_a_reused_id_is_not_confused(
    connection: Connection, database_url: str
) -> None:
    """As after a failover to a server that had not got the row."""
    a, b = await open_gaps_async(connection, [new("A"), new("B")])
    quotes, other = GapRow("B", a.id, a.opened_us), GapRow("C", b.id, b.opened_us)
    later = GapRow("B", b.id, b.opened_us + 1)
    with connect(database_url, application_name="test") as jobs:
        jobs.execute(
            "UPDATE ops.gaps SET symbol = 'B', dataset = 'book_tickers' WHERE id = %s", (a.id,)
        )
    before = await stored(connection)
    for gone in (a, quotes, other, later):
        assert await widen_gaps_async(connection, [WiderGap(gone, at(0), at(9))]) == set()
        assert await close_gaps_async(connection, [ClosedGap(gone, 0.0, "rest")]) == 0
        assert await give_up_gaps_async(connection, [GivenUpGap(gone)]) == 0
        assert await close_proven_gaps_async(connection, [gone]) == (set(), {gone})
    assert await stored(connection) == before


async def test_streamers_with_the_same_disconnect_do_not_deadlock(
    connection: Connection, database_url: str
) -> None:
    async with await connect_async(database_url, application_name="other") as other:
        symbols = [f"S{number}" for number in range(200)]
        both = await asyncio.gather(
            *(
                open_gaps_async(one, [new(symbol) for symbol in names])
                for one, names in ((connection, symbols), (other, symbols[::-1]))
            )
        )
    assert both[0] == both[1][::-1]
    assert len(await stored(connection)) == 200


async def test_empty_batches_write_nothing(connection: Connection) -> None:
    assert await open_gaps_async(connection, []) == []
    assert await widen_gaps_async(connection, []) == set()
    assert await close_gaps_async(connection, []) == 0
    assert await give_up_gaps_async(connection, []) == 0
