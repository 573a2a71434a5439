"""Missed minutes are in ``ops.gaps`` immediately, and closed when the table proves them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, from_us, minute_of
from include.store.ledgers.gaps import open_gap
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.storage import repair_queue as repair
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    minutes_of,
    rows_of,
    settings_for,
    streaming,
    wait_for_rows,
)

SYMBOLS = ["BTCUSDT", "ETHBTC", "BTCUSDT.P"]
FAST = SimulatorConfig(speed=30)
Row = dict[str, Any]


async def gaps_of(database_url: str) -> list[Row]:
    async with await psycopg.AsyncConnection.connect(
        database_url, row_factory=psycopg.rows.dict_row
    ) as connection:
        cursor = await connection.execute("SELECT * FROM ops.gaps ORDER BY symbol, from_time")
        return await cursor.fetchall()


async def until_gaps(database_url: str, hold: Callable[[list[Row]], bool]) -> list[Row]:
    gaps: list[Row] = []
    try:
        async with asyncio.timeout(60):
            while not hold(gaps := await gaps_of(database_url)):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"the gaps stay {gaps}") from None
    return gaps


def none_open(gaps: list[Row]) -> bool:
    return all(gap["repaired_at"] for gap in gaps)


def all_closed(gaps: list[Row]) -> bool:
    return bool(gaps) and none_open(gaps)


async def broken_ids(database_url: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(
            """
            SELECT p.symbol, p.open_time, p.continuity, p.missing_minutes
            FROM (SELECT DISTINCT c.symbol FROM market.candles_1m AS c) AS s
            CROSS JOIN ops.candle_evidence(s.symbol, '2020-01-01Z', '2100-01-01Z') AS p
            WHERE p.is_broken OR p.missing_minutes > 0 OR NOT p.status = ANY(ARRAY['verified'])
            """
        )
        return await cursor.fetchall()


async def test_complete_stream_has_no_gap(database_url: str) -> None:
    async with (
        Exchange(FAST) as exchange,
        streaming(settings_for(exchange, database_url), *SYMBOLS),
    ):
        await wait_for_rows(
            database_url, lambda rows: all(len(minutes_of(rows, s)) >= 4 for s in SYMBOLS)
        )
    assert await gaps_of(database_url) == []
    assert await broken_ids(database_url) == []


async def test_disconnect_is_a_gap_of_each_symbol_until_its_minutes_are_proven(
    database_url: str,
) -> None:
    async with Exchange(FAST) as exchange:
        async with streaming(settings_for(exchange, database_url), *SYMBOLS):
            await wait_for_rows(
                database_url, lambda rows: all(minutes_of(rows, s) for s in SYMBOLS)
            )
            cut_us = minute_of(exchange.clock.now_us())
            exchange.stream_servers["spot"].cut()
            exchange.stream_servers["um"].cut()
            gaps = await until_gaps(database_url, lambda gaps: len(gaps) >= 3)
            assert {gap["cause"] for gap in gaps} == {"connection lost"}
            gaps = await until_gaps(database_url, all_closed)
            back_us = exchange.clock.now_us()
        assert [gap["symbol"] for gap in gaps] == sorted(SYMBOLS)
        for gap in gaps:
            assert gap["from_time"] in (from_us(cut_us), from_us(cut_us - MINUTE_US))
            assert from_us(cut_us) < gap["to_time"] <= from_us(back_us)
            # "rows": the look at the table every half minute came first, on a busy machine.
            assert gap["repaired_by"] in ("kline", "rest", "kline and rest", "rows")
            assert gap["opened_at"] <= gap["repaired_at"]
        await assert_equal_to_the_exchange(exchange, await rows_of(database_url), SYMBOLS)
    assert await broken_ids(database_url) == []


async def test_missing_trades_are_a_gap_of_their_minute(database_url: str) -> None:
    async with (
        Exchange(FAST) as exchange,
        streaming(settings_for(exchange, database_url), *SYMBOLS),
    ):
        await wait_for_rows(database_url, lambda rows: all(minutes_of(rows, s) for s in SYMBOLS))
        fault = {"kind": "drop", "market": "spot", "streams": "btcusdt@aggTrade", "duration_s": 8}
        exchange.faults.add([fault])
        gaps = await until_gaps(database_url, all_closed)
        assert {gap["symbol"] for gap in gaps} == {"BTCUSDT"}
        assert {gap["cause"] for gap in gaps} == {"missing trades"}


async def test_gaps_of_an_ended_streamer_are_adopted_by_the_next_one(database_url: str) -> None:
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url, fill_lookback_minutes=1)
        async with streaming(settings, "BTCUSDT"):
            rows = await wait_for_rows(
                database_url, lambda rows: len(minutes_of(rows, "BTCUSDT")) >= 2
            )
        first_us = minutes_of(rows, "BTCUSDT")[0]
        with connect(database_url, application_name="test") as connection:
            # hours before the lookback: only the ledger knows of them
            for symbol, hours in (("BTCUSDT", 5), ("ETHBTC", 5)):
                open_gap(
                    connection,
                    symbol=symbol,
                    start_us=first_us - hours * 60 * MINUTE_US,
                    end_us=first_us - (hours * 60 - 3) * MINUTE_US,
                    cause="connection lost",
                )
        async with streaming(settings, "BTCUSDT"):
            gaps = await until_gaps(
                database_url,
                lambda gaps: any(
                    gap["repaired_at"] and gap["cause"] == "connection lost" for gap in gaps
                ),
            )
        old = [gap for gap in gaps if gap["cause"] == "connection lost"]
        assert [(gap["symbol"], gap["repaired_by"]) for gap in old] == [
            ("BTCUSDT", "rest"), ("ETHBTC", None),
        ]  # fmt: skip
        rows = await rows_of(database_url)
        assert {first_us - minutes * MINUTE_US for minutes in (300, 299, 298)} <= set(
            minutes_of(rows, "BTCUSDT")
        )


async def test_gap_that_rest_cannot_fill_stays_open_with_the_reason(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "MAX_ATTEMPTS", 1)
    async with Exchange(FAST) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "BTCUSDT") as streamer:
            rows = await wait_for_rows(database_url, lambda rows: len(rows) >= 1)
            first_us = minutes_of(rows, "BTCUSDT")[0]
            exchange.faults.add([{"kind": "rest_error", "status": 400}])
            streamer.rest_needed("BTCUSDT", first_us - MINUTE_US, first_us, "test")
            (gap,) = await until_gaps(
                database_url, lambda gaps: any("error" in gap["detail"] for gap in gaps)
            )
    assert (gap["repaired_at"], gap["claimed_at"]) == (None, None)
    assert gap["from_time"] == from_us(first_us - MINUTE_US)
