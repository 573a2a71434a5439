"""Nothing of a dump file is used before all of it was read, however long it is."""

from __future__ import annotations

import psycopg

from include.config import Settings
from include.domain.timeframes import DAY_US
from include.jobs.klines.backfill import load_dump_piece
from include.store.candles.minutes import read_candles
from tests.integration.jobs.faulty_host import FaultyHost
from tests.integration.jobs.klines.test_backfill_faults import (
    DAY,
    NAME,
    PIECE,
    Oracle,
    assert_replaced_by_rest,
    values,
    with_csv,
)

BLANKS = [" " * 60_000] * 300
"""More bytes than one parsed block."""


def test_file_with_late_damage_is_not_used_at_all(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    def damage(lines: list[str]) -> list[str]:
        return [*lines, *BLANKS, "x" * (17 << 20)]

    new_zip, new_sum = with_csv(damage)
    host.changes[NAME] = new_zip
    host.changes[f"{NAME}.CHECKSUM"] = new_sum
    counts = load_dump_piece(settings=through_host, piece=PIECE)
    assert (counts.dumps, counts.replaced_dumps, counts.inserted) == (0, 1, 1440)
    assert_replaced_by_rest(connection, oracle, "corrupt")


def test_distant_contradicting_rows_of_a_minute_are_all_rejected(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    def contradict(lines: list[str]) -> list[str]:
        fields = lines[0].split(",")
        fields[8] = str(int(fields[8]) + 1)
        return [",".join(fields), *lines[1:], *BLANKS, lines[0]]

    new_zip, new_sum = with_csv(contradict)
    host.changes[NAME] = new_zip
    host.changes[f"{NAME}.CHECKSUM"] = new_sum
    load_dump_piece(settings=through_host, piece=PIECE)
    stored = read_candles(connection, "COSUSDT", DAY, DAY + DAY_US)
    assert values(stored) == values(oracle("COSUSDT", DAY, DAY + DAY_US))
    sources = connection.execute(
        "SELECT source, count(*) FROM market.candles_1m GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert sources == [("dump_daily", 1439), ("rest", 1)]
    assert connection.execute("SELECT count(*) FROM ops.discrepancies").fetchone() == (0,)


def test_distant_equal_rows_of_a_minute_are_one_row(
    through_host: Settings, host: FaultyHost, connection: psycopg.Connection, oracle: Oracle
) -> None:
    new_zip, new_sum = with_csv(lambda lines: [*lines, *BLANKS, lines[0], lines[3]])
    host.changes[NAME] = new_zip
    host.changes[f"{NAME}.CHECKSUM"] = new_sum
    counts = load_dump_piece(settings=through_host, piece=PIECE)
    assert (counts.inserted, counts.rejected, counts.rest_pages) == (1440, 2, 0)
    stored = read_candles(connection, "COSUSDT", DAY, DAY + DAY_US)
    assert values(stored) == values(oracle("COSUSDT", DAY, DAY + DAY_US))
    assert connection.execute("SELECT rows, rejected FROM ops.dump_files").fetchone() == (1440, 2)
