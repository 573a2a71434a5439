"""ops.merge_candidates() equals the pure merge for any order, repetition and batching."""

from __future__ import annotations

import itertools
import random
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.domain.candles import CandleCandidate, Source, Status
from include.domain.merge import Stored, merge
from include.domain.timeframes import from_us
from include.errors import PermanentError
from include.store.candles.minutes import (
    CANDIDATE_COLUMNS,
    MergeCounts,
    merge_candidates,
    merge_frame,
    read_candles,
)
from tests.unit.store.candidates import (
    EVIDENCE_US,
    NOVEMBER_END_US,
    candidate,
    candidates,
    candle,
    moved,
)

Connection = psycopg.Connection[Any]

_symbols = (f"S{number}USDT" for number in itertools.count())


def stored(connection: Connection, symbol: str, open_time_us: int) -> tuple[Any, ...]:
    """The row as (nine values …, ids, status, source, rank, evidence)."""
    row = connection.execute(
        """
        SELECT open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume,
            taker_buy_quote_volume, first_trade_id, last_trade_id, status, source, source_rank,
            evidence_at
        FROM market.candles_1m WHERE symbol = %s AND open_time = %s
        """,
        (symbol, from_us(open_time_us)),
    ).fetchone()
    assert row is not None
    return row


def expected(kept: Stored) -> tuple[Any, ...]:
    at_us = kept.evidence_at_us
    return (
        *kept.candle.values,
        kept.candle.first_trade_id,
        kept.candle.last_trade_id,
        kept.status.value,
        kept.source.value,
        kept.rank,
        None if at_us is None else from_us(at_us),
    )


def batches(of: list[CandleCandidate], rng: random.Random) -> list[list[CandleCandidate]]:
    """Split at random places, as writers would."""
    cuts = sorted(rng.randrange(len(of) + 1) for _ in range(rng.randrange(4)))
    return [of[start:end] for start, end in itertools.pairwise([0, *cuts, len(of)])]


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.lists(candidates(), min_size=1, max_size=6), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_sql_merge_equals_the_pure_merge(
    connection: Connection, minutes: list[list[CandleCandidate]], rng: random.Random
) -> None:
    symbol = next(_symbols)
    everything = [
        moved(each, symbol, minute) for minute, group in enumerate(minutes) for each in group
    ]
    told = everything + rng.choices(everything, k=len(everything))
    rng.shuffle(told)

    for batch in batches(told, rng):
        counts = merge_candidates(connection, batch)
        assert counts.offered == len(batch)
        assert counts.unchanged >= 0

    for minute, group in enumerate(minutes):
        kept = merge(moved(each, symbol, minute) for each in group)
        assert stored(connection, symbol, kept.candle.open_time_us) == expected(kept)


def test_any_order_and_batching_of_a_thousand_minutes_gives_the_same_rows(
    connection: Connection,
) -> None:
    rng = random.Random(7)
    some = [
        candidate(source, candle(price=price, trade_count=count, ids=ids), evidence_at_us=at_us)
        for source in (Source.REST, Source.DUMP_DAILY, Source.KLINE)
        for price, count, ids in [("10", 1, (1, 1)), ("10.0", 1, (None, None)), ("11", 2, (1, 2))]
        for at_us in EVIDENCE_US
    ] + [
        candidate(source, candle(price=price, trade_count=count, ids=ids), status=status)
        for source in (Source.STREAM, Source.TRADES, Source.FILE)
        for price, count, ids in [("10", 1, (1, 1)), ("11", 2, (1, 2)), ("12", 2, (1, 3))]
        for status in (Status.UNCONFIRMED, Status.PARTIAL)
    ]
    groups = [rng.choices(some, k=rng.randrange(1, 7)) for _ in range(1000)]

    rows = []
    for symbol in ("AUSDT", "BUSDT"):
        told = [
            moved(each, symbol, minute)
            for minute, group in enumerate(groups)
            for each in rng.sample(group, len(group)) * rng.randrange(1, 3)
        ]
        rng.shuffle(told)
        for batch in batches(told, rng):
            merge_candidates(connection, batch)
        rows.append(
            [stored(connection, symbol, NOVEMBER_END_US + n * 60_000_000) for n in range(1000)]
        )

    assert rows[0] == rows[1]
    twins = [expected(merge(moved(e, "AUSDT", n) for e in g)) for n, g in enumerate(groups)]
    assert rows[0] == twins


def test_equal_values_raise_the_provenance_but_not_the_revision(connection: Connection) -> None:
    merge_candidates(connection, [candidate(Source.KLINE, candle(ids=(1, 3)))])
    before = connection.execute("SELECT updated_at FROM market.candles_1m").fetchone()

    counts = merge_candidates(connection, [candidate(Source.REST, candle())])

    assert counts == MergeCounts(offered=1, confirmed=1)
    row = connection.execute(
        "SELECT source, first_trade_id, last_trade_id, revision FROM market.candles_1m"
    ).fetchone()
    assert row == ("rest", 1, 3, 0)
    assert connection.execute("SELECT updated_at FROM market.candles_1m").fetchone() == before


def test_replaced_values_are_recorded_with_the_time_they_were_stored(
    connection: Connection,
) -> None:
    merge_candidates(connection, [candidate(Source.KLINE, candle(price="10", ids=(1, 3)))])

    counts = merge_candidates(connection, [candidate(Source.REST, candle(price="11"))])

    assert counts == MergeCounts(offered=1, changed=1, discrepancies=1)
    found = connection.execute(
        """
        SELECT d.winner_source, d.loser_source, d.loser_open, d.loser_last_trade_id,
            upper(d.stored_during) = c.updated_at, c.revision
        FROM ops.discrepancies AS d INNER JOIN market.candles_1m AS c USING (symbol, open_time)
        """
    ).fetchall()
    assert found == [("rest", "kline", 10, 3, True, 1)]


def test_losing_values_are_recorded_once(connection: Connection) -> None:
    merge_candidates(connection, [candidate(Source.REST, candle(price="11"))])
    loser = candidate(Source.KLINE, candle(price="10"))

    first = merge_candidates(connection, [loser, loser])
    second = merge_candidates(connection, [loser])

    assert (first.discrepancies, second.discrepancies) == (1, 0)
    found = connection.execute(
        "SELECT loser_source, loser_open, isempty(stored_during) FROM ops.discrepancies"
    ).fetchall()
    assert found == [("kline", 10, True)]


def test_losers_within_one_batch_are_recorded(connection: Connection) -> None:
    counts = merge_candidates(
        connection,
        [
            candidate(Source.KLINE, candle(price="10")),
            candidate(Source.REST, candle(price="11")),
            candidate(Source.STREAM, candle(price="12")),
        ],
    )

    assert counts == MergeCounts(offered=3, inserted=1, unchanged=2, discrepancies=2)
    losers = connection.execute("SELECT loser_source FROM ops.discrepancies ORDER BY 1").fetchall()
    assert losers == [("kline",), ("stream",)]


def test_values_that_win_again_get_their_ids_back(connection: Connection) -> None:
    merge_candidates(connection, [candidate(Source.KLINE, candle(price="10", ids=(1, 3)))])
    merge_candidates(connection, [candidate(Source.DUMP_DAILY, candle(price="11"))])
    merge_candidates(connection, [candidate(Source.REST, candle(price="10"))])

    row = connection.execute(
        "SELECT open, first_trade_id, last_trade_id, revision FROM market.candles_1m"
    ).fetchone()
    assert row == (10, 1, 3, 2)


def test_late_ids_do_not_change_updated_at(connection: Connection) -> None:
    merge_candidates(connection, [candidate(Source.REST, candle())])
    before = connection.execute("SELECT updated_at FROM market.candles_1m").fetchone()

    counts = merge_candidates(connection, [candidate(Source.KLINE, candle(ids=(1, 3)))])

    assert counts == MergeCounts(offered=1, confirmed=1)
    row = connection.execute(
        "SELECT source, first_trade_id, last_trade_id, revision FROM market.candles_1m"
    ).fetchone()
    assert row == ("rest", 1, 3, 0)
    assert connection.execute("SELECT updated_at FROM market.candles_1m").fetchone() == before


def test_values_stored_twice_have_both_periods(connection: Connection) -> None:
    issued = [("10", 0), ("11", 1), ("10", 2)]
    for price, number in issued:
        again = candidate(
            Source.DUMP_DAILY, candle(price=price), evidence_at_us=EVIDENCE_US[number]
        )
        merge_candidates(connection, [again])
    merge_candidates(connection, [candidate(Source.REST, candle(price="12"))])

    stored_during = connection.execute(
        "SELECT loser_open, (SELECT count(*) FROM unnest(stored_during)) FROM ops.discrepancies "
        "ORDER BY 1"
    ).fetchall()
    at_any_time = connection.execute(
        "SELECT range_agg(d.stored_during) = tstzmultirange(tstzrange("
        "min(lower(d.stored_during)), max(c.updated_at))) "
        "FROM ops.discrepancies AS d CROSS JOIN market.candles_1m AS c"
    ).fetchone()
    assert stored_during == [(10, 2), (11, 1)]
    assert at_any_time == (True,)


def test_aggregate_is_not_ranked_by_ids_of_another_source(connection: Connection) -> None:
    """A file's high ids join the aggregated row; a candle with later ids must still win."""
    aggregated = candidate(Source.STREAM, candle(price="10", ids=(1, 100)))
    file = candidate(Source.FILE, candle(price="10", ids=(1, 200)))
    further = candidate(Source.STREAM, candle(price="9", ids=(1, 150)))

    for each in (aggregated, file, further):
        merge_candidates(connection, [each])

    assert stored(connection, "BTCUSDT", NOVEMBER_END_US) == expected(
        merge([aggregated, file, further])
    )


def test_verdict_counts_differences_from_the_present_row_only(connection: Connection) -> None:
    merge_candidates(connection, [candidate(Source.KLINE, candle(price="10"))])
    merge_candidates(connection, [candidate(Source.DUMP_DAILY, candle(price="11"))])
    disputed = connection.execute(
        "SELECT source, differing_minutes, verdict FROM ops.verdicts"
    ).fetchall()
    merge_candidates(connection, [candidate(Source.REST, candle(price="10"))])
    settled = connection.execute("SELECT source, differing_minutes FROM ops.verdicts").fetchall()

    assert disputed == [("kline", 1, "differs")]
    assert settled == [("dump_daily", 1)]


def frame_of(given: list[CandleCandidate]) -> pl.DataFrame:
    rows = [
        {
            "symbol": each.candle.symbol,
            "open_time": from_us(each.candle.open_time_us),
            "open": str(each.candle.open),
            "high": str(each.candle.high),
            "low": str(each.candle.low),
            "close": str(each.candle.close),
            "volume": str(each.candle.volume),
            "quote_volume": str(each.candle.quote_volume),
            "trade_count": each.candle.trade_count,
            "taker_buy_volume": str(each.candle.taker_buy_volume),
            "taker_buy_quote_volume": str(each.candle.taker_buy_quote_volume),
            "first_trade_id": each.candle.first_trade_id,
            "last_trade_id": each.candle.last_trade_id,
            "status": each.status.value,
            "source": each.source.value,
            "source_rank": each.rank,
            "evidence_at": from_us(each.evidence_at_us or 0),
        }
        for each in given
    ]
    times = {"open_time": pl.Datetime("us", "UTC"), "evidence_at": pl.Datetime("us", "UTC")}
    return pl.DataFrame(rows, schema_overrides=times, infer_schema_length=None)


def test_frame_is_merged_in_chunks_and_reports_progress(connection: Connection) -> None:
    price = "0.12345678901234567890123456789"
    at_us = EVIDENCE_US[1]
    of = [
        moved(
            candidate(Source.DUMP_DAILY, candle(price=f"1{price}"), evidence_at_us=at_us),
            "ÄUSDT",
            n,
        )
        for n in range(5)
    ]
    done: list[int] = []

    counts = merge_frame(connection, frame_of(of), progress=done.append, chunk_rows=2)

    assert counts == MergeCounts(offered=5, inserted=5)
    assert done == [2, 4, 5]
    candles = read_candles(connection, "ÄUSDT", NOVEMBER_END_US, NOVEMBER_END_US + 300_000_000)
    assert candles == [each.candle for each in of]
    times = connection.execute("SELECT DISTINCT evidence_at FROM market.candles_1m").fetchall()
    assert times == [(from_us(at_us),)]


def test_frame_merges_like_its_candidates(connection: Connection) -> None:
    of = [
        moved(candidate(source, candle(price=price, ids=(1, 2))), "AUSDT", minute)
        for source, price in [(Source.KLINE, "10"), (Source.REST, "10"), (Source.DUMP_DAILY, "12")]
        for minute in range(3)
    ]

    counts = merge_frame(connection, frame_of(of))

    assert counts == MergeCounts(offered=9, inserted=3, unchanged=6, discrepancies=3)
    kept = merge(each for each in of if each.candle.open_time_us == NOVEMBER_END_US)
    assert stored(connection, "AUSDT", NOVEMBER_END_US) == expected(kept)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("open", 1.5, "a float would round"),
        ("open_time", from_us(NOVEMBER_END_US).replace(tzinfo=None), "expected UTC times"),
    ],
)
def test_frame_with_floats_or_times_without_zone_is_refused(
    connection: Connection, column: str, value: object, complaint: str
) -> None:
    frame = frame_of([candidate()]).with_columns(pl.lit(value).alias(column))

    with pytest.raises(PermanentError, match=complaint):
        merge_frame(connection, frame)


def test_frame_without_a_column_is_refused_by_name(connection: Connection) -> None:
    with pytest.raises(PermanentError, match="quote_volume"):
        merge_frame(connection, frame_of([candidate()]).drop("quote_volume"))


BROKEN = {
    "high": ("8", "candles_1m_high_is_the_highest"),
    "low": ("10.5", "candles_1m_low_is_the_lowest"),
    "taker_buy_volume": ("3", "candles_1m_volumes_are_amounts"),
    "volume": ("NaN", "candles_1m_volumes_are_amounts"),
    "quote_volume": ("Infinity", "candles_1m_volumes_are_amounts"),
    "trade_count": (0, "candles_1m_no_trades_means_no_volume"),
    "source_rank": (70, "candles_1m_rank_fits_the_source"),
    "status": ("unconfirmed", "candles_1m_source_and_status_fit"),
    "open_time": (from_us(NOVEMBER_END_US + 1), "candles_1m_open_time_is_a_full_minute"),
}


@pytest.mark.parametrize("column", BROKEN)
def test_impossible_row_is_refused_with_the_name_of_the_rule(
    connection: Connection, column: str
) -> None:
    value, rule = BROKEN[column]
    frame = frame_of([candidate()])
    frame = frame.with_columns(pl.lit(value).cast(frame.schema[column]).alias(column))

    with pytest.raises(PermanentError, match=rule):
        merge_frame(connection, frame)
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)


def test_several_merges_fit_into_a_transaction_of_the_caller(connection: Connection) -> None:
    with connection.transaction() as transaction:
        merge_candidates(connection, [candidate()])
        second = merge_candidates(connection, [moved(candidate(), "ETHUSDT", 0)])
        both = connection.execute("SELECT count(*) FROM market.candles_1m").fetchone()
        raise psycopg.Rollback(transaction)

    assert (second, both) == (MergeCounts(offered=1, inserted=1), (2,))
    assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (0,)


def test_partial_rows_give_way_to_complete_ones_of_the_same_source(connection: Connection) -> None:
    merge_candidates(connection, [candidate(Source.STREAM, candle(), status=Status.PARTIAL)])

    assert merge_candidates(connection, [candidate(Source.STREAM, candle())]).confirmed == 1


def test_merge_without_candidates_changes_nothing(connection: Connection) -> None:
    assert merge_candidates(connection, []) == MergeCounts()


def test_template_has_the_columns_that_writers_fill(connection: Connection) -> None:
    columns = connection.execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = 'ops' AND table_name = 'candle_candidates' ORDER BY ordinal_position"
    ).fetchall()

    assert tuple(name for (name,) in columns) == CANDIDATE_COLUMNS
