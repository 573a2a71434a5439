"""Databases with minutes, and dbt to build their marts with production's roles.

dbt parses the project once a session. Databases are copies of a template in which every model has
been built without data, so that a test only builds what it examines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbt.cli.main import dbtRunner, dbtRunnerResult
from dbt.contracts.graph.manifest import Manifest
from dbt_common.behavior_flags import BehaviorFlagRendered
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, Timeframe, from_us, to_us
from include.jobs.dbt_env import dbt_environment

VALUES = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)
BAR = ("symbol", "open_time", "next_open_time", *VALUES, "first_trade_id", "last_trade_id")
COARSE = [timeframe for timeframe in TIMEFRAMES.values() if timeframe.parent]
MINUTE = timedelta(minutes=1)
BARS = "config.materialized:rolled_up"
"""Selects the marts of bars; their views are in the template."""
QUIET = ("--quiet", "--no-use-colors")


@dataclass
class MarketTables:
    """The tables of a database that Python writes, and the marts that dbt builds."""

    url: str
    connection: psycopg.Connection[Any]

    def write(
        self,
        symbol: str,
        start: datetime,
        minutes: int,
        *,
        volume: Decimal = Decimal("2.50000000"),
        connection: psycopg.Connection[Any] | None = None,
    ) -> None:
        """Upsert minutes with prices that depend on their time; every fifth is silent."""
        connection = connection or self.connection
        rows = []
        for number in range(minutes):
            moment = start + number * MINUTE
            count = to_us(moment) // MINUTE_US
            price = Decimal(1000 + count % 37)
            traded = count % 5 != 0
            amount = volume if traded else Decimal(0)
            rows.append(
                (
                    symbol,
                    moment,
                    price,
                    price + (count % 3 if traded else 0),
                    price - (count % 7 if traded else 0),
                    price,
                    amount,
                    amount * price,
                    3 if traded else 0,
                    amount / 2,
                    amount * price / 2,
                    count * 10 if traded else None,
                    count * 10 + 2 if traded else None,
                )
            )
        with connection.cursor() as cursor:
            for month in {row[1].replace(day=1, hour=0, minute=0) for row in rows}:
                cursor.execute(
                    "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (month,)
                )
            cursor.executemany(
                "INSERT INTO market.candles_1m (symbol, open_time, open, high, low, close, volume,"
                " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume,"
                " first_trade_id, last_trade_id, status, source, source_rank, evidence_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
                " 'verified', 'rest', 80, '2026-01-01')"
                " ON CONFLICT (symbol, open_time) DO UPDATE SET volume = excluded.volume,"
                " quote_volume = excluded.quote_volume,"
                " taker_buy_volume = excluded.taker_buy_volume,"
                " taker_buy_quote_volume = excluded.taker_buy_quote_volume",
                rows,
            )

    def delete(
        self,
        symbol: str,
        start: datetime,
        minutes: int,
        *,
        connection: psycopg.Connection[Any] | None = None,
    ) -> None:
        (connection or self.connection).execute(
            "DELETE FROM market.candles_1m"
            " WHERE symbol = %s AND open_time >= %s AND open_time < %s",
            (symbol, start, start + minutes * MINUTE),
        )

    def list_symbol(
        self,
        symbol: str,
        listed_from: datetime = datetime(2020, 1, 1, tzinfo=UTC),
        listed_to: datetime | None = None,
        *,
        tick_size: str = "0.01",
        seen_at: datetime | None = None,
    ) -> None:
        """Add a listing to the registry."""
        self.connection.execute(
            "INSERT INTO market.instruments (symbol, listed_from, listed_to, market,"
            " exchange_symbol, base_asset, quote_asset, status, tick_size, step_size,"
            " quote_volume_is_exact, filters, seen_at) VALUES (%s, %s, %s, market.market_of(%s),"
            " %s, 'B', 'USDT', 'TRADING', %s, 0.1, true, '{\"LOT_SIZE\": {\"stepSize\": \"0.1\"}}',"
            " coalesce(%s, now()))",
            (
                symbol, listed_from, listed_to, symbol, symbol.removesuffix(".P"), tick_size,
                seen_at,
            ),
        )  # fmt: skip

    def declare_outage(
        self, symbol: str | None, start: datetime, end: datetime | None = None
    ) -> None:
        """Declare an outage of a symbol, or of all of spot; it may have no end."""
        self.connection.execute(
            "INSERT INTO ops.outages (market, symbol, minutes, cause)"
            " VALUES ('spot', %s, tstzmultirange(tstzrange(%s, %s)), 'halt')",
            (symbol, start, end),
        )

    def assert_bars_hold_the_minutes(self, suffix: str = "") -> None:
        """Assert that all marts, or with ``_live`` all live views, equal the minutes."""
        for timeframe in COARSE:
            bars = self.bars(timeframe, suffix=suffix)
            assert bars == self.expected(timeframe), timeframe.name

    def bars(
        self,
        timeframe: Timeframe,
        *start: Any,
        schema: str = "marts",
        suffix: str = "",
    ) -> dict[tuple[Any, ...], Any]:
        """Bars by (symbol, open time), without ``built_at``.

        Args:
            start: a symbol and the first open time; by default all bars.
            suffix: of the relation's name, ``_live`` for the view.
        """
        names = (*BAR, "minute_count", "is_complete")
        query = sql.SQL("SELECT {} FROM {}{}").format(
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.Identifier(schema, timeframe.table + suffix),
            sql.SQL(" WHERE symbol = %s AND open_time >= %s" if start else ""),
        )
        return {row[:2]: row[2:] for row in self.connection.execute(query, start or None)}

    def versions(self) -> dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]:
        """The physical version of each bar of each mart."""
        query = sql.SQL("SELECT symbol, open_time, ctid::text, xmin::text, built_at FROM {}")
        return {
            timeframe.name: {
                row[:2]: row[2:]
                for row in self.connection.execute(
                    query.format(sql.Identifier("marts", timeframe.table))
                )
            }
            for timeframe in COARSE
        }

    def rewritten(
        self, before: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]
    ) -> dict[str, set[tuple[Any, ...]]]:
        """Bars written, replaced or removed since an earlier ``versions()``, by timeframe."""
        now = self.versions()
        return {
            name: {
                key for key in was.keys() | now[name].keys() if was.get(key) != now[name].get(key)
            }
            for name, was in before.items()
        }

    def cursors(self) -> dict[tuple[str, str], tuple[str, str]]:
        """System identifier and snapshot by relation and target."""
        return {
            (relation, target): (identifier, snapshot)
            for relation, target, identifier, snapshot in self.connection.execute(
                "SELECT relation, target, system_identifier, snapshot::text FROM ops.build_cursors"
            )
        }

    def expected(self, timeframe: Timeframe) -> dict[tuple[Any, ...], Any]:
        """Bars computed from the minutes in Python, independent of the project's SQL."""
        groups: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
        columns = sql.SQL(", ").join(
            map(sql.Identifier, ("symbol", "open_time", *VALUES, "first_trade_id", "last_trade_id"))
        )
        for row in self.connection.execute(
            sql.SQL("SELECT {} FROM market.candles_1m ORDER BY 1, 2").format(columns)
        ):
            groups.setdefault((row[0], timeframe.open_time_us(to_us(row[1]))), []).append(row)
        outages = self.connection.execute("SELECT market, symbol, minutes FROM ops.outages")
        known = outages.fetchall()
        return {
            (symbol, from_us(open_us)): _roll_up(symbol, open_us, minutes, timeframe, known)
            for (symbol, open_us), minutes in groups.items()
        }


def _roll_up(
    symbol: str,
    open_us: int,
    minutes: list[tuple[Any, ...]],
    timeframe: Timeframe,
    outages: list[tuple[Any, ...]],
) -> tuple[Any, ...]:
    end_us = timeframe.next_open_us(open_us)
    traded = [minute for minute in minutes if minute[8] > 0]
    priced = traded or [(*minutes[-1][:2], *[minutes[-1][5]] * 4)]
    market = "um" if symbol.endswith(".P") else "spot"
    excuses = [
        (to_us(span.lower), to_us(span.upper) if span.upper else end_us)
        for where, which, spans in outages
        if where == market and which in (symbol, None)
        for span in spans
    ]
    stored = {to_us(minute[1]) for minute in minutes}
    # Stops at the first minute that nothing excuses.
    excused = all(
        us in stored or any(start <= us < stop for start, stop in excuses)
        for us in range(open_us, end_us, MINUTE_US)
    )
    return (
        from_us(end_us),
        priced[0][2],
        max(minute[3] for minute in priced),
        min(minute[4] for minute in priced),
        priced[-1][5],
        *(sum(minute[column] for minute in minutes) for column in range(6, 11)),
        traded[0][11] if traded else None,
        traded[-1][12] if traded else None,
        len(minutes),
        excused,
    )


class Dbt:
    """dbt in this process, with one manifest for the session.

    A manifest names the database of its relations. Before each call it is pointed at the database
    in the environment.

    Args:
        manifests: parsed manifests by target.
        selection: what "run" and "build" select by default; without any, everything.
    """

    def __init__(self, manifests: dict[str, Manifest], *selection: str) -> None:
        self._manifests = manifests
        self._selection = selection

    def selecting(self, *selection: str) -> Dbt:
        """The same dbt with another default selection."""
        return Dbt(self._manifests, *selection)

    def __call__(self, *arguments: str) -> dbtRunnerResult:
        """Run a command; raise what dbt reports unless it succeeds."""
        result = self.attempt(*arguments)
        if result.exception:
            raise result.exception
        assert result.success, "\n".join(
            f"{r.node.name}: {r.message}" for r in result.result if r.status in ("error", "fail")
        )
        return result

    def attempt(self, *arguments: str, callbacks: Any = None) -> dbtRunnerResult:
        """Run a command and return its result, failed or not."""
        if self._selection and arguments[0] in ("run", "build") and "--select" not in arguments:
            arguments = (*arguments, "--select", *self._selection)
            if arguments[0] == "build":
                # Tests that also read other models are skipped. The full build of test_catalog.py
                # runs the unit tests.
                arguments = (*arguments, "--indirect-selection", "buildable")
                arguments = (*arguments, "--exclude-resource-type", "unit_test")
        if arguments[0] in ("run", "build", "test"):
            arguments = (*arguments, "--no-write-json", "--log-level-file", "none")
        target = "dev" if "dev" in arguments else "prod"
        runner = dbtRunner(manifest=self.manifest(target), callbacks=callbacks)
        return runner.invoke([*arguments, *QUIET])

    def manifest(self, target: str = "prod") -> Manifest:
        """The parsed project, for the database in the environment."""
        if target not in self._manifests:
            parsed = dbtRunner().invoke(["parse", "--target", target, *QUIET])
            assert parsed.success, parsed.exception
            self._manifests[target] = parsed.result
        manifest, database = self._manifests[target], os.environ["CANDELABRA_DBT_NAME"]
        for node in (*manifest.nodes.values(), *manifest.sources.values()):
            if node.database != database:
                if node.relation_name:
                    node.relation_name = node.relation_name.replace(node.database, database, 1)
                node.database = database
        return manifest


@contextmanager
def environment_of(server: EmbeddedPostgres, database: str, home: Path) -> Iterator[None]:
    """Point dbt at a database, with the role that may write marts and nothing else."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER ROLE candelabra_dbt PASSWORD 'marts'")
    url = server.url(database, user="candelabra_dbt", password="marts")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dbt_environment(url, home=home).items():
            patch.setenv(name, value)
        yield


@contextmanager
def database_of(server: EmbeddedPostgres, name: str, template: str) -> Iterator[MarketTables]:
    """A copy of a template; dropped at the end."""
    url = server.create_database(name, template=template)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield MarketTables(url, connection)
    server.drop_database(name)


@pytest.fixture(scope="session")
def manifests() -> Iterator[dict[str, Manifest]]:
    """Parsed manifests by target."""
    with pytest.MonkeyPatch.context() as patch:
        # dbt names the module of each of its flags by walking the stack, which is deep in pytest:
        # a third of the time of a small run.
        patch.setattr(BehaviorFlagRendered, "_default_source", lambda _self=None: "dbt")
        yield {}


@pytest.fixture(scope="session")
def built_template(
    postgres: EmbeddedPostgres,
    _template: str,
    manifests: dict[str, Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A migrated database in which dbt has built every model, without data."""
    postgres.create_database("template_marts", template=_template)
    with environment_of(postgres, "template_marts", tmp_path_factory.mktemp("dbt")):
        Dbt(manifests)("run")
    return "template_marts"


@pytest.fixture
def market(postgres: EmbeddedPostgres, built_template: str) -> Iterator[MarketTables]:
    """A database whose marts are built and empty."""
    with database_of(postgres, "of_a_test", built_template) as tables:
        yield tables


@pytest.fixture
def dbt(
    postgres: EmbeddedPostgres, market: MarketTables, manifests: dict[str, Manifest], tmp_path: Path
) -> Iterator[Dbt]:
    """dbt on the test's database."""
    with environment_of(postgres, str(market.connection.info.dbname), tmp_path):
        yield Dbt(manifests)


@pytest.fixture
def bars_dbt(dbt: Dbt) -> Dbt:
    """dbt on the test's database, limited to the marts of bars."""
    return dbt.selecting(BARS)


@pytest.fixture
def unbuilt_market(
    postgres: EmbeddedPostgres, _template: str, dbt: Dbt, tmp_path: Path
) -> Iterator[MarketTables]:
    """A migrated database without any mart; dbt is pointed at it."""
    with (
        database_of(postgres, "unbuilt", _template) as tables,
        environment_of(postgres, "unbuilt", tmp_path),
    ):
        yield tables


@pytest.fixture(scope="module")
def shared_market(postgres: EmbeddedPostgres, built_template: str) -> Iterator[MarketTables]:
    """A database that the tests of a file share; its marts are built and empty."""
    with database_of(postgres, "of_a_file", built_template) as tables:
        yield tables


@pytest.fixture(scope="module")
def shared_dbt(
    postgres: EmbeddedPostgres,
    shared_market: MarketTables,
    manifests: dict[str, Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dbt]:
    """dbt on the database that the tests of a file share."""
    name = str(shared_market.connection.info.dbname)
    with environment_of(postgres, name, tmp_path_factory.mktemp("dbt")):
        yield Dbt(manifests)


@pytest.fixture
def long_ago() -> datetime:
    return datetime(2019, 2, 27, 11, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def coarse() -> list[Timeframe]:
    """Every timeframe above a minute, finest first."""
    return COARSE
