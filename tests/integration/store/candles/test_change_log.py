"""The change log, from which the marts are rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from include.domain.candles import Source
from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import record_outage
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle, moved

Connection = psycopg.Connection[Any]


def minute(number: int) -> int:
    return NOVEMBER_END_US + number * MINUTE_US


def take_changes(
    connection: Connection, log: str = "candle_changes"
) -> list[tuple[str, list[tuple[int, int]]]]:
    """What was logged since the last call: symbol and minutes, counted from the first."""
    rows = connection.execute(
        sql.SQL(
            "WITH taken AS (DELETE FROM {} RETURNING symbol, minutes) "
            "SELECT symbol, minutes FROM taken ORDER BY symbol, minutes"
        ).format(sql.Identifier("ops", log))
    ).fetchall()
    return [
        (
            symbol,
            [
                (
                    (to_us(span.lower) - NOVEMBER_END_US) // MINUTE_US,
                    (to_us(span.upper) - NOVEMBER_END_US) // MINUTE_US,
                )
                for span in minutes
            ],
        )
        for symbol, minutes in rows
    ]


def changes_since(connection: Connection, snapshot: str) -> list[str]:
    """Symbols changed by transactions that the snapshot does not see, as a mart's build asks."""
    rows = connection.execute(
        """
        SELECT symbol FROM ops.candle_changes
        WHERE
            changed_by >= pg_snapshot_xmin(%(old)s::pg_snapshot)
            AND NOT pg_visible_in_snapshot(changed_by, %(old)s::pg_snapshot)
        ORDER BY symbol
        """,
        {"old": snapshot},
    ).fetchall()
    return [symbol for (symbol,) in rows]


def snapshot_of(connection: Connection) -> str:
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    assert row is not None
    return str(row[0])


def test_bulk_merge_logs_one_row_per_symbol_across_months(
    connection: Connection,
) -> None:
    of = [moved(candidate(), symbol, n) for symbol in ("A", "B") for n in (0, 1, 2, 5)]

    merge_candidates(connection, of)

    assert take_changes(connection) == [("A", [(0, 3), (5, 6)]), ("B", [(0, 3), (5, 6)])]


def test_changed_values_are_logged_and_provenance_alone_is_not(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(Source.KLINE), "A", n) for n in range(3)])
    take_changes(connection)

    merge_candidates(
        connection,
        [
            moved(candidate(Source.REST), "A", 0),
            moved(candidate(Source.REST, candle(price="11")), "A", 1),
            moved(candidate(Source.KLINE), "A", 2),
            moved(candidate(Source.STREAM, candle(price="9")), "A", 2),
        ],
    )

    assert take_changes(connection) == [("A", [(1, 2)])]


def test_trade_ids_that_arrive_for_unchanged_values_are_logged_as_a_change(
    connection: Connection,
) -> None:
    merge_candidates(connection, [moved(candidate(Source.REST), "A", n) for n in range(3)])
    take_changes(connection)

    # the kline has the trade ids that REST lacks
    merge_candidates(
        connection,
        [
            moved(candidate(Source.KLINE, candle(ids=(7, 9))), "A", 1),
            moved(candidate(Source.KLINE), "A", 2),
        ],
    )
    told = take_changes(connection)
    merge_candidates(connection, [moved(candidate(Source.REST), "A", 1)])

    assert told == [("A", [(1, 2)])]
    assert take_changes(connection) == []
    assert take_changes(connection, "status_changes") == []


def test_changed_status_is_logged_apart_and_better_evidence_is_not(
    connection: Connection,
) -> None:
    merge_candidates(connection, [moved(candidate(Source.STREAM), "A", n) for n in range(4)])
    take_changes(connection)

    merge_candidates(connection, [moved(candidate(Source.KLINE), "A", n) for n in (1, 2)])
    merge_candidates(connection, [moved(candidate(Source.REST), "A", 2)])
    # new values are in the log of values, whatever the status does
    merge_candidates(connection, [moved(candidate(Source.KLINE, candle(price="11")), "A", 3)])

    assert take_changes(connection, "status_changes") == [("A", [(1, 3)])]
    assert take_changes(connection) == [("A", [(3, 4)])]


def test_deletes_and_moves_by_hand_are_logged(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", n) for n in range(4)])
    take_changes(connection)

    connection.execute("DELETE FROM market.candles_1m WHERE open_time = %s", (from_us(minute(2)),))
    deleted = take_changes(connection)
    connection.execute(
        "UPDATE market.candles_1m SET symbol = 'B', open_time = open_time + interval '1 hour' "
        "WHERE open_time = %s",
        (from_us(minute(0)),),
    )
    renamed = take_changes(connection)
    connection.execute("TRUNCATE market.candles_1m")
    truncated = take_changes(connection)

    assert deleted == [("A", [(2, 3)])]
    assert renamed == [("A", [(0, 1)]), ("B", [(60, 61)])]
    assert [symbol for symbol, _ in truncated] == ["A", "B"]


def test_changes_through_a_partition_are_logged(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", n) for n in range(-2, 2)])
    take_changes(connection)

    changes = []
    for statement in (
        "UPDATE market.candles_1m_y2025m11 SET close = low WHERE open_time = '2025-11-30 23:59Z'",
        "DELETE FROM market.candles_1m_y2025m11 WHERE open_time = '2025-11-30 23:58Z'",
        "TRUNCATE market.candles_1m_y2025m11",
    ):
        connection.execute(statement)
        changes.append(take_changes(connection))

    updated, deleted, truncated = changes
    assert updated == [("A", [(0, 1)])]
    assert deleted == [("A", [(-1, 0)])]
    assert [symbol for symbol, _ in truncated] == ["A"]


def test_partitions_that_come_and_go_are_logged(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", n) for n in range(-2, 2)])
    merge_candidates(connection, [moved(candidate(), "B", 1)])
    take_changes(connection)
    month = [(minute_of_november(1), minute_of_november(31))]
    of_all = [("A", month), ("B", month)]

    connection.execute("ALTER TABLE market.candles_1m DETACH PARTITION market.candles_1m_y2025m11")
    detached = take_changes(connection)
    connection.execute(
        "ALTER TABLE market.candles_1m ATTACH PARTITION market.candles_1m_y2025m11"
        " FOR VALUES FROM ('2025-11-01 00:00Z') TO ('2025-12-01 00:00Z')"
    )
    attached = take_changes(connection)
    connection.execute("DROP TABLE market.candles_1m_y2025m11")
    dropped = take_changes(connection)

    assert detached == of_all
    assert [symbol for symbol, _ in attached] == ["A"]
    assert dropped == of_all


def minute_of_november(day: int) -> int:
    """Minutes from the last minute of November to the start of a day."""
    return (day - 31) * 1_440 + 1


def test_changes_of_a_replica_session_are_logged(connection: Connection) -> None:
    merge_candidates(connection, [moved(candidate(), "A", 0)])
    take_changes(connection)

    connection.execute("SET session_replication_role = replica")
    connection.execute("UPDATE market.candles_1m SET close = low")

    assert take_changes(connection) == [("A", [(0, 1)])]


def test_outage_of_a_symbol_is_logged_for_that_symbol(connection: Connection) -> None:
    for end in (2, 2, 5):
        record_outage(
            connection,
            market=Market.SPOT,
            symbol="A",
            start_us=minute(0),
            end_us=minute(end),
            cause="halt",
        )

    # the repeat adds nothing, the longer one what it adds
    assert take_changes(connection) == [("A", [(0, 2)]), ("A", [(2, 5)])]

    connection.execute("DELETE FROM ops.outages")
    assert take_changes(connection) == [("A", [(0, 5)])]


def test_market_outage_is_logged_for_symbols_with_candles_nearby(
    connection: Connection,
) -> None:
    merge_candidates(connection, [moved(candidate(), symbol, 0) for symbol in ("A", "B", "C.P")])
    merge_candidates(connection, [moved(candidate(), "OLD", -200 * 1440)])
    take_changes(connection)

    record_outage(
        connection, market=Market.SPOT, start_us=minute(3), end_us=minute(4), cause="maintenance"
    )

    assert take_changes(connection) == [("A", [(3, 4)]), ("B", [(3, 4)])]


def test_transaction_that_commits_late_is_seen_by_the_next_build(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    late = connect_again("late")
    merge_candidates(connection, [moved(candidate(), "SEEN", 0)])
    with late.transaction():
        merge_candidates(late, [moved(candidate(), "LATE", 0)])
        merge_candidates(connection, [moved(candidate(), "EARLY", 0)])
        # the build begins here: it sees EARLY, whose transaction is younger, but not LATE
        with connection.transaction():
            first_cursor = snapshot_of(connection)
            seen = connection.execute("SELECT symbol FROM ops.candle_changes ORDER BY 1").fetchall()
    merge_candidates(connection, [moved(candidate(), "NEW", 0)])

    assert seen == [("EARLY",), ("SEEN",)]
    assert changes_since(connection, first_cursor) == ["LATE", "NEW"]
    assert changes_since(connection, snapshot_of(connection)) == []


def test_change_that_is_rolled_back_is_never_seen(connection: Connection) -> None:
    cursor = snapshot_of(connection)
    with connection.transaction(force_rollback=True):
        merge_candidates(connection, [candidate()])

    assert changes_since(connection, cursor) == []
