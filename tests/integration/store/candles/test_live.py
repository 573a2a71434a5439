"""Live candles only move forward, and move to candles_1m in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from include.domain.candles import Candle, Source
from include.domain.timeframes import MINUTE_US, from_us
from include.errors import PermanentError
from include.store.candles import merging
from include.store.candles.live import rotate_live_async
from include.store.candles.minutes import (
    LiveCandle,
    MergeCounts,
    remove_stale_live,
    store_async,
    write_live_async,
)
from include.store.postgres.pools import connect_async
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle, moved

AsyncConnection = psycopg.AsyncConnection[Any]
Connect = Callable[[str], psycopg.Connection[Any]]


@pytest.fixture
async def live(database_url: str) -> AsyncIterator[AsyncConnection]:
    connection = await connect_async(database_url, application_name="test")
    async with connection:
        yield connection


def at(last_id: int | None, *, price: str = "10", closed: bool = False) -> LiveCandle:
    ids = (None, None) if last_id is None else (1, last_id)
    count = 0 if last_id is None else 3
    return LiveCandle(candle(price=price, trade_count=count, ids=ids), is_closed=closed)


async def rows(connection: AsyncConnection, query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query)).fetchall()


async def test_live_row_moves_to_higher_trade_ids_only(live: AsyncConnection) -> None:
    moves = [
        await write_live_async(live, [at(last, price=price)])
        for last, price in [(None, "10"), (5, "11"), (4, "12"), (5, "13"), (6, "14")]
    ]

    assert moves == [1, 1, 0, 0, 1]
    stored = await rows(live, "SELECT open, last_trade_id, is_closed FROM market.live_candles")
    assert stored == [(14, 6, False)]


async def test_row_closes_once_and_stays_closed(live: AsyncConnection) -> None:
    moves = [
        await write_live_async(live, [each])
        for each in [at(5), at(5, closed=True), at(5), at(5, closed=True), at(6, price="11")]
    ]

    assert moves == [1, 1, 0, 0, 1]
    stored = await rows(live, "SELECT open, last_trade_id, is_closed FROM market.live_candles")
    assert stored == [(11, 6, True)]


async def test_latest_of_several_states_in_one_write_wins(live: AsyncConnection) -> None:
    assert await write_live_async(live, [at(5), at(7, price="12"), at(6)]) == 1

    assert await rows(live, "SELECT last_trade_id FROM market.live_candles") == [(7,)]


async def test_many_symbols_are_written_together_with_null_quote_volumes(
    live: AsyncConnection,
) -> None:
    of = [
        LiveCandle(
            replace(candle(ids=(1, 2)), symbol=f"S{n}"),
            is_closed=False,
            event_time_us=NOVEMBER_END_US + n,
            has_quotes=n % 2 == 0,
        )
        for n in range(1500)
    ]

    assert await write_live_async(live, of) == 1500
    known = await rows(
        live,
        "SELECT count(*), count(quote_volume), count(taker_buy_quote_volume), max(event_time) "
        "FROM market.live_candles",
    )
    assert known == [(1500, 750, 750, from_us(NOVEMBER_END_US + 1499))]


async def test_unusual_values_and_names_are_written_unchanged(live: AsyncConnection) -> None:
    names = ['A"B\\C', "{NULL,'x'}", "NULL", "币安人生USDT", "a b"]
    tiny, large = Decimal("1E-18"), Decimal("123456789012345678901234567890.10")
    written = [
        LiveCandle(
            replace(candle(ids=(1, 2)), symbol=name, volume=tiny, quote_volume=large),
            is_closed=False,
        )
        for name in names
    ]
    assert await write_live_async(live, written) == len(names)
    query = "SELECT symbol, open_time, volume, quote_volume, event_time FROM market.live_candles"
    stored = await rows(live, query)
    at = from_us(written[0].candle.open_time_us)
    assert sorted(stored) == sorted((name, at, tiny, large, None) for name in names)


async def test_nothing_to_write_is_fine(live: AsyncConnection) -> None:
    assert await write_live_async(live, []) == 0


async def test_stored_candle_leaves_live_candles_for_good(
    live: AsyncConnection,
) -> None:
    await write_live_async(live, [at(5, closed=True)])
    before = await rows(live, "SELECT status, close FROM market.candles_1m_live")

    counts = await store_async(live, [candidate(Source.KLINE, candle(price="11", ids=(1, 5)))])
    late = await write_live_async(live, [at(6)])

    after = await rows(live, "SELECT status, close FROM market.candles_1m_live")
    assert (before, after) == ([("closed", 10)], [("verified", 11)])
    assert (counts, late) == (MergeCounts(offered=1, inserted=1), 0)
    assert await rows(live, "SELECT * FROM market.live_candles") == []


async def test_refused_candle_stays_in_live_candles(live: AsyncConnection) -> None:
    await write_live_async(live, [at(5, closed=True)])
    impossible = replace(candle(ids=(1, 5)), high=candle().low)

    with pytest.raises(PermanentError, match="candles_1m_high_is_the_highest"):
        await store_async(live, [candidate(Source.KLINE, impossible)])

    assert await rows(live, "SELECT status FROM market.candles_1m_live") == [("closed",)]


async def test_many_candles_leave_live_candles_in_one_statement(
    live: AsyncConnection,
) -> None:
    names = ['A"B\\C', *(f"S{number:03}USDT" for number in range(2 * merging.ROWS_A_TURN))]
    closed = [
        LiveCandle(replace(candle(ids=(1, 5)), symbol=name), is_closed=True) for name in names
    ]
    await write_live_async(live, closed)
    candidates = [
        moved(candidate(Source.KLINE, candle(price="11", ids=(1, 5))), one, 0) for one in names
    ]

    counts = await store_async(live, candidates)

    assert counts == MergeCounts(offered=len(names), inserted=len(names))
    assert await rows(live, "SELECT * FROM market.live_candles") == []
    stored = await rows(live, "SELECT symbol, status, open, close FROM market.candles_1m_live")
    assert sorted(stored) == sorted((name, "verified", 11, 11) for name in names)
    again = await store_async(live, candidates)
    assert again == MergeCounts(offered=len(names), unchanged=len(names))


async def test_batch_with_a_refused_row_is_rolled_back_and_the_connection_survives(
    live: AsyncConnection,
) -> None:
    good = candidate(Source.KLINE, candle(ids=(1, 5)))
    impossible = candidate(Source.KLINE, replace(candle(ids=(1, 5)), high=candle().low))

    with pytest.raises(PermanentError, match="candles_1m_high_is_the_highest"):
        await store_async(live, [moved(good, "ETHUSDT", 0), impossible])

    assert await rows(live, "SELECT * FROM market.candles_1m") == []
    assert live.info.transaction_status is TransactionStatus.IDLE
    assert (await store_async(live, [good])).inserted == 1


async def test_batch_is_retried_after_a_lock_timeout(
    live: AsyncConnection,
    connect_again: Callable[[str], psycopg.Connection[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = candidate(Source.STREAM, candle(ids=(1, 5)))
    better = candidate(Source.KLINE, candle(ids=(1, 5)))
    await store_async(live, [told])
    await live.execute("SET lock_timeout = '50ms'")
    holder = connect_again("holder")
    holder.execute("BEGIN; SELECT FROM market.candles_1m FOR UPDATE")
    waits: list[int] = []

    class Letting:
        def wait_s(self, attempt: int, error: BaseException | None = None) -> float:
            waits.append(attempt)
            holder.execute("COMMIT")
            return 0.0

    monkeypatch.setattr(merging, "BACKOFF", Letting())
    assert (await store_async(live, [better])).confirmed == 1
    assert waits == [1]


async def test_batch_can_be_part_of_a_callers_transaction(live: AsyncConnection) -> None:
    async with live.transaction():
        first = await store_async(live, [candidate(Source.STREAM, candle(ids=(1, 5)))])
        second = await store_async(live, [candidate(Source.KLINE, candle(ids=(1, 5)))])
    assert (first.inserted, second.offered, second.confirmed) == (1, 1, 1)


async def test_view_shows_each_minute_once(live: AsyncConnection) -> None:
    await store_async(live, [candidate(Source.KLINE, candle(ids=(1, 5)))])
    open_one: Candle = moved(candidate(Source.STREAM, candle(ids=(6, 7))), "BTCUSDT", 1).candle
    await write_live_async(live, [LiveCandle(open_one, is_closed=False)])
    # as a merge by another writer would leave it
    await live.execute(
        "INSERT INTO ops.live_candles_1 SELECT symbol, %s, open, high, low, close, volume, "
        "quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, first_trade_id, "
        "last_trade_id, true, event_time FROM market.live_candles",
        (from_us(NOVEMBER_END_US),),
    )

    shown = await rows(live, "SELECT open_time, status FROM market.candles_1m_live ORDER BY 1")

    assert shown == [
        (from_us(NOVEMBER_END_US), "verified"),
        (from_us(NOVEMBER_END_US + MINUTE_US), "live"),
    ]


async def test_live_rows_of_an_ended_streamer_are_removed(live: AsyncConnection) -> None:
    for symbol in ("A", "B", "C"):
        of = moved(candidate(Source.STREAM, candle(ids=(1, 2))), symbol, 0).candle
        await write_live_async(live, [LiveCandle(of, is_closed=False)])
    await live.execute(
        "UPDATE ops.live_candles_1 SET updated_at = now() - interval '11 minutes' "
        "WHERE symbol = 'B'"
    )

    with psycopg.connect(live.info.dsn, password=live.info.password, autocommit=True) as other:
        assert remove_stale_live(other, ["A"]) == 2

    assert await rows(live, "SELECT symbol FROM market.live_candles") == [("C",)]


async def test_streamers_of_the_same_symbols_do_not_deadlock(
    live: AsyncConnection,
    database_url: str,
    connect_again: Callable[[str], psycopg.Connection[Any]],
    wait_until_blocked: Callable[[str], None],
) -> None:
    """At a minute's end one streamer stores what the other closes, in any order of klines."""
    names = [f"S{number:03}USDT" for number in range(300)]

    def open_ones(last_id: int) -> list[LiveCandle]:
        of = candle(ids=(1, last_id))
        return [LiveCandle(replace(of, symbol=name), is_closed=True) for name in names]

    settled = [moved(candidate(Source.KLINE, candle(ids=(1, 6))), name, 0) for name in names[::-1]]
    await write_live_async(live, open_ones(5))
    holder = connect_again("holder")
    holder.execute("BEGIN")
    holder.execute("SELECT FROM ops.live_candles_1 WHERE symbol = 'S150USDT' FOR UPDATE")
    async with await connect_async(database_url, application_name="other") as other:
        writing = asyncio.create_task(write_live_async(other, open_ones(6)))
        await asyncio.to_thread(wait_until_blocked, "other")
        settling = asyncio.create_task(store_async(live, settled))
        await asyncio.to_thread(wait_until_blocked, "test")
        holder.execute("COMMIT")
        assert await writing == len(names)
        assert (await settling).inserted == len(names)
        for one in (live, other):
            await one.execute("SELECT pg_stat_force_next_flush()")
            await one.execute("SELECT")
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await rows(live, query) == [(0,)]
    assert await rows(live, "SELECT * FROM market.live_candles") == []


# --- rotation: open candles move to another table before replaced rows fill theirs

NAMES = [f"S{number:03}USDT" for number in range(200)]
READ = "SELECT symbol, last_trade_id FROM market.live_candles ORDER BY symbol"
SIZE = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c
WHERE c.relname LIKE 'live\\_candles\\__%' AND c.relkind = 'r'
"""


@pytest.fixture
def snapshot(connect_again: Connect) -> psycopg.Connection[Any]:
    """A session with an open REPEATABLE READ transaction that has not read open candles."""
    holder = connect_again("holder")
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT count(*) FROM market.candles_1m")
    return holder


async def write(live: AsyncConnection, last_id: int) -> None:
    of = candle(ids=(1, last_id))
    rows = [LiveCandle(replace(of, symbol=name), is_closed=False) for name in NAMES]
    assert await write_live_async(live, rows) == len(NAMES)


async def rotate(live: AsyncConnection) -> int:
    """Rotate as if the last rotation were long ago; return the number of the table in use."""
    await live.execute("UPDATE ops.live_candle_table SET copied_at = now() - interval '1 hour'")
    await rotate_live_async(live)
    return await one(live, "SELECT number FROM ops.live_candle_table")


async def one(live: AsyncConnection, query: str) -> Any:
    row = await (await live.execute(query)).fetchone()
    return row and row[0]


async def shown(live: AsyncConnection) -> list[tuple[Any, ...]]:
    return await (await live.execute(READ)).fetchall()


async def test_old_snapshot_leaves_live_candles_small(
    live: AsyncConnection, snapshot: psycopg.Connection[Any]
) -> None:
    """Without a rotation the rows would take 7 MB."""
    sizes = []
    for last_id in range(1, 200):
        await write(live, last_id)
        await rotate(live)
        sizes.append((await rotate_live_async(live)).table_bytes)

    assert await shown(live) == [(name, 199) for name in NAMES]
    assert max(sizes) < 2_500_000
    assert await one(live, SIZE) < 16 * 3_000_000
    snapshot.execute("COMMIT")


async def test_table_is_kept_without_replaced_rows(live: AsyncConnection) -> None:
    await write(live, 1)
    first = await rotate(live)

    numbers = set()
    for last_id in range(2, 60):
        await write(live, last_id)
        numbers.add(await rotate(live))

    assert len(numbers | {first}) <= 3


async def test_readers_of_a_table_do_not_delay_a_rotation(
    live: AsyncConnection, connect_again: Connect
) -> None:
    """A backup locks all tables, an analyst's transaction those that it has read."""
    reader = connect_again("reader")
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await write(live, 1)
    seen = reader.execute(READ).fetchall()
    used = set()
    for last_id in range(2, 80):
        await write(live, last_id)
        used.add(await rotate(live))

    assert len(used) > 2
    assert await shown(live) == [(name, 79) for name in NAMES]
    assert reader.execute(READ).fetchall() == seen
    reader.execute("COMMIT")
    assert reader.execute(READ).fetchall() == await shown(live)


async def test_rotation_waits_for_nobody(
    live: AsyncConnection, snapshot: psycopg.Connection[Any], connect_again: Connect
) -> None:
    await write(live, 1)
    before = await rotate(live)
    other = connect_again("other")
    other.execute("BEGIN")
    other.execute("SELECT ops.delete_live_candles('{X}', '{2025-11-21}')")
    for last_id in range(2, 60):
        await write(live, last_id)
        assert await rotate(live) == before
    other.execute("COMMIT")
    assert await rotate(live) != before
    snapshot.execute("COMMIT")


async def test_write_after_a_rotation_uses_the_new_table(
    live: AsyncConnection,
    snapshot: psycopg.Connection[Any],
    connect_again: Connect,
    wait_until_blocked: Callable[[str], None],
    database_url: str,
) -> None:
    """The writer read the old number, and waits for a rotation that commits."""
    await write(live, 1)
    await rotate(live)
    await rotate(live)
    used = await rotate(live)
    for last_id in range(2, 120):
        await write(live, last_id)
    rotating = connect_again("rotating")
    rotating.execute("UPDATE ops.live_candle_table SET copied_at = now() - interval '1 hour'")
    rotating.execute("BEGIN")
    rotating.execute("SELECT FROM ops.rotate_live_candles()")

    async with await connect_async(database_url, application_name="writer") as writer:
        writing = asyncio.create_task(write(writer, 120))
        await asyncio.to_thread(wait_until_blocked, "writer")
        rotating.execute("COMMIT")
        await writing

    assert await one(live, "SELECT number FROM ops.live_candle_table") != used
    assert await shown(live) == [(name, 120) for name in NAMES]
    snapshot.execute("COMMIT")


async def test_stored_minutes_leave_the_table_in_use(
    live: AsyncConnection, snapshot: psycopg.Connection[Any]
) -> None:
    for last_id in range(1, 60):
        await write(live, last_id)
        await rotate(live)
    of = candidate(Source.KLINE, candle(ids=(1, 60)))

    await store_async(live, [moved(of, name, 0) for name in NAMES[1:]])

    assert await shown(live) == [(NAMES[0], 59)]
    snapshot.execute("COMMIT")


async def test_oldest_snapshot_is_measured(
    live: AsyncConnection, snapshot: psycopg.Connection[Any]
) -> None:
    snapshot.execute("SELECT pg_sleep(0.05)")

    beside = (await rotate_live_async(live)).snapshot_s
    snapshot.execute("COMMIT")
    alone = (await rotate_live_async(live)).snapshot_s

    assert beside >= 0.05 > alone
