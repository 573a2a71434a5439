"""A load that is killed in the middle, or meets another of the same, ends in the same table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from json import dumps

import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import MINUTE_US, to_us
from include.jobs.klines.backfill import load_pieces, plan_backfill
from include.jobs.klines.pieces import BackfillPlan
from include.jobs.task_json import to_json
from include.store.candles.minutes import read_candles
from tests.integration.jobs.killing import run_killed

Oracle = Callable[[str, int, int], list[Candle]]
FIRST = to_us(datetime(2026, 11, 18, tzinfo=UTC))
TODAY = to_us(datetime(2026, 11, 20, tzinfo=UTC))

KILLED = """
import importlib, json, sys
from include.binance.rest.weights import BEST_KLINES
from include.config import load_settings
from include.domain.instruments import Market
from include.jobs.klines import backfill, dump_loading
from include.jobs.task_json import from_json
from tests.integration.jobs.killing import kill_at

module, name, when, calls, piece = sys.argv[1:]
BEST_KLINES[Market.SPOT] = 20  # several merges of several pages
dump_loading.BLOCK_BYTES = 30_000  # a file in several blocks, as a month is
kill_at(importlib.import_module(module), name, when, int(calls))
backfill.load_piece(settings=load_settings(), piece=from_json(json.loads(piece)))
"""

OF_A_DUMP = [
    (
        "include.store.candles.merging",
        "write_csv",
        "after",
        2,
    ),  # two blocks are read, none is merged
    ("include.store.candles.merging", "_counts", "after", 1),  # merged, not committed
    ("include.store.candles.merging", "_merge_rows", "after", 1),
    ("include.jobs.klines.dump_loading", "add_coverage", "before", 1),
    ("include.jobs.klines.dump_loading", "record_dump_file", "before", 1),
    ("include.jobs.klines.dump_loading", "record_dump_file", "after", 1),
]
OF_REST = [
    ("include.store.candles.merging", "_counts", "after", 2),
    ("include.jobs.klines.minutes", "merge_candidates", "after", 2),  # merged, not yet covered
    ("include.jobs.klines.minutes", "add_coverage", "after", 1),
    ("include.jobs.klines.minutes", "remove_closed_live", "before", 1),
]


CONTENT = (
    """
    SELECT symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
        taker_buy_volume, taker_buy_quote_volume, status, revision
    FROM market.candles_1m ORDER BY 1, 2
    """,
    "SELECT market, symbol, minutes, cause FROM ops.outages ORDER BY 1, 2, 3",
    "SELECT count(*) FROM ops.discrepancies",
    "SELECT symbol, open_time, source FROM market.candles_1m ORDER BY 1, 2",
    "SELECT symbol, source, day, minutes FROM ops.coverage ORDER BY 1, 2, 3",
    "SELECT path, checksum, rows, rejected, verdict FROM ops.dump_files ORDER BY 1, 2",
)


def content_of(connection: psycopg.Connection) -> list[object]:
    """Contents of the table and the ledgers, without times of writing."""
    return [connection.execute(statement).fetchall() for statement in CONTENT]


def plan_of(settings: Settings) -> BackfillPlan:
    return plan_backfill(
        settings=settings,
        symbols="COSUSDT",
        market="spot",
        start=FIRST,
        end=TODAY + 300 * MINUTE_US,
    )


@pytest.fixture
def undisturbed(settings: Settings, connection: psycopg.Connection) -> list[object]:
    """What a load that nothing happens to ends in; the tables are empty again."""
    assert load_pieces(settings=settings, plan=plan_of(settings)).failed == ()
    content = content_of(connection)
    connection.execute(
        "TRUNCATE market.candles_1m, ops.coverage, ops.dump_files, ops.outages, ops.candle_changes"
    )
    return content


@pytest.mark.parametrize("is_planned_anew", [False, True], ids=["task again", "new plan"])
@pytest.mark.parametrize(
    ("kind", "module", "name", "when", "calls"),
    [("dump", *step) for step in OF_A_DUMP] + [("rest", *step) for step in OF_REST],
)
def test_rerun_after_a_kill_gives_the_same_table(
    settings: Settings,
    connection: psycopg.Connection,
    oracle: Oracle,
    undisturbed: list[object],
    kind: str,
    module: str,
    name: str,
    when: str,
    calls: int,
    is_planned_anew: bool,
) -> None:
    plan = plan_of(settings)
    piece = plan.dumps[0] if kind == "dump" else plan.rest[0]
    run_killed(settings, "-c", KILLED, module, name, when, str(calls), dumps(to_json(piece)))

    # a retried task loads its piece completely; a new plan contains what is still missing
    again = plan_of(settings) if is_planned_anew else plan
    assert load_pieces(settings=settings, plan=again).failed == ()

    assert content_of(connection) == undisturbed
    stored = read_candles(connection, "COSUSDT", FIRST, plan.pieces[-1].end_us)
    theirs = oracle("COSUSDT", FIRST, plan.pieces[-1].end_us)
    assert [one.values for one in stored] == [one.values for one in theirs]
    assert plan_of(settings).pieces == ()


def test_concurrent_loads_of_the_same_pieces_end_as_one(
    settings: Settings, connection: psycopg.Connection, undisturbed: list[object]
) -> None:
    plan = plan_of(settings)

    def load(_: int) -> tuple[str, ...]:
        return load_pieces(settings=settings, plan=plan, workers=2).failed

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(load, range(2))) == [(), ()]
    assert content_of(connection) == undisturbed
