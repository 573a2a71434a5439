"""``ops.candle_evidence`` shows which candles follow by id, and which source confirmed each."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from include.domain.candles import CandleCandidate, Source
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, MINUTE_US, from_us
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import add_coverage, record_outage
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

T0 = NOVEMBER_END_US - 4 * MINUTE_US
"""Five minutes before December: the ranges here cross into the next partition."""

PROOFS = "SELECT * FROM ops.candle_evidence(%s, %s, %s)"


def traded(
    minute: int,
    first: int | None,
    last: int | None,
    *,
    count: int | None = None,
    symbol: str = "BTCUSDT",
    source: Source = Source.KLINE,
    price: str = "10",
) -> CandleCandidate:
    """A candle of minute T0 + ``minute`` with these ids, and as many trades unless specified."""
    if count is None:
        count = 0 if first is None or last is None else last - first + 1
    open_time_us = T0 + minute * MINUTE_US
    one = candle(symbol, open_time_us, price=price, trade_count=count, ids=(first, last))
    return candidate(source, one)


def silent(minute: int, symbol: str = "BTCUSDT") -> CandleCandidate:
    return traded(minute, None, None, symbol=symbol)


def proofs(
    connection: Connection, first: int = 0, end: int = 60, symbol: str = "BTCUSDT"
) -> dict[int, Row]:
    """Proofs by minute after T0."""
    times = (from_us(T0 + first * MINUTE_US), from_us(T0 + end * MINUTE_US))
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute(PROOFS, (symbol, *times)).fetchall()
    minutes = [round((row["open_time"] - from_us(T0)).total_seconds() / 60) for row in rows]
    assert minutes == sorted(minutes)
    return dict(zip(minutes, rows, strict=True))


def continuity(rows: dict[int, Row]) -> dict[int, str]:
    return {minute: row["continuity"] for minute, row in rows.items()}


def broken(rows: dict[int, Row]) -> list[int]:
    return [minute for minute, row in rows.items() if row["is_broken"]]


def test_contiguous_ids_follow_across_silence_halts_and_months(connection: Connection) -> None:
    merge_candidates(
        connection,
        [traded(0, 1, 5), traded(1, 6, 9), silent(2), silent(3), traded(4, 10, 10),
         traded(8, 11, 20), traded(9, 21, 21)],
    )  # fmt: skip
    halt = (T0 + 5 * MINUTE_US, T0 + 8 * MINUTE_US)
    record_outage(
        connection,
        market=Market.SPOT,
        symbol="BTCUSDT",
        start_us=halt[0],
        end_us=halt[1],
        cause="the exchange has no candle",
    )
    rows = proofs(connection)
    assert continuity(rows) == {
        0: "first", 1: "follows", 2: "silent", 3: "silent", 4: "follows", 8: "follows",
        9: "follows",
    }  # fmt: skip
    assert broken(rows) == []
    assert {row["missing_minutes"] for row in rows.values()} == {0}


@pytest.mark.parametrize(
    ("first", "last", "count", "verdict"),
    [
        (7, 9, 3, "skips"),  # 6 is missing between the candles
        (5, 9, 5, "overlaps"),  # 5 is in both
        (6, 9, 3, "count_mismatch"),  # one id is missing inside
        (6, 9, 5, "count_mismatch"),
    ],
)
def test_skipped_ids_are_reported_at_the_next_candle(
    connection: Connection, first: int, last: int, count: int, verdict: str
) -> None:
    merge_candidates(connection, [traded(0, 1, 5), traded(1, first, last, count=count)])
    merge_candidates(connection, [traded(2, 10, 11)])
    rows = proofs(connection)
    assert continuity(rows) == {0: "first", 1: verdict, 2: "follows"}
    assert broken(rows) == [1]
    assert rows[1]["expected_first_trade_id"] == 6


def test_rows_without_ids_are_proven_by_the_next_row_with_ids(connection: Connection) -> None:
    merge_candidates(
        connection,
        [
            traded(0, 1, 5),
            traded(1, None, None, count=4, source=Source.REST),
            silent(2),
            traded(3, None, None, count=6, source=Source.DUMP_DAILY),
            traded(4, 16, 20),
            traded(5, None, None, count=9, source=Source.REST),
            traded(6, 31, 31),
        ],
    )
    rows = proofs(connection)
    assert continuity(rows) == {
        0: "first", 1: "no_ids", 2: "silent", 3: "no_ids", 4: "follows", 5: "no_ids", 6: "skips",
    }  # fmt: skip
    assert rows[6]["expected_first_trade_id"] == 30
    assert broken(rows) == [6]


def test_missing_minutes_are_counted_at_the_next_row(connection: Connection) -> None:
    merge_candidates(connection, [traded(0, 1, 5), traded(3, 6, 8), traded(7, 12, 12)])
    record_outage(
        connection,
        market=Market.SPOT,
        start_us=T0 + 4 * MINUTE_US,
        end_us=T0 + 6 * MINUTE_US,
        cause="maintenance of the whole market",
    )
    rows = proofs(connection)
    assert {minute: row["missing_minutes"] for minute, row in rows.items()} == {0: 0, 3: 2, 7: 1}
    # the two missing minutes had no trades: the ids continue across them
    assert continuity(rows) == {0: "first", 3: "follows", 7: "skips"}


def test_predecessor_is_searched_one_day_before_the_range(connection: Connection) -> None:
    day = DAY_US // MINUTE_US
    merge_candidates(connection, [traded(0, 1, 5), traded(3, 7, 8), traded(day + 4, 9, 9)])
    assert continuity(proofs(connection, 3)) == {3: "skips"}
    assert continuity(proofs(connection, day + 1, day + 9)) == {day + 4: "follows"}
    assert continuity(proofs(connection, day + 4, day + 9)) == {day + 4: "first"}


def test_nothing_follows_across_a_listing(connection: Connection) -> None:
    merge_candidates(connection, [traded(0, 900, 905), traded(5, 1, 3), traded(6, 5, 5)])
    assert continuity(proofs(connection)) == {0: "first", 5: "overlaps", 6: "skips"}
    connection.execute(
        """
        INSERT INTO market.instruments VALUES
        ('BTCUSDT', %s, %s, 'spot', 'BTCUSDT', 'BTC', 'USDT', 'BREAK', 1, 1, '{}', true, now()),
        ('BTCUSDT', %s, NULL, 'spot', 'BTCUSDT', 'BTC', 'USDT', 'TRADING', 1, 1, '{}', true, now())
        """,
        (from_us(T0 - DAY_US), from_us(T0 + 2 * MINUTE_US), from_us(T0 + 5 * MINUTE_US)),
    )
    assert continuity(proofs(connection)) == {0: "first", 5: "first", 6: "skips"}


def test_ids_of_usd_m_trades_skip_by_design_but_never_go_back(connection: Connection) -> None:
    symbol = "BTCUSDT.P"
    merge_candidates(
        connection,
        [
            traded(0, 1, 9, count=5, symbol=symbol),
            traded(1, 10, 12, symbol=symbol),
            traded(2, 15, 20, count=4, symbol=symbol),
            traded(3, 20, 22, symbol=symbol),
            traded(4, 23, 24, count=9, symbol=symbol),
        ],
    )
    rows = proofs(connection, symbol=symbol)
    assert continuity(rows) == {
        0: "first", 1: "follows", 2: "ascends", 3: "overlaps", 4: "count_mismatch",
    }  # fmt: skip
    assert broken(rows) == [3, 4]


def test_confirming_and_contradicting_sources_are_listed(connection: Connection) -> None:
    merge_candidates(connection, [traded(0, 1, 5), traded(1, 6, 9), traded(2, 10, 10)])
    merge_candidates(connection, [traded(0, None, None, count=5, source=Source.REST)])
    merge_candidates(connection, [traded(1, None, None, count=4, source=Source.REST, price="11")])
    unsure = candidate(Source.STREAM, candle("BTCUSDT", T0 + 3 * MINUTE_US, ids=(11, 13)))
    merge_candidates(connection, [unsure])
    add_coverage(connection, "BTCUSDT", "rest", [(T0, T0 + 2 * MINUTE_US)])
    add_coverage(connection, "BTCUSDT", "dump_daily", [(T0, T0 + 3 * MINUTE_US)])
    add_coverage(connection, "ETHUSDT", "dump_monthly", [(T0, T0 + 3 * MINUTE_US)])
    found = {
        minute: (row["status"], row["source"], row["confirmed_by"], row["contradicted_by"])
        for minute, row in proofs(connection).items()
    }
    assert found == {
        0: ("verified", "rest", ["dump_daily", "rest"], []),
        1: ("verified", "rest", ["dump_daily", "rest"], ["kline"]),
        2: ("verified", "kline", ["dump_daily", "kline"], []),
        3: ("unconfirmed", "stream", [], []),
    }


def test_rest_confirms_no_candle_that_it_did_not_return(connection: Connection) -> None:
    without = (T0, T0 + MINUTE_US)
    cause = "the exchange has no candle"
    record_outage(
        connection, market=Market.SPOT, symbol="BTCUSDT", start_us=without[0], end_us=without[1],
        cause=cause,
    )  # fmt: skip
    add_coverage(connection, "BTCUSDT", "rest", [without])
    add_coverage(connection, "BTCUSDT", "dump_daily", [without])
    merge_candidates(connection, [traded(0, None, None, count=5, source=Source.DUMP_DAILY)])
    assert proofs(connection)[0]["confirmed_by"] == ["dump_daily"]
    merge_candidates(connection, [traded(0, None, None, count=5, source=Source.REST)])
    assert proofs(connection)[0]["confirmed_by"] == ["dump_daily", "rest"]


def test_only_the_partitions_of_the_range_are_read(connection: Connection) -> None:
    merge_candidates(
        connection, [traded(-90 * 1440, 1, 1), traded(-60 * 1440, 2, 2), traded(0, 3, 3)]
    )
    times = (from_us(T0), from_us(T0 + 4 * MINUTE_US))
    rows = connection.execute(f"EXPLAIN (ANALYZE) {PROOFS}", ("BTCUSDT", *times)).fetchall()
    plan = [str(line) for (line,) in rows]
    assert any("candles_1m_y2025m11" in line for line in plan)
    assert not any("candles_1m_y2025m08" in line or "y2025m10" in line for line in plan)
