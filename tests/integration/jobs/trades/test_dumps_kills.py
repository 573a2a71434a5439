"""A load of trades that is killed in the middle ends in the same table; so does a new issue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from json import dumps

import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import DAY_US, to_us
from include.jobs.task_json import to_json
from include.jobs.trades.dumps import load_trade_dump
from include.jobs.trades.pieces import TradeDumpCounts
from include.jobs.trades.planning import TradeDumpPlan, plan_trade_dumps
from include.store.candles.minutes import read_candles
from simulator.dumps.faults import AlterRows, DumpRule, ReissueFile
from simulator.server import ExchangeThread
from tests.integration.jobs.killing import run_killed

Oracle = Callable[[str, int, int], list[Candle]]
DAY = to_us(datetime(2026, 11, 17, tzinfo=UTC))

KILLED = """
import functools, json, sys
from include.binance.files.trade_files import TradeReader
from include.config import load_settings
from include.jobs.trades import dumps as trade_dumps, file_candles
from include.jobs.task_json import from_json
from tests.integration.jobs.killing import kill_at

name, when, calls, piece = sys.argv[1:]
# a file in several blocks, as a larger one is
TradeReader.read_file = functools.partialmethod(TradeReader.read_file, block_bytes=1 << 14)
kill_at(file_candles, name, when, int(calls))
trade_dumps.load_trade_dump(settings=load_settings(), piece=from_json(json.loads(piece)))
"""

STEPS = [
    ("write_raw_frame", "after", 2),  # rows of two blocks are in
    ("add_coverage", "after", 1),
    ("record_dump_file", "before", 1),
    ("record_dump_file", "after", 1),
    ("merge_frames", "after", 1),  # loaded, its edges not proven yet
    ("prove_edges", "after", 1),
    ("record_dump_file", "before", 2),
]

CONTENT = (
    """
    SELECT symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume, status, source, revision
    FROM market.candles_1m ORDER BY 1, 2
    """,
    """
    SELECT symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id, trade_time,
        is_buyer_maker
    FROM market.agg_trades ORDER BY symbol, agg_trade_id
    """,
    "SELECT symbol, source, day, minutes FROM ops.coverage ORDER BY 1, 2, 3",
    "SELECT path, checksum, rows, rejected, verdict, detail FROM ops.dump_files ORDER BY 1, 2",
    "SELECT count(*) FROM ops.discrepancies",
)


def content_of(connection: psycopg.Connection) -> list[object]:
    return [connection.execute(statement).fetchall() for statement in CONTENT]


def plan_of(settings: Settings) -> TradeDumpPlan:
    return plan_trade_dumps(
        settings=settings, symbols="COSUSDT", market="spot", kind="agg_trades",
        start=DAY, end=DAY + 3 * DAY_US, keep_raw=True,
    )  # fmt: skip


def load(settings: Settings, plan: TradeDumpPlan) -> TradeDumpCounts:
    counts = TradeDumpCounts()
    for piece in plan.pieces:
        counts += load_trade_dump(settings=settings, piece=piece)
    return counts


@pytest.fixture
def undisturbed(settings: Settings, connection: psycopg.Connection) -> list[object]:
    """What loads that nothing happens to end in; the tables are empty again."""
    load(settings, plan_of(settings))
    content = content_of(connection)
    connection.execute(
        "TRUNCATE market.candles_1m, market.agg_trades, ops.coverage, ops.dump_files, "
        "ops.candle_changes"
    )
    return content


@pytest.mark.parametrize(("name", "when", "calls"), STEPS)
def test_new_plan_after_a_kill_gives_the_same_table(
    settings: Settings, connection: psycopg.Connection, undisturbed: list[object],
    name: str, when: str, calls: int,
) -> None:  # fmt: skip
    first, middle, _ = plan_of(settings).pieces
    load_trade_dump(settings=settings, piece=first)
    run_killed(settings, "-c", KILLED, name, when, str(calls), dumps(to_json(middle)))
    again = plan_of(settings)
    assert first not in again.pieces
    load(settings, again)
    assert content_of(connection) == undisturbed


@pytest.mark.parametrize(
    ("name", "when", "is_stored"),
    [
        ("add_coverage", "before", False),
        ("record_rejected_rows", "after", False),
        ("record_dump_file", "before", False),
        ("merge_frames", "after", True),
    ],
)
def test_kill_leaves_candles_with_their_ledgers_or_neither(
    settings: Settings, connection: psycopg.Connection, name: str, when: str, is_stored: bool
) -> None:
    piece = plan_of(settings).pieces[0]
    run_killed(settings, "-c", KILLED, name, when, "1", dumps(to_json(piece)))
    for table in ("market.candles_1m", "ops.coverage", "ops.dump_files"):
        found = connection.execute(f"SELECT count(*) > 0 FROM {table}").fetchone()  # noqa: S608
        assert found == (is_stored,), table


@pytest.fixture
def _healed(exchange: ExchangeThread) -> Iterator[None]:
    yield
    exchange.dump_faults.clear()


@pytest.mark.usefixtures("_healed")
def test_reissued_trade_file_is_loaded_once_more(
    settings: Settings, exchange: ExchangeThread, connection: psycopg.Connection, oracle: Oracle
) -> None:
    at_us = exchange.clock.now_us() + 3_000_000
    rule = DumpRule(
        effect=ReissueFile(at_us=at_us, change=AlterRows(rows=3)), path="*aggTrades-2026-11-18.zip"
    )
    exchange.dump_faults.add(rule)
    assert load(settings, plan_of(settings)).files == 3
    assert plan_of(settings).pieces == ()
    deadline = time.monotonic() + 20
    while exchange.clock.now_us() < at_us:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (again,) = plan_of(settings).pieces
    assert again.path.endswith("COSUSDT-aggTrades-2026-11-18.zip")
    assert load_trade_dump(settings=settings, piece=again).files == 1
    states = connection.execute(
        "SELECT count(*), count(DISTINCT checksum) FROM ops.dump_files WHERE path = %s",
        (again.path,),
    ).fetchone()
    assert states == (2, 2)
    assert plan_of(settings).pieces == ()
    candles = read_candles(connection, "COSUSDT", DAY, DAY + 3 * DAY_US)
    traded = [one.values for one in oracle("COSUSDT", DAY, DAY + 3 * DAY_US) if one.trade_count]
    assert [one.values for one in candles] == traded
