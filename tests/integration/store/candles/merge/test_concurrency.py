"""Writers of the same minutes at the same time."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from include.domain.candles import CandleCandidate, Source
from include.domain.merge import merge
from include.errors import TransientError
from include.store.candles import merging
from include.store.candles.minutes import MergeCounts, merge_candidates
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle, moved

Connection = psycopg.Connection[Any]
Connect = Callable[[str], Connection]

SOURCES = [Source.STREAM, Source.KLINE, Source.DUMP_MONTHLY, Source.DUMP_DAILY, Source.REST]


def test_unsorted_batches_of_the_same_minutes_do_not_deadlock(
    connection: Connection, connect_again: Connect
) -> None:
    minutes = 200
    everything: dict[int, list[CandleCandidate]] = {minute: [] for minute in range(minutes)}

    def batches_of(writer: int) -> list[list[CandleCandidate]]:
        rng = random.Random(writer)
        made = []
        for _ in range(4):
            batch = []
            for minute in rng.sample(range(minutes), minutes):
                each = moved(
                    candidate(
                        rng.choice(SOURCES),
                        candle(price=str(rng.randrange(10, 13)), ids=(1, rng.randrange(1, 4))),
                    ),
                    "BTCUSDT",
                    minute,
                )
                everything[minute].append(each)
                batch.append(each)
            made.append(batch)
        return made

    work = [(connect_again(f"writer-{n}"), batches_of(n)) for n in range(4)]

    def write(of: tuple[Connection, list[list[CandleCandidate]]]) -> None:
        for batch in of[1]:
            merge_candidates(of[0], batch)

    with ThreadPoolExecutor(len(work)) as threads:
        list(threads.map(write, work, timeout=120))

    deadlocks = connection.execute(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    assert deadlocks == (0,)
    rows = connection.execute(
        "SELECT source, open, last_trade_id FROM market.candles_1m ORDER BY open_time"
    ).fetchall()
    kept = [merge(everything[minute]) for minute in range(minutes)]
    assert rows == [(e.source.value, e.candle.open, e.candle.last_trade_id) for e in kept]
    lost = connection.execute(
        """
        SELECT extract(epoch FROM open_time)::bigint, loser_source, loser_open
        FROM ops.discrepancies
        """
    ).fetchall()
    # Every value that ever differed from the winner is kept, and nothing else: a value that was
    # stored for a while before it lost is there with its last source.
    values = {(second, price) for second, _, price in lost}
    told = {
        ((NOVEMBER_END_US + minute * 60_000_000) // 1_000_000, each.candle.open)
        for minute, group in everything.items()
        for each in group
    }
    winners = {(e.candle.open_time_us // 1_000_000, e.candle.open) for e in kept}
    assert told - winners <= values <= told


def test_waiting_candidate_is_compared_with_the_row_committed_meanwhile(
    connection: Connection,
    connect_again: Connect,
    wait_until_blocked: Callable[[str], None],
) -> None:
    merge_candidates(connection, [candidate(Source.STREAM, candle(price="9"))])
    first, second = connect_again("first"), connect_again("second")
    with ThreadPoolExecutor(1) as thread:
        with first.transaction():
            merge_candidates(first, [candidate(Source.REST, candle(price="12"))])
            # greater than the row it can see, smaller than the one it will meet
            waiting = thread.submit(
                merge_candidates, second, [candidate(Source.KLINE, candle(price="10"))]
            )
            wait_until_blocked("second")
        counts = waiting.result(timeout=30)

    assert counts == MergeCounts(offered=1, unchanged=1, discrepancies=1)
    lost = connection.execute(
        "SELECT loser_source, loser_open, winner_source, isempty(stored_during) "
        "FROM ops.discrepancies ORDER BY id"
    ).fetchall()
    assert lost == [("stream", 9, "rest", False), ("kline", 10, "rest", True)]


def test_two_inserts_of_one_new_minute_end_in_one_row_and_one_discrepancy(
    connection: Connection,
    connect_again: Connect,
    wait_until_blocked: Callable[[str], None],
) -> None:
    first, second = connect_again("first"), connect_again("second")
    with ThreadPoolExecutor(1) as thread:
        with first.transaction():
            merge_candidates(first, [candidate(Source.KLINE, candle(price="10", ids=(1, 3)))])
            waiting = thread.submit(
                merge_candidates, second, [candidate(Source.REST, candle(price="11"))]
            )
            wait_until_blocked("second")
        counts = waiting.result(timeout=30)

    assert counts == MergeCounts(offered=1, changed=1, discrepancies=1)
    row = connection.execute("SELECT source, open, revision FROM market.candles_1m").fetchall()
    assert row == [("rest", 11, 1)]


def test_row_deleted_while_the_writer_waited_is_inserted_again(
    connection: Connection,
    connect_again: Connect,
    wait_until_blocked: Callable[[str], None],
) -> None:
    merge_candidates(connection, [candidate(Source.KLINE, candle(price="10"))])
    first, second = connect_again("first"), connect_again("second")
    with ThreadPoolExecutor(1) as thread:
        with first.transaction():
            first.execute("DELETE FROM market.candles_1m")
            waiting = thread.submit(
                merge_candidates, second, [candidate(Source.STREAM, candle(price="9"))]
            )
            wait_until_blocked("second")
        waiting.result(timeout=30)

    assert connection.execute("SELECT source FROM market.candles_1m").fetchall() == [("stream",)]


def deadlock_with(
    first: Connection,
    second: Connection,
    connection: Connection,
    wait_until_blocked: Callable[[str], None],
    *,
    in_transaction: bool,
) -> MergeCounts:
    """Make the second's merge of minutes 0 and 1 the victim of a deadlock with the first."""
    for minute in (0, 1):
        merge_candidates(connection, [moved(candidate(Source.FILE), "BTCUSDT", minute)])
    lock = "SELECT 1 FROM market.candles_1m WHERE symbol = 'BTCUSDT' AND open_time = %s FOR UPDATE"
    times = [
        row[0]
        for row in connection.execute(
            "SELECT open_time FROM market.candles_1m ORDER BY 1"
        ).fetchall()
    ]
    # The second notices first, so it is the one that the server ends.
    first.execute("SET deadlock_timeout = '60s'")
    second.execute("SET deadlock_timeout = '100ms'")
    both = [moved(candidate(Source.REST), "BTCUSDT", minute) for minute in (0, 1)]

    def write() -> MergeCounts:
        if not in_transaction:
            return merge_candidates(second, both)
        with second.transaction():
            return merge_candidates(second, both)

    with ThreadPoolExecutor(2) as threads:
        with first.transaction():
            first.execute(lock, (times[1],))
            waiting = threads.submit(write)
            wait_until_blocked("second")
            first.execute(lock, (times[0],))
        return waiting.result(timeout=30)


def test_deadlock_is_retried(
    connection: Connection,
    connect_again: Connect,
    wait_until_blocked: Callable[[str], None],
) -> None:
    counts = deadlock_with(
        connect_again("first"),
        connect_again("second"),
        connection,
        wait_until_blocked,
        in_transaction=False,
    )

    assert counts == MergeCounts(offered=2, confirmed=2)


def test_deadlock_in_a_transaction_of_the_caller_is_raised(
    connection: Connection,
    connect_again: Connect,
    wait_until_blocked: Callable[[str], None],
) -> None:
    with pytest.raises(TransientError, match="deadlock"):
        deadlock_with(
            connect_again("first"),
            connect_again("second"),
            connection,
            wait_until_blocked,
            in_transaction=True,
        )


def test_retries_end(
    connection: Connection, connect_again: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_candidates(connection, [candidate(Source.FILE)])
    monkeypatch.setattr(merging, "ATTEMPTS", 2)
    holder, writer = connect_again("holder"), connect_again("writer")
    writer.execute("SET lock_timeout = '50ms'")

    with holder.transaction():
        holder.execute("SELECT 1 FROM market.candles_1m FOR UPDATE")
        with pytest.raises(TransientError, match="lock timeout"):
            merge_candidates(writer, [candidate(Source.REST)])
