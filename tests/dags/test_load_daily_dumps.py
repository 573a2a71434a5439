"""The DAG waits for a day's files in the triggerer and loads them."""

from __future__ import annotations

import psycopg


def test_day_is_loaded_once_its_files_are_published(daily_run, database_url):
    daily = daily_run("load_daily_dumps", {"symbols": "BTCUSDT, BTCUSDT.P"})

    assert daily.run.state == "success"
    assert daily.deferred, "the files were published before the task had to wait"
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT symbol, source, status, min(open_time), count(*) FROM market.candles_1m"
            " GROUP BY 1, 2, 3 ORDER BY 1"
        ).fetchall()
        files = connection.execute(
            "SELECT symbol, verdict, rows FROM ops.dump_files ORDER BY 1"
        ).fetchall()
    assert rows == [
        ("BTCUSDT", "dump_daily", "verified", daily.day, 1440),
        ("BTCUSDT.P", "dump_daily", "verified", daily.day, 1440),
    ]
    assert files == [("BTCUSDT", "loaded", 1440), ("BTCUSDT.P", "loaded", 1440)]
    tasks = {each.task_id: each for each in daily.tasks}
    assert tasks["summarise"].state == "success"
    labels = {each.rendered_map_index for each in daily.tasks if each.task_id == "load"}
    first, last = (f"{symbol} {daily.day:%Y-%m-%d}" for symbol in ("BTCUSDT", "BTCUSDT.P"))
    assert labels == {f"{first} … {last} (2)"}


def test_run_without_active_symbols_succeeds(daily_run):
    assert daily_run("load_daily_dumps", {}).run.state == "success"
