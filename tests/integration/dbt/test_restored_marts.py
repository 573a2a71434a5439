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
from tests.integration.dbt.indicators.test_indicators_rebuild import HOUR, computed, stored, written
from tests.integration.dbt.trades.test_trade_rebuild import Marts, archive, trades_of
from tests.integration.dbt.walks import walk, write

SYMBOL = "BTCUSDT"
START = datetime(2025, 1, 30, 22, 0, tzinfo=UTC)
BUILT = (
    BARS,
    "indicators_1h",
    "indicators_1d",
    "path:models/intermediate/health",
    "path:models/intermediate/trades",
    "path:models/marts/trades",
)
ARCHIVED = START - timedelta(days=9)
FOLDERS = [psql_program().parent]


@pytest.fixture
def restore_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Any], Any]]:
    """Back up a market, restore it into another cluster and point dbt there."""
    tmp_path.chmod(0o755)
    server_settings = {"fsync": "off", "shared_buffers": "32MB"}
    with (
        ExitStack() as stack,
        EmbeddedPostgres(tmp_path / "pg", settings=server_settings) as elsewhere,
    ):

        def restored(market: Any) -> Any:
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

        yield restored


@pytest.mark.long
def test_marts_follow_the_restored_minutes_and_trades(
    market: Any, dbt: Any, coarse: Any, restore_elsewhere: Callable[[Any], Any]
) -> None:
    dbt = dbt.selecting(*BUILT)
    bars = walk("AUSDT", 400, HOUR)
    write(market.connection, bars)
    write(market.connection, walk("BUSDT", 50, HOUR, seed=2))
    market.write(SYMBOL, START, 200)
    marts = Marts(market, dbt)
    marts.write(trades_of("AAAUSDT", ARCHIVED, 30))
    marts.write(trades_of("AAAUSDT", START, 60, first=1_000))
    dbt("run")
    cursors, contents = market.cursors(), marts.contents()
    # Not built at the time of the backup.
    market.write(SYMBOL, START, 3, volume=Decimal(7))
    market.delete("BUSDT", bars[20][1], 1)
    archive(market.connection, ARCHIVED.date())

    there = restore_elsewhere(market)

    # Transaction ids restart there, and the old cursors would have seen these.
    there.write(SYMBOL, START + timedelta(minutes=100), 1, volume=Decimal(8))
    write(there.connection, [(*bars[100][:3], bars[100][3] * 2, *bars[100][4:])])
    there.delete("AUSDT", bars[30][1], 1)
    for timeframe in coarse:
        live = there.bars(timeframe, SYMBOL, START.replace(day=1, hour=0), suffix="_live")
        expected = there.expected(timeframe)
        assert live == {key: bar for key, bar in expected.items() if key[0] == SYMBOL}
    trades = Marts(there, dbt)
    trades.kept = dict(marts.kept)
    assert trades.contents() == contents

    dbt("run")

    there.assert_bars_hold_the_minutes()
    assert there.cursors().keys() == cursors.keys()
    assert {key for key, _ in there.cursors().values()} != {key for key, _ in cursors.values()}
    assert_indicators_and_health_hold(there)
    assert trades.contents() == contents

    before, indicators = there.versions(), written(there)
    there.write(SYMBOL, START + timedelta(minutes=101), 1, volume=Decimal(9))
    write(there.connection, [(*bars[390][:3], bars[390][3] * 2, *bars[390][4:])])
    there.delete("BUSDT", bars[40][1], 1)
    # The cursors of the other cluster had seen this transaction id.
    trades.write(trades_of("AAAUSDT", START + timedelta(hours=1), 2, first=2_000))
    dbt("run")
    rewritten = there.rewritten(before)
    assert all(len(keys) == 3 for keys in rewritten.values()), rewritten
    assert_indicators_and_health_hold(there)
    after = written(there)
    changed = {key for key in indicators | after if indicators.get(key) != after.get(key)}
    assert {key for key in changed if key[0] != SYMBOL} == {
        *(("AUSDT", row[1]) for row in bars[390:]),
        *(("BUSDT", row[1]) for row in bars[40:50]),
    }
    trades.assert_hold_the_trades()


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
