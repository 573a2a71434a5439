"""The witness sees gaps that are closed before their minutes are stored."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from include.domain.timeframes import MINUTE_US, to_us
from include.store.ledgers.gaps import close_gap, open_gap
from tests.chaos.oracle.meanwhile.witness import Witness
from tests.integration.faults.staging import wait_for

MINUTE = to_us(datetime(2026, 1, 5, 12, tzinfo=UTC))
INSERT = """
INSERT INTO market.candles_1m (
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume,
    taker_buy_quote_volume, status, source, source_rank, evidence_at
)
SELECT 'BTCUSDT', to_timestamp(%s / 1e6), 1, 1, 1, 1, 1, 1, 1, 1, 1, 'verified', 'rest', 80, now()
"""


def opened(connection: psycopg.Connection, minutes: int = 2) -> int:
    return open_gap(
        connection, symbol="BTCUSDT", start_us=MINUTE, end_us=MINUTE + minutes * MINUTE_US,
        cause="connection lost",
    )  # fmt: skip


def test_gap_closed_after_its_first_minute_is_seen(database_url: str) -> None:
    witness = Witness(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT ops.ensure_partition('market.candles_1m', to_timestamp(%s / 1e6))", (MINUTE,)
        )
        connection.execute(INSERT, (MINUTE,))
        gap_id = opened(connection)
        witness.look(connection)
        assert witness.closed_too_early == set()
        close_gap(connection, gap_id)
        other_id = opened(connection, minutes=3)
        witness.look(connection)
        assert witness.closed_too_early == set()  # the other gap still has the minute
        close_gap(connection, other_id)
        connection.execute(INSERT, (MINUTE + 2 * MINUTE_US,))
        witness.look(connection)
        assert witness.closed_too_early == {("BTCUSDT", MINUTE + MINUTE_US)}


def test_witness_looks_again_and_again_until_it_is_stopped(database_url: str) -> None:
    witness = Witness(database_url)
    witness.start()
    wait_for(lambda: witness.looks > 1, "two looks")
    witness.stop()
    looks = witness.looks
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chaos-witness'"
            " AND datname = current_database()"
        ).fetchone()
    assert (row, witness.looks) == ((0,), looks)
