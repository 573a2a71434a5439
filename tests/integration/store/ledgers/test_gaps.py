"""Gaps are opened once, claimed by one worker, and closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from include.domain.candles import Source
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, MINUTE_US, from_us
from include.errors import PermanentError
from include.store.candles.minutes import merge_candidates
from include.store.ledgers import gaps, health
from include.store.ledgers.files import record_outage
from include.store.ledgers.gaps import (
    claim_gaps,
    close_gap,
    close_proven_gaps,
    open_gap,
    release_gap,
    unknown_since,
)
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle

Connection = psycopg.Connection[Any]


def opened(connection: Connection, symbol: str = "A", minutes: int = 2, **detail: object) -> int:
    return open_gap(
        connection,
        symbol=symbol,
        start_us=NOVEMBER_END_US,
        end_us=NOVEMBER_END_US + minutes * MINUTE_US,
        cause="connection lost",
        detail=detail,
    )


def stored(connection: Connection) -> list[tuple[Any, ...]]:
    """Detail of each gap in the ledger, and whether it is repaired."""
    return connection.execute(
        "SELECT detail, repaired_at IS NOT NULL FROM ops.gaps ORDER BY id"
    ).fetchall()


def test_open_gap_is_opened_once_and_again_after_its_repair(
    connection: Connection,
) -> None:
    first = opened(connection, last_id=5)
    assert opened(connection, seen=2) == first
    assert stored(connection) == [({"last_id": 5, "seen": 2}, False)]

    assert close_gap(connection, first, detail={"rows": 2})
    assert not close_gap(connection, first)

    assert opened(connection) != first
    assert stored(connection) == [({"last_id": 5, "seen": 2, "rows": 2}, True), ({}, False)]


def test_two_workers_never_claim_the_same_gap(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    for symbol in "ABCD":
        opened(connection, symbol)
    other = connect_again("other")

    with connection.transaction():
        mine = claim_gaps(connection, worker="one", limit=2)
        theirs = claim_gaps(other, worker="two", limit=4)

    assert [gap.symbol for gap in mine] == ["A", "B"]
    assert [gap.symbol for gap in theirs] == ["C", "D"]
    assert {gap.attempts for gap in mine + theirs} == {1}
    assert claim_gaps(connection, worker="three") == []


def test_claim_can_be_released_or_expires(connection: Connection) -> None:
    gap_id = opened(connection)
    claim_gaps(connection, worker="one")

    assert release_gap(connection, gap_id, detail={"error": "429"})
    again = claim_gaps(connection, worker="two")
    taken_over = claim_gaps(connection, worker="three", claim_timeout_s=0.0)

    assert [gap.attempts for gap in again + taken_over] == [2, 3]
    assert again[0].detail == {"error": "429"}


def test_unrepairable_gaps_do_not_block_others(connection: Connection) -> None:
    for symbol in "ABC":
        opened(connection, symbol)
    claimed = []
    for _ in range(3):
        (gap,) = claim_gaps(connection, worker="one", limit=1)
        claimed.append(gap.symbol)
        release_gap(connection, gap.id)

    assert claimed == ["A", "B", "C"]


def test_young_gaps_are_left_to_the_streamer(connection: Connection) -> None:
    opened(connection)

    assert claim_gaps(connection, worker="dag", older_than_s=600) == []
    connection.execute("UPDATE ops.gaps SET opened_at = opened_at - interval '11 minutes'")
    assert len(claim_gaps(connection, worker="dag", older_than_s=600)) == 1


def test_claimed_gap_has_its_bounds(connection: Connection) -> None:
    gap_id = opened(connection, "A", 3)

    (gap,) = claim_gaps(connection, worker="one")

    assert (gap.id, gap.symbol, gap.cause) == (gap_id, "A", "connection lost")
    assert (gap.start_us, gap.end_us) == (NOVEMBER_END_US, NOVEMBER_END_US + 3 * MINUTE_US)


@pytest.mark.parametrize("minutes", [0, -1])
def test_empty_gap_is_refused(connection: Connection, minutes: int) -> None:
    with pytest.raises(PermanentError, match="start first"):
        opened(connection, "A", minutes)


def test_raw_capture_gap_is_never_claimed(connection: Connection) -> None:
    mine = {"symbol": "A", "start_us": NOVEMBER_END_US, "end_us": NOVEMBER_END_US + MINUTE_US}
    lost = open_gap(connection, **mine, cause="spool full", dataset="book_tickers")
    missed = open_gap(connection, **mine, cause="connection lost")

    assert lost != missed
    assert [gap.id for gap in claim_gaps(connection, worker="one")] == [missed]


def test_claim_can_be_limited_to_symbols(connection: Connection) -> None:
    for symbol in "ABC":
        opened(connection, symbol)

    assert [gap.symbol for gap in claim_gaps(connection, worker="one", symbols=["B", "D"])] == ["B"]
    assert [gap.symbol for gap in claim_gaps(connection, worker="two")] == ["A", "C"]


def test_repaired_gap_records_its_proof(connection: Connection) -> None:
    close_gap(connection, opened(connection), by="kline")

    rows = connection.execute("SELECT repaired_by FROM ops.gaps").fetchall()
    assert rows == [("kline",)]


def test_gaps_that_the_table_proves_filled_are_closed(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    for symbol in ("A", "B", "C", "D", "E.P"):
        opened(connection, symbol)
        merge_candidates(connection, [candidate(Source.KLINE, candle(symbol, NOVEMBER_END_US))])
    second_us = NOVEMBER_END_US + MINUTE_US
    merge_candidates(
        connection,
        [
            candidate(Source.REST, candle("A", second_us)),  # B has nothing
            candidate(Source.STREAM, candle("C", second_us)),  # and C unconfirmed
            candidate(Source.KLINE, candle("E.P", second_us)),
        ],
    )
    record_outage(
        connection,
        market=Market.SPOT,
        symbol="D",
        start_us=second_us,
        end_us=second_us + MINUTE_US,
        cause="the exchange has no candle",
    )
    open_gap(
        connection,
        symbol="A",
        start_us=NOVEMBER_END_US,
        end_us=second_us,
        cause="spool full",
        dataset="trades",
    )

    assert close_proven_gaps(connection, symbols=["D", "B"]) == 1
    with connect_again("other").transaction() as held:
        # a gap claimed by another worker is left to it
        held.connection.execute("SELECT 1 FROM ops.gaps WHERE symbol = 'E.P' FOR UPDATE")
        assert close_proven_gaps(connection) == 1
    assert close_proven_gaps(connection) == 1
    rows = connection.execute(
        "SELECT symbol, repaired_by FROM ops.gaps WHERE repaired_at IS NOT NULL ORDER BY 1"
    ).fetchall()
    assert rows == [("A", "rows"), ("D", "rows"), ("E.P", "rows")]


def test_ledgers_give_the_first_unknown_minute_of_symbols_without_rows(
    connection: Connection,
) -> None:
    first, later = NOVEMBER_END_US, NOVEMBER_END_US + 5 * MINUTE_US
    for symbol in ("OPEN", "OLD", "MIXED", "CLOSED"):
        gap_id = opened(connection, symbol)
        if symbol == "CLOSED":
            close_gap(connection, gap_id)
    open_gap(connection, symbol="MIXED", start_us=later, end_us=later + MINUTE_US, cause="more")
    for symbol in ("CLOSED", "HALTED", "MIXED"):
        record_outage(
            connection,
            market=Market.SPOT,
            symbol=symbol,
            start_us=first,
            end_us=first + 3 * MINUTE_US,
            cause="no row",
        )
    open_gap(
        connection,
        symbol="QUOTES",
        start_us=first,
        end_us=later,
        cause="spool full",
        dataset="book_tickers",
    )
    connection.execute(
        "UPDATE ops.gaps SET from_time = from_time - interval '1 day',"
        " to_time = to_time - interval '1 day' WHERE symbol = 'OLD'"
    )
    symbols = ["OPEN", "OLD", "MIXED", "CLOSED", "HALTED", "QUOTES", "NOBODY"]
    assert unknown_since(connection, symbols, first) == {
        "OPEN": first,
        "MIXED": first,
        "CLOSED": first + 3 * MINUTE_US,
        "HALTED": first + 3 * MINUTE_US,
    }
    assert unknown_since(connection, ["NOBODY"], first) == {}


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes_of(part)


def test_repaired_gaps_do_not_slow_down_open_ones(connection: Connection) -> None:
    connection.execute(
        """
        INSERT INTO ops.gaps (symbol, from_time, to_time, cause, opened_at, repaired_at)
        SELECT 'S' || n %% 500, t, t + interval '2 minutes', 'connection lost', t, t
        FROM generate_series(1, 100000) AS n, LATERAL (
            SELECT %s::timestamptz - n * interval '1 minute' AS t
        ) AS at
        """,
        (from_us(NOVEMBER_END_US),),
    )
    opened(connection, "S7")
    connection.execute("ANALYZE ops.gaps")
    day = {"since": from_us(NOVEMBER_END_US - DAY_US), "now": from_us(NOVEMBER_END_US)}
    asked = {
        "symbols": ["S7"], "ids": None, "worker": "me", "older_than_s": 0, "claim_timeout_s": 0,
        "limit": 100, "patience": "600 s", "gap_patience": "1800 s", **day,
    }  # fmt: skip
    for query in (gaps.CLOSE_PROVEN, gaps._CLAIM, health._SYMBOL_ROWS):
        for symbols in (["S7"], None) if query is not health._SYMBOL_ROWS else (["S7"],):
            explained = connection.execute(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", {**asked, "symbols": symbols}
            ).fetchone()
            assert explained is not None
            read = [
                node
                for node in nodes_of(explained[0][0]["Plan"])
                if node.get("Relation Name") == "gaps" and "Scan" in node["Node Type"]
            ]
            assert read
            most = 2_000 if query is health._SYMBOL_ROWS else 5  # gaps of a day, or open ones
            for node in read:
                seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                assert seen * node["Actual Loops"] <= most, node
