"""The documented build command, and the catalog of what it builds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.jobs.dbt_env import DBT_PROJECT
from tests.integration.dbt.conftest import MarketTables, database_of

pytestmark = pytest.mark.long

ONE_LINE = 'eval "$(candelabra dbt-env)" && dbt build'
STABLE = {
    "bi_candles": """timeframe text, symbol text, open_time timestamptz, next_open_time timestamptz,
        open float8, high float8, low float8, close float8, volume float8, quote_volume float8,
        trade_count bigint, taker_buy_volume float8, taker_buy_quote_volume float8,
        is_complete boolean""",
    "bi_symbols": """symbol text, market text, exchange_symbol text, base_asset text,
        quote_asset text, listing_status text, is_trading boolean, is_streamed boolean,
        listed_from timestamptz, listed_to timestamptz, tick_size float8, step_size float8,
        newest_minute timestamptz, lag_seconds float8""",
    "bi_coverage": """symbol text, day date, expected_minutes integer, present_minutes integer,
        verified_minutes integer, outage_minutes integer, missing_minutes integer,
        is_whole boolean, present_share float8, verified_share float8""",
}
SHORT = {
    "timestamp with time zone": "timestamptz",
    "double precision": "float8",
}


START = datetime(2025, 1, 30, 21, 0, tzinfo=UTC)
FAULTY, FINE = "ODDUSDT", "FINEUSDT"
SILENT = (
    "volume = 0, quote_volume = 0, trade_count = 0, taker_buy_volume = 0,"
    " taker_buy_quote_volume = 0, first_trade_id = NULL, last_trade_id = NULL"
)
FAULTS = {
    6: "last_trade_id = first_trade_id - 5000",
    12: "first_trade_id = NULL, last_trade_id = NULL",
    18: "open = 0, high = 0, low = 0, close = 0",
    24: "quote_volume = 1000 * quote_volume",
    31: "trade_count = 1000000",
    # Two silent minutes with different prices around a missing minute.
    36: f"open = 1000, high = 1000, low = 1000, close = 1000, {SILENT}",
    38: f"open = 1040, high = 1040, low = 1040, close = 1040, {SILENT}",
    # A silent minute that is not flat.
    43: f"open = 1000, high = 1010, low = 990, close = 1003, {SILENT}",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shared_market(postgres: EmbeddedPostgres, _template: str) -> Iterator[MarketTables]:
    """A migrated database without any mart."""
    with database_of(postgres, "catalog", _template) as tables:
        tables.connection.execute("ALTER ROLE candelabra_dbt PASSWORD 'marts'")
        yield tables


@pytest.fixture(scope="module")
def environment(postgres: EmbeddedPostgres, shared_market: Any, home: Path) -> dict[str, str]:
    """A user's shell: programs on the path, and the URL of the role that builds."""
    name = str(shared_market.connection.info.dbname)
    return {
        **{name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "DBT_DATABASE_URL": postgres.url(name, user="candelabra_dbt", password="marts"),
        "CANDELABRA_HOME": str(home),
    }


def plant_faults(market: Any) -> None:
    """Faulty minutes of a symbol, which quality rules report."""
    for symbol in (FAULTY, FINE):
        market.write(symbol, START, 200)
    for minute, fault in FAULTS.items():
        update = sql.SQL("UPDATE market.candles_1m SET {} WHERE symbol = %s AND open_time = %s")
        changed = market.connection.execute(
            update.format(sql.SQL(fault)),  # type: ignore[arg-type]
            (FAULTY, START + timedelta(minutes=minute)),
        )
        assert changed.rowcount == 1
    market.delete(FAULTY, START + timedelta(minutes=37), 1)


@pytest.fixture(scope="module")
def built(shared_market: Any, environment: dict[str, str]) -> Any:
    """Two symbols, faulty minutes, and a build of every model, test and snapshot."""
    start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=90)
    for symbol in ("BTCUSDT", "ETHUSDT.P"):
        shared_market.write(symbol, start, 90)
    plant_faults(shared_market)
    ran = subprocess.run(
        ["/bin/bash", "-c", ONE_LINE],
        cwd=DBT_PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr
    assert "ERROR=0" in ran.stdout
    return shared_market


def test_documented_command_builds_everything(built: Any) -> None:
    bars = built.connection.execute(
        "SELECT sum(minute_count) FROM marts.candles_1h WHERE open_time > now() - interval '1 day'"
    ).fetchone()
    assert bars == (180,)
    pages = [DBT_PROJECT / "profiles.yml", DBT_PROJECT.parent / "docs" / "marts.md"]
    assert all(ONE_LINE in page.read_text() for page in pages)
    # dbt-env puts the target folder elsewhere.
    assert not (DBT_PROJECT / "target").exists()


def test_faulty_minutes_fail_no_layer(built: Any) -> None:
    built.assert_bars_hold_the_minutes()
    built.assert_bars_hold_the_minutes("_live")
    flat = built.connection.execute(
        "SELECT open, high, low, close, minute_count, is_complete FROM marts.candles_3m"
        " WHERE symbol = %s AND open_time = %s",
        (FAULTY, START + timedelta(minutes=36)),
    ).fetchone()
    # Flat at the last known price.
    assert flat == (*[Decimal(1040)] * 4, 2, False)


def test_every_relation_and_column_has_a_comment(built: Any) -> None:
    bare = built.connection.execute(
        """
        SELECT format('%s.%s', c.relname, a.attname)
        FROM pg_class AS c
        INNER JOIN pg_attribute AS a
            ON c.oid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE
            c.relnamespace = 'marts'::regnamespace
            AND c.relkind IN ('r', 'v', 'm')
            AND (
                coalesce(col_description(c.oid, a.attnum), '') = ''
                OR coalesce(obj_description(c.oid, 'pg_class'), '') = ''
            )
        ORDER BY 1
        """
    ).fetchall()
    assert [name for (name,) in bare] == []


def test_bi_views_keep_their_names_and_types(built: Any) -> None:
    found: dict[str, list[str]] = {}
    for view, column, kind in built.connection.execute(
        "SELECT table_name::text, column_name::text, data_type::text"
        " FROM information_schema.columns"
        " WHERE table_schema = 'marts' AND table_name LIKE 'bi\\_%' ORDER BY 1, ordinal_position"
    ):
        found.setdefault(view, []).append(f"{column} {SHORT.get(kind, kind)}")
    # Columns may be added at the end.
    for view, columns in STABLE.items():
        wanted = [re.sub(r"\s+", " ", column).strip() for column in columns.split(",")]
        assert found[view][: len(wanted)] == wanted
    assert found.keys() == STABLE.keys()


def test_reader_role_reads_everything_and_writes_nothing(
    built: Any, postgres: EmbeddedPostgres
) -> None:
    built.connection.execute("ALTER ROLE candelabra_reader PASSWORD 'reads'")
    url = postgres.url(
        str(built.connection.info.dbname), user="candelabra_reader", password="reads"
    )
    relations = built.connection.execute(
        "SELECT format('%I.%I', schemaname, name) FROM ("
        " SELECT schemaname, viewname AS name FROM pg_views"
        " UNION ALL SELECT schemaname, tablename FROM pg_tables) AS all_of_it"
        " WHERE schemaname IN ('marts', 'marts_audit', 'ops')"
        " OR schemaname = 'market' AND name !~ '_y[0-9]{4}m[0-9]{2}'"
    ).fetchall()
    assert len(relations) > 60
    with psycopg.connect(url, autocommit=True) as connection:
        for (relation,) in relations:
            connection.execute(f"SELECT * FROM {relation} LIMIT 1")  # noqa: S608
            with pytest.raises(
                (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)
            ):
                connection.execute(f"DELETE FROM {relation}")  # noqa: S608


def test_dbt_docs_contain_all_models(
    built: Any, shared_dbt: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("docs")
    shared_dbt(
        "docs",
        "generate",
        "--select",
        "resource_type:model",
        "--static",
        "--target-path",
        str(folder),
    )

    assert (folder / "static_index.html").stat().st_size > 100_000
    catalog = json.loads((folder / "catalog.json").read_text())["nodes"]
    manifest = json.loads((folder / "manifest.json").read_text())
    overview = manifest["docs"]["doc.candelabra.__overview__"]["block_contents"]
    assert "market.candles_1m" in overview  # instead of dbt's own page
    models = {name for name, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    functions = {"differing_bars", "indicators"}
    relations = {name for name in models if manifest["nodes"][name]["name"] not in functions}
    assert relations <= catalog.keys()
    assert {each["name"] for each in manifest["exposures"].values()} >= {"bi_tools", "cookbook"}
