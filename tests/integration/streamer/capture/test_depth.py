"""Captured order books: rebuilt at any stored update they are the exchange's, or not known."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from include.domain.instruments import exchange_symbol_of, market_of
from simulator.config import SimulatorConfig
from simulator.server import Exchange, ExchangeThread
from tests.integration.streamer.capture.queries import wait_until
from tests.integration.streamer.capture.test_failover import Way, query_rows, server
from tests.integration.streamer.capture.test_kills import running
from tests.integration.streamer.harness import settings_for, streaming
from tests.integration.streamer.storage.own_server import Server

__all__ = ["server"]

SYMBOLS = ("BTCUSDT", "BTCUSDT.P")
LEVELS = 50
DIFF_IDS = "SELECT last_update_id FROM market.depth_diffs WHERE symbol = %s ORDER BY 1"
BOOK = (
    "SELECT side, price, quantity, is_known FROM market.book_at_update(%s, %s, %s) "
    "ORDER BY side, level"
)
SNAPSHOTS = "SELECT count(*) FROM market.depth_snapshots WHERE symbol = %s AND source = %s"
GAPS = (
    "SELECT cause, dataset FROM ops.gaps WHERE symbol = %s AND dataset LIKE 'depth%%' ORDER BY 1, 2"
)
Levels = list[tuple[Decimal, Decimal]]


def oracle(client: httpx.Client, symbol: str, update_id: int) -> tuple[Levels, Levels]:
    market = market_of(symbol).value
    asked = {"market": market, "symbol": exchange_symbol_of(symbol), "updateId": update_id}
    answer = client.get("/sim/depth", params=asked).raise_for_status().json()
    assert answer["lastUpdateId"] == update_id
    bids, asks = (
        [(Decimal(price), Decimal(quantity)) for price, quantity in answer[side]]
        for side in ("bids", "asks")
    )
    return bids, asks


def check_books(
    database_url: str, control_url: str, symbol: str, *, ids: int, seed: int = 1
) -> tuple[int, int]:
    """Compare rebuilt books with the exchange's; return how many are known, and how many not."""
    chosen = [number for (number,) in query_rows(database_url, DIFF_IDS, symbol)]
    random.Random(seed).shuffle(chosen)
    known = unknown = 0
    with (
        psycopg.connect(database_url) as connection,
        httpx.Client(base_url=control_url, timeout=60) as client,
    ):
        for update_id in chosen[:ids]:
            rows = connection.execute(BOOK, (symbol, update_id, LEVELS)).fetchall()
            if not rows:
                unknown += 1
                continue
            for side, theirs in zip(("bid", "ask"), oracle(client, symbol, update_id), strict=True):
                ours = [(price, quantity) for name, price, quantity, _ in rows if name == side]
                assert all(is_known for name, _, _, is_known in rows if name == side)
                assert ours == theirs[:LEVELS], (symbol, update_id, side)
            known += 1
    return known, unknown


@pytest.mark.long
async def test_book_at_any_update_is_the_exchanges_despite_cuts_repeats_and_lost_frames(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=10)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        async with (
            httpx.AsyncClient(base_url=exchange.control_url, timeout=60) as control,
            streaming(settings, *SYMBOLS, capture=("depth",)) as streamer,
        ):

            async def has_checkpoints(count: int) -> bool:
                return all(
                    [
                        (await rows_of(SNAPSHOTS, one, "checkpoint"))[0][0] >= count
                        for one in SYMBOLS
                    ]
                )

            async def are_live() -> bool:
                return all(streamer.live_books.book(one) is not None for one in SYMBOLS)

            await wait_until(are_live)
            await wait_until(lambda: has_checkpoints(2))
            for fault in (
                {"kind": "duplicate", "streams": "*@depth*", "share": 0.2, "duration_s": 300},
                {"kind": "drop", "streams": "*@depth*", "share": 0.01, "duration_s": 300},
            ):
                answer = await control.post("/sim/faults", json=fault)
                assert answer.is_success, answer.text
            await asyncio.sleep(4)
            for server in exchange.stream_servers.values():
                server.cut()
            before = len(await rows_of(DIFF_IDS, "BTCUSDT"))

            async def continues() -> bool:
                return len(await rows_of(DIFF_IDS, "BTCUSDT")) > before + 600

            await wait_until(continues)
            await wait_until(are_live)
            await wait_until(lambda: has_checkpoints(5))
        for symbol in SYMBOLS:
            known, unknown = await asyncio.to_thread(
                check_books, database_url, exchange.control_url, symbol, ids=500
            )
            assert known > 150, (symbol, known, unknown)
            assert unknown > 0, "cuts and lost frames leave times without a book"
            gaps = await rows_of(GAPS, symbol)
            assert ("update ids are missing", "depth_diffs") in gaps
            assert ("no snapshot yet", "depth_snapshots") in gaps


async def test_without_faults_every_book_since_the_first_snapshot_is_known(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        async with streaming(settings, *SYMBOLS, capture=("depth",)):

            async def enough() -> bool:
                return all(
                    [(await rows_of(SNAPSHOTS, one, "checkpoint"))[0][0] >= 3 for one in SYMBOLS]
                )

            await wait_until(enough)
        for symbol in SYMBOLS:
            assert await rows_of(GAPS, symbol) == []
            ((first, last),) = await rows_of(
                "SELECT min(at_time), (SELECT max(event_time) FROM market.depth_diffs "
                "WHERE symbol = %s) FROM market.depth_snapshots WHERE symbol = %s",
                symbol, symbol,
            )  # fmt: skip
            states = await rows_of(
                "SELECT t, s.state, s.event_time FROM generate_series(%s, %s, interval '1.7 s') "
                "AS t CROSS JOIN LATERAL market.book_state(%s, t) AS s",
                first, last, symbol,
            )  # fmt: skip
            assert {state for _, state, _ in states} <= {"known", "latest"}
            assert all(event_time <= at for at, _, event_time in states)
            assert await rows_of(
                "SELECT state FROM market.book_state(%s, %s::timestamptz - interval '1 s')",
                symbol, first,
            ) == [("none",)]  # fmt: skip
            assert (
                await rows_of("SELECT * FROM market.book_at(%s, '2001-01-01 00:00Z')", symbol) == []
            )


@pytest.mark.long
async def test_rows_that_a_failover_lost_leave_a_gap_in_the_book(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(monkeypatch)
    config = SimulatorConfig(speed=10, spot_symbols=("BTCUSDT",), um_symbols=())
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, server.url, candelabra_home=tmp_path)
        async with streaming(settings, "BTCUSDT", capture=("depth",)) as streamer:
            written = streamer._capture.writer.written

            async def stored() -> bool:
                return written["depth_diffs"] > 200 and written["depth_snapshots"] > 1

            await wait_until(stored)
            await way.restart(server, streamer)
            ids = [number for (number,) in query_rows(server.url, DIFF_IDS, "BTCUSDT")]
            with psycopg.connect(server.url) as connection:  # as the new primary never had them
                connection.execute(
                    "DELETE FROM market.depth_diffs WHERE last_update_id > %s", (ids[-30],)
                )
            way.is_cut = False
            goal = written["depth_snapshots"] + 3

            async def continues() -> bool:
                gaps = await asyncio.to_thread(query_rows, server.url, GAPS, "BTCUSDT")
                return bool(gaps) and written["depth_snapshots"] > goal

            await wait_until(continues)
        states = query_rows(
            server.url,
            "SELECT DISTINCT p.state FROM unnest(%s::bigint[]) AS i "
            "CROSS JOIN LATERAL ops.book_path('BTCUSDT', NULL, i) AS p",
            ids[-20:],
        )
        assert states == [("gap",)]
        known, unknown = await asyncio.to_thread(
            check_books, server.url, exchange.control_url, "BTCUSDT", ids=200
        )
        assert known > 100, (known, unknown)


@pytest.mark.long
def test_killed_capture_continues_and_its_books_are_right_or_unknown(
    database_url: str, tmp_path: Path
) -> None:
    config = SimulatorConfig(speed=10, spot_symbols=("BTCUSDT",), um_symbols=())
    with (
        ExchangeThread(config) as exchange,
        running(exchange, database_url, tmp_path, symbols="BTCUSDT", capture="depth") as streamer,
    ):
        for count in (2, 4, 6):
            until_s = time.monotonic() + 60
            while query_rows(database_url, SNAPSHOTS, "BTCUSDT", "checkpoint")[0][0] < count:
                assert time.monotonic() < until_s, streamer.log_text()[-3_000:]
                streamer.check()
                time.sleep(0.1)
            if count < 6:
                streamer.kill()
                streamer.start()
        streamer.end()
        known, unknown = check_books(database_url, exchange.control_url, "BTCUSDT", ids=300)
        assert known > 100, (known, unknown)
        causes = {cause for cause, _ in query_rows(database_url, GAPS, "BTCUSDT")}
        assert "nobody captured" in causes
