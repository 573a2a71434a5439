"""After a restore into another cluster, marts are right before and after a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.local.postgres import EmbeddedPostgres, psql_program
from include.config import Settings
from include.jobs.dbt_env import dbt_environment
from include.jobs.storage.backup import backup, restore
from tests.integration.dbt.conftest import BARS
from tests.integration.dbt.test_indicators_rebuild import HOUR, computed, stored, written
from tests.integration.dbt.trades.test_trade_rebuild import Marts, archive, trades_of
from tests.integration.dbt.walks import walk, write

SYMBOL = "BTCUSDT"
START = datetime(2025, 1, 30, 22, 0, tzinfo=UTC)
INDICATORS_AND_HEALTH = (
    BARS,
    "indicators_1h",
    "indicators_1d",
    "path:models/intermediate/health",
)
FOLDERS = [psql_program().parent]


@pytest.fixture
def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Any]]:
    """Back up a market, restore it into another cluster and point dbt there."""
    tmp_path.chmod(0o755)
    server_settings = {"fsync": "off", "shared_buffers": "32MB"}
    with (
        ExitStack() as stack,
        EmbeddedPostgres(tmp_path / "pg", settings=server_settings) as elsewhere,
    ):

        def restore_elsewhere(market: Any) -> Any:
            file = tmp_path / "all.dump"
            backup(settings=Settings(database_url=market.url), file=file, folders=FOLDERS)
            url = elsewhere.create_database("restored")
            restore(settings=Settings(database_url=url), file=file, folders=FOLDERS)
            connection = stack.enter_context(psycopg.connect(url, autocommit=True))
            connection.execute("SET timezone = 'UTC'")
            connection.execute("ALTER ROLE candelabra_dbt PASSWORD 'marts'")
            theirs = elsewhere.url("restored", user="candelabra_dbt", password="marts")
            for name, value in dbt_environment(theirs, home=tmp_path).items():
                monkeypatch.setenv(name, value)
            return type(market)(url, connection)

        yield restore_elsewhere


def test_marts_are_built_in_full_and_live_bars_are_right_before(
    market: Any, bars_dbt: Any, coarse: Any, restored: Callable[[Any], Any]
) -> None:
    market.write(SYMBOL, START, 200)
    bars_dbt("run")
    cursors = market.cursors()
    market.write(SYMBOL, START, 3, volume=Decimal(7))  # not built at the time of the backup
    there = restored(market)

    # Transaction ids restart there, and the old cursors would have seen these.
    there.write(SYMBOL, START + timedelta(minutes=100), 1, volume=Decimal(8))
    for timeframe in coarse:
        live = there.bars(timeframe, suffix="_live")
        assert live == there.expected(timeframe), timeframe.name

    bars_dbt("run")

    for timeframe in coarse:
        assert there.bars(timeframe) == there.expected(timeframe), timeframe.name
    assert there.cursors().keys() == {key for key in cursors if "candles" in key[0]}
    assert {key for key, _ in there.cursors().values()} != {key for key, _ in cursors.values()}
    before = there.versions()
    there.write(SYMBOL, START + timedelta(minutes=101), 1, volume=Decimal(9))
    bars_dbt("run")
    rewritten = there.rewritten(before)
    assert all(len(keys) == 1 for keys in rewritten.values()), rewritten


def test_indicators_and_health_follow_the_restored_minutes(
    market: Any, dbt: Any, restored: Callable[[Any], Any]
) -> None:
    bars = walk("AUSDT", 400, HOUR)
    write(market.connection, bars)
    write(market.connection, walk("BUSDT", 50, HOUR, seed=2))
    dbt("run", "--select", *INDICATORS_AND_HEALTH)
    market.delete("BUSDT", bars[20][1], 1)  # not built at the time of the backup
    there = restored(market)
    write(there.connection, [(*bars[100][:3], bars[100][3] * 2, *bars[100][4:])])
    there.delete("AUSDT", bars[30][1], 1)

    dbt("run", "--select", *INDICATORS_AND_HEALTH)
    assert_indicators_and_health_hold(there)

    before = written(there)
    write(there.connection, [(*bars[390][:3], bars[390][3] * 2, *bars[390][4:])])
    there.delete("BUSDT", bars[40][1], 1)
    dbt("run", "--select", *INDICATORS_AND_HEALTH)
    assert_indicators_and_health_hold(there)
    after = written(there)
    assert {key for key in before | after if before.get(key) != after.get(key)} == {
        *(("AUSDT", row[1]) for row in bars[390:]),
        *(("BUSDT", row[1]) for row in bars[40:50]),
    }


def assert_indicators_and_health_hold(market: Any) -> None:
    for timeframe in ("1h", "1d"):
        found = stored(market, timeframe)
        assert found
        assert found == computed(market, timeframe)
    counted = market.connection.execute(
        "SELECT symbol, (open_time AT TIME ZONE 'UTC')::date, count(*)::integer"
        " FROM market.candles_1m GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()
    covered = market.connection.execute(
        "SELECT symbol, day, present_minutes FROM marts.health_coverage ORDER BY 1, 2"
    ).fetchall()
    assert covered == counted
    missing = market.connection.execute(
        "SELECT symbol, sum(missing_minutes)::integer FROM marts.health_coverage"
        " GROUP BY 1 ORDER BY 1"
    ).fetchall()
    # One minute of each hour is stored.
    assert (
        missing
        == market.connection.execute(
            "SELECT symbol, extract(epoch FROM max(open_time) - min(open_time))::integer / 60 + 1"
            " - count(*)::integer FROM market.candles_1m GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )


def test_trade_marts_keep_archived_sessions(
    market: Any, dbt: Any, restored: Callable[[Any], Any]
) -> None:
    marts = Marts(market, dbt)
    marts.write(trades_of("AAAUSDT", START - timedelta(days=9), 30))
    marts.write(trades_of("AAAUSDT", START, 60, first=1_000))
    dbt("run", "--select", BARS, "path:models/intermediate/trades", "path:models/marts/trades")
    contents = marts.contents()
    archive(market.connection, (START - timedelta(days=9)).date())

    there = Marts(restored(market), dbt)
    there.kept = dict(marts.kept)
    assert there.contents() == contents
    there.build()
    assert there.contents() == contents

    # The cursors of the other cluster had seen this transaction id.
    there.write(trades_of("AAAUSDT", START + timedelta(hours=1), 2, first=2_000))
    there.build()
    there.assert_hold_the_trades()
