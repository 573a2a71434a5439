"""Only minutes and sessions whose trades changed are rebuilt; archived sessions stay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.integration.dbt.trades.simulated import (
    START,
    Trade,
    footprint_of,
    profile_of,
    store_trades,
)

TICK = Decimal("0.00000001")
MARTS = ("footprint_1m", "volume_profile", "trade_sessions", "large_trades")
MODELS = (*MARTS, "int_trades__hours")
MINUTE = timedelta(minutes=1)


def trades_of(symbol: str, start: datetime, count: int, *, first: int = 0) -> list[Trade]:
    """One trade every 20 seconds, with prices across several buckets."""
    return [
        Trade(
            symbol,
            first + n,
            Decimal(1000 + n % 7 - n % 3),
            Decimal(1 + n % 5) / 8,
            2 * (first + n),
            2 * (first + n) + 1,
            start + n * timedelta(seconds=20),
            n % 3 == 0,
        )
        for n in range(count)
    ]


class Marts:
    """The marts of trades of a database, and the trades that they must contain."""

    def __init__(self, market: Any, dbt: Any) -> None:
        self.connection: psycopg.Connection[Any] = market.connection
        self.url, self.dbt = market.url, dbt
        self.kept: dict[tuple[str, int], Trade] = {}

    def write(self, trades: Iterable[Trade], connection: Any = None) -> None:
        trades = list(trades)
        store_trades(connection or self.connection, trades)
        self.kept |= {(trade.symbol, trade.number): trade for trade in trades}

    def delete(self, symbol: str, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        self.connection.execute(
            "DELETE FROM market.agg_trades WHERE symbol = %s AND agg_trade_id = ANY(%s)",
            (symbol, numbers),
        )
        self.kept = {
            key: trade
            for key, trade in self.kept.items()
            if key not in {(symbol, n) for n in numbers}
        }

    def build(self, *arguments: str) -> None:
        self.dbt("run", "--select", *MODELS, *arguments)

    def versions(self) -> dict[str, dict[Any, Any]]:
        """The transactions that wrote each minute or session of each mart."""
        part = {"footprint_1m": "open_time"}
        return {
            mart: dict(
                self.connection.execute(
                    f"SELECT (symbol, {part.get(mart, 'session')})::text, array_agg(xmin::text)"  # noqa: S608
                    f" FROM marts.{mart} GROUP BY 1"
                ).fetchall()
            )
            for mart in MARTS
        }

    def rewritten(self, before: dict[str, dict[Any, Any]]) -> dict[str, set[str]]:
        now = self.versions()
        return {
            mart: {
                key for key in was.keys() | now[mart].keys() if was.get(key) != now[mart].get(key)
            }
            for mart, was in before.items()
        }

    def contents(self) -> dict[str, list[Any]]:
        """Every row of every mart, without ``built_at``."""
        return {
            mart: self.connection.execute(
                f"SELECT (to_jsonb(m) - 'built_at')::text FROM marts.{mart} AS m ORDER BY 1"  # noqa: S608
            ).fetchall()
            for mart in MARTS
        }

    def assert_hold_the_trades(self) -> None:
        """Assert that footprint and profile equal the stored trades."""
        rows = self.connection.execute(
            "SELECT symbol, open_time, price_low, price_step, bid_volume, ask_volume, trade_count,"
            " first_trade_id, last_trade_id FROM marts.footprint_1m WHERE symbol <> 'EEEUSDT'"
        )
        expected = footprint_of(self.kept.values(), TICK)
        assert {row[:3]: row[3:] for row in rows} == expected
        for symbol, day in {(key[0], key[1].date()) for key in expected}:
            of_session = {k: v for k, v in expected.items() if (k[0], k[1].date()) == (symbol, day)}
            profile = self.connection.execute(
                "SELECT price_low, bid_volume, ask_volume, trade_count FROM marts.volume_profile"
                " WHERE (symbol, session) = (%s, %s)",
                (symbol, day),
            ).fetchall()
            assert {row[0]: row[1:] for row in profile} == profile_of(of_session)
        sessions = self.connection.execute(
            "SELECT symbol, session FROM marts.trade_sessions WHERE symbol <> 'EEEUSDT'"
        )
        assert set(sessions) == {(key[0], key[1].date()) for key in expected}


@pytest.fixture(scope="module")
def built(shared_market: Any, shared_dbt: Any) -> Marts:
    """Two symbols over two days; each test adds other days."""
    marts = Marts(shared_market, shared_dbt)
    marts.write(trades_of("AAAUSDT", START, 60))
    marts.write(trades_of("AAAUSDT", START + timedelta(days=1), 60, first=1000))
    marts.write(trades_of("BBBUSDT", START, 60))
    marts.build()
    return marts


def key(symbol: str, moment: datetime | date) -> str:
    text = f'"{moment:%Y-%m-%d %H:%M:%S}+00"' if isinstance(moment, datetime) else str(moment)
    return f"({symbol},{text})"


def test_late_trade_rewrites_only_its_minute_and_session(built: Marts) -> None:
    built.assert_hold_the_trades()
    before = built.versions()
    with psycopg.connect(built.url) as failing:
        store_trades(failing, trades_of("AAAUSDT", START + timedelta(hours=5), 5, first=8_500))
        failing.rollback()
    built.build()
    assert built.rewritten(before) == {mart: set() for mart in MARTS}

    late = START + timedelta(minutes=7, seconds=5)
    built.write([Trade("AAAUSDT", 9_000, Decimal(1003), Decimal("0.5"), 99, 99, late, True)])
    built.build()

    session = {key("AAAUSDT", START.date())}
    assert built.rewritten(before) == {
        "footprint_1m": {key("AAAUSDT", START + 7 * MINUTE)},
        "volume_profile": session,
        "trade_sessions": session,
        "large_trades": session,
    }
    built.assert_hold_the_trades()


def test_trades_committed_after_a_build_reach_the_next(built: Marts) -> None:
    slow, quick = START + timedelta(minutes=70), START + timedelta(days=1, minutes=70)
    with psycopg.connect(built.url) as late:
        late.execute("SET timezone = 'UTC'")
        built.write(trades_of("BBBUSDT", slow, 5, first=7_000), late)
        # Begun later, committed earlier.
        built.write(trades_of("AAAUSDT", quick, 5, first=7_000))
        before = built.versions()
        built.build()
        assert built.rewritten(before)["trade_sessions"] == {key("AAAUSDT", quick.date())}
        late.commit()
    before = built.versions()
    built.build()
    assert built.rewritten(before)["trade_sessions"] == {key("BBBUSDT", slow.date())}
    built.assert_hold_the_trades()


def test_deleted_and_changed_trades_update_buckets_and_sessions(built: Marts) -> None:
    other_day = START + timedelta(days=2)
    built.write(trades_of("CCCUSDT", other_day, 6))
    built.write(trades_of("CCCUSDT", START, 30, first=100))
    built.build()

    built.delete("CCCUSDT", [*range(6), *range(103, 110)])
    built.connection.execute(
        "UPDATE market.agg_trades SET is_buyer_maker = NOT is_buyer_maker"
        " WHERE symbol = 'CCCUSDT' AND agg_trade_id = 120"
    )
    flipped = built.kept["CCCUSDT", 120]
    built.kept["CCCUSDT", 120] = replace(flipped, is_buyer_maker=not flipped.is_buyer_maker)
    built.build()

    built.assert_hold_the_trades()


def test_running_session_has_no_large_trades(built: Marts) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    built.write(trades_of("DDDUSDT", today, 3))
    built.build()
    query = "SELECT count(*) FROM marts.large_trades WHERE symbol = 'DDDUSDT'"
    assert built.connection.execute(query).fetchone() == (0,)
    # The same trades on a day that has ended.
    built.connection.execute(
        "SELECT ops.ensure_partition('market.agg_trades', now() - interval '1 day')"
    )
    built.connection.execute(
        "UPDATE market.agg_trades SET trade_time = trade_time - interval '1 day', day = day - 1"
        " WHERE symbol = 'DDDUSDT'"
    )
    built.kept |= {
        ("DDDUSDT", n): replace(
            built.kept["DDDUSDT", n], at=built.kept["DDDUSDT", n].at - timedelta(1)
        )
        for n in range(3)
    }
    built.build()
    assert built.connection.execute(query).fetchone() == (1,)
    built.assert_hold_the_trades()


def test_dataset_with_more_volume_counts_in_each_minute(built: Marts) -> None:
    aggregates = trades_of("EEEUSDT", START, 9)  # three minutes
    # A trade of the second minute is missing.
    store_trades(built.connection, [one for one in aggregates if one.number != 4])
    singles = [replace(one, first=one.number, last=one.number) for one in aggregates]
    store_trades(built.connection, singles[:6], "trades")  # the third minute is missing
    built.build()

    rows = built.connection.execute(
        "SELECT open_time, dataset, sum(bid_volume + ask_volume) FROM marts.footprint_1m"
        " WHERE symbol = 'EEEUSDT' GROUP BY 1, 2 ORDER BY 1"
    ).fetchall()
    volumes = [sum(one.quantity for one in aggregates[n : n + 3]) for n in (0, 3, 6)]
    datasets = ["agg_trades", "trades", "agg_trades"]
    assert rows == [
        (START + n * MINUTE, dataset, volume)
        for n, (dataset, volume) in enumerate(zip(datasets, volumes, strict=True))
    ]


def archive(connection: psycopg.Connection[Any], day: date) -> None:
    """Drop a day as the archive does after writing its file."""
    rows, fingerprint = connection.execute(
        "SELECT rows, fingerprint FROM ops.raw_fingerprint('agg_trades', %s)", (day,)
    ).fetchone() or (0, 0)
    connection.execute(
        "INSERT INTO ops.archived_partitions"
        " (dataset, day, path, rows, bytes, fingerprint, content_sha256)"
        " VALUES ('agg_trades', %s, 'x', %s, 1, %s, repeat('0', 64))",
        (day, rows, fingerprint),
    )
    dropped = connection.execute("SELECT ops.drop_archived_partition('agg_trades', %s)", (day,))
    assert dropped.fetchone() == (True,)


def test_archived_sessions_stay_until_their_trades_are_restored(
    built: Marts,
) -> None:
    moment = START - timedelta(days=9)
    archived = trades_of("AAAUSDT", moment, 30, first=20_000)
    built.write(archived)
    built.write(trades_of("AAAUSDT", moment - timedelta(days=1), 30, first=30_000))
    built.build()
    contents = built.contents()
    archive(built.connection, moment.date())

    assert built.connection.execute(
        "SELECT session FROM marts.trade_coverage WHERE is_archived"
    ).fetchall() == [(moment.date(),)]

    # Changed columns would require a new table.
    built.connection.execute("ALTER TABLE marts.footprint_1m ADD COLUMN more integer")
    refused = built.dbt.attempt("run", "--select", "footprint_1m")
    assert "1 sessions whose trades are archived" in str(refused.result.results[0].message)
    built.connection.execute("ALTER TABLE marts.footprint_1m DROP COLUMN more")

    # A single late row in the new partition must not replace the day.
    late = replace(archived[0], number=29_000, first=60_000, last=60_000, at=moment + MINUTE)
    built.write([late])
    built.build()
    assert built.contents() == contents
    built.build("--full-refresh")
    assert built.contents() == contents

    store_trades(built.connection, archived)
    built.connection.execute("UPDATE ops.archived_partitions SET dropped_at = NULL")
    built.build()
    built.assert_hold_the_trades()
    built.connection.execute("DELETE FROM ops.archived_partitions")


def test_full_refresh_deletes_without_a_quadratic_plan(built: Marts) -> None:
    """With more sealed sessions than fit in memory, a quadratic delete would never end."""
    contents, connection = built.contents(), built.connection
    days = "generate_series(timestamptz '2020-01-01', '2020-02-19', '1 day') AS day"
    connection.execute(
        "INSERT INTO marts.footprint_1m SELECT 'OLDUSDT', day::date, day + n * interval '1 minute',"  # noqa: S608
        " 1, 1, 1, 1, 1, 1, 1, 'agg_trades', now()"
        f" FROM {days}, generate_series(1, 200) AS n"
    )
    connection.execute(
        "INSERT INTO ops.archived_partitions"  # noqa: S608
        " (dataset, day, path, rows, bytes, fingerprint, content_sha256, dropped_at)"
        f" SELECT 'agg_trades', day::date, 'x', 1, 1, 0, repeat('0', 64), now() FROM {days}"
    )
    connection.execute("ANALYZE marts.footprint_1m, ops.archived_partitions")
    sent: list[str] = []

    def listen(event: Any) -> None:
        if event.info.name == "SQLQuery" and "delete from" in event.data.sql:
            sent.append(event.data.sql)

    run = ("run", "--select", "footprint_1m", "--full-refresh")
    assert built.dbt.attempt(*run, callbacks=[listen]).success
    count = "SELECT count(*) FROM marts.footprint_1m WHERE symbol = 'OLDUSDT'"
    assert connection.execute(count).fetchone() == (10_000,)

    statements = next(text for text in sent if re.search(r'delete from \S+footprint_1m" as', text))
    *before, delete = re.sub(r"/\*.*?\*/", "", statements, flags=re.DOTALL).strip("; \n").split(";")
    with psycopg.connect(built.url) as planning:
        planning.execute("SET LOCAL work_mem = '64kB'")
        for statement in before:
            planning.execute(statement)
        plan = planning.execute(f"EXPLAIN {delete}").fetchall()
        planning.rollback()
    assert "SubPlan" not in str(plan), plan

    connection.execute("DELETE FROM marts.footprint_1m WHERE symbol = 'OLDUSDT'")
    connection.execute("DELETE FROM ops.archived_partitions WHERE day < '2022-01-01'")
    built.build()
    assert built.contents() == contents


def test_full_refresh_gives_the_same_marts_and_prunes_logs(built: Marts) -> None:
    contents = built.contents()
    built.build("--full-refresh")
    assert built.contents() == contents
    # Cursors of marts that are not built here would keep changes in the log.
    built.connection.execute(
        "DELETE FROM ops.build_cursors WHERE NOT relation = ANY(%s)",
        ([f"marts.{model}" for model in MODELS],),
    )
    built.build()
    for log in ("trade_changes", "session_changes"):
        query = f"SELECT count(*) FROM ops.{log}"  # noqa: S608
        assert built.connection.execute(query).fetchone() == (0,)
    built.dbt("test", "--select", "path:models/marts/trades", "--vars", "tested: all")
