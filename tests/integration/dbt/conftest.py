"""A market to write to, and dbt to build its marts, as the roles of production do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbt.cli.main import dbtRunner, dbtRunnerResult
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


@dataclass
class MarketTables:
    """The tables that Python writes, and the marts that dbt builds from them."""

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
        """Upsert minutes whose prices depend on their time; every fifth is silent."""
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

    def bars(
        self,
        timeframe: Timeframe,
        *asked: Any,
        schema: str = "marts",
        suffix: str = "",
    ) -> dict[tuple[Any, ...], Any]:
        """Bars by (symbol, open time), without the time of their building.

        Args:
            asked: a symbol and a time to begin with; without them all bars.
            suffix: of the relation's name, ``_live`` for the view.
        """
        names = (*BAR, "minute_count", "is_complete")
        query = sql.SQL("SELECT {} FROM {}{}").format(
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.Identifier(schema, timeframe.table + suffix),
            sql.SQL(" WHERE symbol = %s AND open_time >= %s" if asked else ""),
        )
        return {row[:2]: row[2:] for row in self.connection.execute(query, asked or None)}

    def versions(self) -> dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]:
        """For each mart where each bar lies, and which transaction wrote it."""
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
        """Bars written, replaced or removed since ``versions`` was taken, by timeframe."""
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
        """Bars straight from the minutes, another way: no SQL, no chain of timeframes."""
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
    end = from_us(timeframe.next_open_us(open_us))
    traded = [minute for minute in minutes if minute[8] > 0]
    priced = traded or [(*minutes[-1][:2], *[minutes[-1][5]] * 4)]
    market = "um" if symbol.endswith(".P") else "spot"
    missing = {from_us(us) for us in range(open_us, to_us(end), MINUTE_US)}
    missing -= {minute[1] for minute in minutes}
    excused = all(
        any(
            moment in span
            for where, which, spans in outages
            if where == market and which in (symbol, None)
            for span in spans
        )
        for moment in missing
    )
    return (
        end,
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


@pytest.fixture
def market(database_url: str) -> Iterator[MarketTables]:
    """A migrated database without any candle."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield MarketTables(database_url, connection)


@pytest.fixture
def candelabra_dbt_url(postgres: EmbeddedPostgres, database_url: str) -> str:
    """The test's database, as the role that may write marts and nothing else."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER ROLE candelabra_dbt PASSWORD 'marts'")
    database = database_url.rsplit("/", 1)[1]
    return postgres.url(database, user="candelabra_dbt", password="marts")


class Dbt:
    """dbt in this process.

    Args:
        selection: what to run or build where a call does not say it; without any, everything.
    """

    def __init__(self, *selection: str) -> None:
        self._selection = selection

    def __call__(self, *arguments: str) -> dbtRunnerResult:
        """Run dbt and raise what it reports unless it succeeds."""
        result = self.try_to(*arguments)
        if result.exception:
            raise result.exception
        assert result.success, "\n".join(
            f"{r.node.name}: {r.message}" for r in result.result if r.status in ("error", "fail")
        )
        return result

    def try_to(self, *arguments: str) -> dbtRunnerResult:
        if self._selection and arguments[0] in ("run", "build") and "--select" not in arguments:
            arguments = (*arguments, "--select", *self._selection)
            if arguments[0] == "build":
                # not the tests that need other models as well
                arguments = (*arguments, "--indirect-selection", "buildable")
        return dbtRunner().invoke([*arguments, "--quiet", "--no-use-colors"])


@pytest.fixture
def dbt_home(candelabra_dbt_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What dbt runs on is the test's database, its target folder and logs the test's own."""
    for name, value in dbt_environment(candelabra_dbt_url, home=tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def dbt(dbt_home: Path) -> Dbt:
    """dbt on the test's database."""
    return Dbt()


@pytest.fixture
def dbt_of_bars(dbt_home: Path) -> Dbt:
    """The same, for bars and what they are made of alone."""
    return Dbt("+candles_live", "+candles")


@pytest.fixture(scope="module")
def shared_market(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, _template: str
) -> Iterator[MarketTables]:
    """A migrated database that the tests of a file share."""
    name = "shared_" + request.module.__name__.rpartition(".")[2]
    url = postgres.create_database(name, template=_template)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute("ALTER ROLE candelabra_dbt PASSWORD 'marts'")
        yield MarketTables(url, connection)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def shared_dbt(
    postgres: EmbeddedPostgres,
    shared_market: MarketTables,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Dbt]:
    """dbt on the database that the tests of a file share."""
    name = str(shared_market.connection.info.dbname)
    url = postgres.url(name, user="candelabra_dbt", password="marts")
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in dbt_environment(url, home=tmp_path_factory.mktemp("dbt")).items():
            patch.setenv(variable, value)
        yield Dbt()


@pytest.fixture
def long_ago() -> datetime:
    return datetime(2019, 2, 27, 11, 0, tzinfo=UTC)


@pytest.fixture
def coarse() -> list[Timeframe]:
    """Every timeframe that is a mart, finest first."""
    return COARSE
