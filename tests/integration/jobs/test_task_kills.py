"""Reconciliation, registry and repairs: killed in the middle, the rerun ends in the same tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from json import dumps

import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle, CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import DAY_US, MINUTE_US, from_us, to_us
from include.jobs.instruments import sync_instruments
from include.jobs.klines.reconcile import plan_reconciliation, reconcile_group
from include.jobs.klines.repair import repair_gaps
from include.jobs.task_json import to_json
from include.store.candles.minutes import merge_candidates, read_candles
from include.store.ledgers.gaps import open_gap
from tests.integration.jobs.killing import run_killed

Oracle = Callable[[str, int, int], list[Candle]]
DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))
WRONG = DAY + 300 * MINUTE_US
"""The stream's value of this minute differs from the exchange's."""

CANDLES = (
    "SELECT symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,"
    " taker_buy_volume, taker_buy_quote_volume, status, source, revision"
    " FROM market.candles_1m ORDER BY 1, 2"
)
COVERAGE = "SELECT symbol, source, day, minutes FROM ops.coverage ORDER BY 1, 2, 3"
FILES = "SELECT path, checksum, rows, verdict FROM ops.dump_files ORDER BY 1, 2"
DISCREPANCIES = (
    "SELECT symbol, open_time, loser_source, loser_close, winner_source FROM ops.discrepancies"
    " ORDER BY 1, 2, 3"
)
VERDICTS = "SELECT to_jsonb(r) - 'reconciled_at' FROM ops.reconciliations AS r ORDER BY symbol, day"
REGISTRY = (
    "SELECT to_jsonb(i) - 'seen_at' - 'listed_to', listed_to IS NULL FROM market.instruments AS i"
    " ORDER BY symbol, listed_from"
)
GAPS = (
    "SELECT symbol, from_time, to_time, repaired_at IS NOT NULL, claimed_by"
    " FROM ops.gaps ORDER BY symbol, from_time"
)

RECONCILING = """
import importlib, json, sys
from include.config import load_settings
from include.jobs.klines import reconcile
from include.jobs.task_json import from_json
from tests.integration.jobs.killing import kill_at

module, name, when, calls, group = sys.argv[1:]
kill_at(importlib.import_module(module), name, when, int(calls))
reconcile.reconcile_group(settings=load_settings(), group=from_json(json.loads(group)))
"""
SYNCHRONISING = """
import importlib, sys
from include.config import load_settings
from include.jobs import instruments
from tests.integration.jobs.killing import kill_at

module, name, when, calls = sys.argv[1:]
kill_at(importlib.import_module(module), name, when, int(calls))
instruments.sync_instruments(settings=load_settings())
"""
REPAIRING = """
import importlib, sys
from include.config import load_settings
from include.jobs.klines import repair
from tests.integration.jobs.killing import kill_at

module, name, when, calls = sys.argv[1:]
kill_at(importlib.import_module(module), name, when, int(calls))
repair.repair_gaps(settings=load_settings(), worker="killed", older_than_s=0)
"""


def content_of(connection: psycopg.Connection, *statements: str) -> list[object]:
    return [connection.execute(statement).fetchall() for statement in statements]


def empty(connection: psycopg.Connection) -> None:
    connection.execute(
        "TRUNCATE market.candles_1m, market.instruments, ops.coverage, ops.dump_files,"
        " ops.discrepancies, ops.reconciliations, ops.gaps, ops.outages, ops.candle_changes"
    )


# --- reconcile_candles


@pytest.fixture
def streamed(connection: psycopg.Connection) -> Callable[[], None]:
    """Empty the tables and store a wrong minute from the stream."""

    def rebuild() -> None:
        empty(connection)
        candle = silent_candle("COSUSDT", WRONG, Decimal(1))
        merge_candidates(
            connection, [CandleCandidate(candle, Status.VERIFIED, Source.KLINE, WRONG + MINUTE_US)]
        )

    rebuild()
    return rebuild


@pytest.mark.parametrize(
    ("module", "name", "when", "calls"),
    [
        ("include.jobs.klines.reconcile", "note_live", "after", 1),
        (
            "include.jobs.klines.minutes",
            "merge_candidates",
            "after",
            1,
        ),  # REST's rows, not yet covered
        ("include.jobs.klines.reconcile", "fetch_minutes", "after", 1),
        (
            "include.jobs.klines.dump_loading",
            "merge_frames",
            "after",
            1,
        ),  # the file's, not in the ledger
        ("include.jobs.klines.reconcile", "load_dump_piece", "after", 2),
        ("include.jobs.klines.reconcile", "record_verdicts", "before", 1),
        ("include.jobs.klines.reconcile", "record_verdicts", "after", 1),  # one day of two
    ],
)
def test_killed_reconciliation_ends_in_the_same_verdicts(
    settings: Settings, connection: psycopg.Connection, streamed: Callable[[], None],
    module: str, name: str, when: str, calls: int,
) -> None:  # fmt: skip
    (group,) = plan_reconciliation(
        settings=settings, symbols="COSUSDT", start=from_us(DAY), end=from_us(DAY + 2 * DAY_US)
    )
    ledgers = (CANDLES, COVERAGE, FILES, DISCREPANCIES, VERDICTS)
    assert reconcile_group(settings=settings, group=group).days == {"differs": 1, "agrees": 1}
    undisturbed = content_of(connection, *ledgers)
    streamed()

    run_killed(settings, "-c", RECONCILING, module, name, when, str(calls), dumps(to_json(group)))
    assert content_of(connection, *ledgers) != undisturbed

    assert reconcile_group(settings=settings, group=group).days == {"differs": 1, "agrees": 1}
    assert content_of(connection, *ledgers) == undisturbed


# --- sync_instruments


@pytest.mark.parametrize(
    ("module", "name", "when", "calls"),
    [
        ("include.jobs.instruments", "write_instruments", "before", 1),
        ("include.store.instruments", "_arguments", "after", 3),
        ("include.jobs.instruments", "write_instruments", "after", 1),  # spot, not yet USD-M
        ("include.jobs.instruments", "write_instruments", "after", 2),
    ],
)
def test_killed_synchronisation_ends_in_the_same_registry(
    settings: Settings, connection: psycopg.Connection,
    module: str, name: str, when: str, calls: int,
) -> None:  # fmt: skip
    def begin() -> None:
        """One listing is not shown any more, another one's status has changed since."""
        empty(connection)
        sync_instruments(settings=settings)
        connection.execute(
            "INSERT INTO market.instruments SELECT (jsonb_populate_record(i, jsonb_build_object("
            "'symbol', 'GONEUSDT', 'base_asset', 'GONE'))).* FROM market.instruments AS i"
            " WHERE symbol = 'COSUSDT'"
        )
        connection.execute(
            "UPDATE market.instruments SET status = 'BREAK' WHERE symbol = 'ETHUSDT.P'"
        )

    begin()
    assert sync_instruments(settings=settings).ended == 1
    undisturbed = content_of(connection, REGISTRY)
    begin()

    run_killed(settings, "-c", SYNCHRONISING, module, name, when, str(calls))
    sync_instruments(settings=settings)

    assert content_of(connection, REGISTRY) == undisturbed


# --- repair_gaps


@pytest.mark.parametrize(
    ("module", "name", "when", "calls"),
    [
        ("include.jobs.klines.repair", "claim_gaps", "after", 1),
        ("include.jobs.klines.minutes", "merge_candidates", "after", 1),
        ("include.jobs.klines.repair", "close_gap", "before", 1),
        ("include.jobs.klines.repair", "close_gap", "after", 1),  # one of three
    ],
)
def test_killed_repairs_are_repeated_once_their_claims_expire(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle,
    module: str, name: str, when: str, calls: int,
) -> None:  # fmt: skip
    spans = [(DAY + n * 100 * MINUTE_US, DAY + (n * 100 + 30) * MINUTE_US) for n in range(3)]

    def begin() -> None:
        empty(connection)
        for start_us, end_us in spans:
            open_gap(connection, symbol="COSUSDT", start_us=start_us, end_us=end_us, cause="cut")

    begin()
    assert repair_gaps(settings=settings, worker="calm", older_than_s=0).repaired == 3
    undisturbed = content_of(connection, CANDLES, GAPS)
    begin()

    run_killed(settings, "-c", REPAIRING, module, name, when, str(calls))
    assert content_of(connection, CANDLES, GAPS) != undisturbed
    # the dead worker's claims are valid for a while; meanwhile only proven gaps are closed
    early = repair_gaps(settings=settings, worker="early", older_than_s=0)
    assert early.counts.rest_pages == 0
    connection.execute("UPDATE ops.gaps SET claimed_at = claimed_at - interval '1 hour'")
    repair_gaps(settings=settings, worker="late", older_than_s=0)

    assert content_of(connection, CANDLES, GAPS) == undisturbed
    for start_us, end_us in spans:
        stored = read_candles(connection, "COSUSDT", start_us, end_us)
        theirs = oracle("COSUSDT", start_us, end_us)
        assert [one.values for one in stored] == [one.values for one in theirs]
