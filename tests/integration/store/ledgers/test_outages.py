"""Recorded outages are read whatever their age."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.store.ledgers.outages import read_outages

ROOT = Path(__file__).parents[4]
ROLE_OF = {"status": "READER_DATABASE_URL", "check": "JOBS_DATABASE_URL"}
"""The only URL that each command needs."""


@pytest.fixture
def recorded(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    connection.execute(
        """
        INSERT INTO ops.outages (market, symbol, minutes, cause) VALUES
        ('spot', NULL, '{[2018-02-08 00:29Z,2018-02-09 10:00Z),[2026-11-01Z,2026-11-02Z)}', 'halt'),
        ('spot', 'ABC', '{[2020-01-01Z,2020-01-02Z)}', 'no rows'),
        ('spot', 'XYZ', '{[2020-01-01Z,2020-01-02Z)}', 'no rows'),
        ('um', NULL, '{[2019-01-01Z,infinity)}', 'halt')
        """
    )
    connection.commit()
    return connection


def test_outages_are_newest_first_and_joined(recorded: psycopg.Connection[Any]) -> None:
    found = [
        (one.market, one.from_time, one.minutes, one.symbols) for one in read_outages(recorded)
    ]
    assert found == [
        ("spot", datetime(2026, 11, 1, tzinfo=UTC), 1440, []),
        ("spot", datetime(2020, 1, 1, tzinfo=UTC), 1440, ["ABC", "XYZ"]),
        ("um", datetime(2019, 1, 1, tzinfo=UTC), None, []),
        ("spot", datetime(2018, 2, 8, 0, 29, tzinfo=UTC), 2011, []),
    ]


def test_symbols_limit_them_to_their_own_and_their_market(
    recorded: psycopg.Connection[Any],
) -> None:
    assert [one.cause for one in read_outages(recorded, ["ABC"])] == ["halt", "no rows", "halt"]
    assert [one.market for one in read_outages(recorded, ["ABC.P"])] == ["um"]


@pytest.mark.parametrize(
    "arguments", [["status", "--symbols", "a/bc"], ["check", "--symbols", "ABC-USDT"]]
)
def test_commands_show_old_outages(
    recorded: psycopg.Connection[Any], database_url: str, tmp_path: Path, arguments: list[str]
) -> None:
    recorded.execute(
        "INSERT INTO market.instruments (symbol, listed_from, market, exchange_symbol, base_asset, "
        "quote_asset, status, tick_size, step_size, filters, quote_volume_is_exact, seen_at) "
        "VALUES ('ABCUSDT', '1970-01-01Z', 'spot', 'ABCUSDT', 'ABC', 'USDT', 'TRADING', 0.01, "
        "0.01, '{}', true, now())"
    )
    recorded.commit()
    run = [
        subprocess.run(
            [sys.executable, "-m", "cli", *arguments, *options],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
            env={
                "PATH": os.environ["PATH"],
                ROLE_OF[arguments[0]]: database_url, "PYTHONPATH": str(ROOT),
                "CANDELABRA_HOME": str(tmp_path),
            },
        )
        for options in ([], ["--json"])
    ]  # fmt: skip
    assert "2018-02-08 00:29 to 2018-02-09 10:00, 2,011 min: all spot symbols (halt)" in (
        run[0].stdout
    ), run[0].stderr
    told = json.loads(run[1].stdout)["outages"]
    assert told[-1]["from"] == "2018-02-08T00:29:00+00:00"
    assert len(told) == (3 if arguments[0] == "status" else 2)
