"""Marts: the full build, five minutes of 1,500 symbols, one changed minute, and reads.

The environment sets the sizes, because the largest take an hour:

- ``MARTS_SYMBOLS``: symbols of the year that is built in full (10);
- ``MARTS_MILLIONS``: million minutes of the longer history in which a minute changes (10);
- ``MARTS_CAPTURED``: symbols of the 1,500 with captured trades, twenty in each minute (100);
- ``MARTS_PARTS``: parts of this benchmark to run (full,five_minutes,one_minute,reads).
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from benchmarks.load.stage import percentile, verdict
from benchmarks.marts.cascades import (
    by_duckdb,
    by_hand,
    by_polars,
    digests_of,
    export,
    found_in,
)
from benchmarks.marts.duckdb_rollup import MINUTES
from benchmarks.marts.rows import (
    TIMEFRAMES,
    dbt,
    dbt_home,
    symbols,
    today,
    write_minutes,
    write_trades,
)
from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate

LAYERS = ("intraday", "days", "analytics", "health")
MARTS = ("--select", "config.materialized:rolled_up")
YEAR = timedelta(days=365)
ROUNDS = 9
READS = 300
BARS = 500


def run() -> None:
    """Print the figures of each part."""
    parts = os.environ.get("MARTS_PARTS", "full,five_minutes,one_minute,reads").split(",")
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            if "full" in parts:
                _full_build(server, Path(folder))
            if "one_minute" in parts:
                _one_changed_minute(server, Path(folder))
            if {"five_minutes", "reads"} & set(parts):
                _many_symbols(server, Path(folder), parts)


def _database(server: EmbeddedPostgres, name: str) -> str:
    url = server.create_database(name)
    migrate(url)
    return url


def _connect(url: str) -> psycopg.Connection:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("SET timezone = 'UTC'")
    return connection


def _prepared(environment: dict[str, str]) -> None:
    """Build the views, and let dbt cache its parse result, as between two runs of a DAG."""
    dbt(environment, "run", "--select", "path:models/staging")


def _statements_s(environment: dict[str, str]) -> float:
    """Return the seconds that the models of the last run took, without dbt's own time."""
    results = json.loads(Path(environment["DBT_TARGET_PATH"], "run_results.json").read_text())
    return sum(result["execution_time"] for result in results["results"])


def _full_build(server: EmbeddedPostgres, folder: Path) -> None:
    names = symbols(int(os.environ.get("MARTS_SYMBOLS", "10")))
    url = _database(server, "year")
    with _connect(url) as connection, dbt_home(url, folder / "year") as environment:
        rows = write_minutes(connection, names, today() - YEAR, today(), is_logged=False)
        connection.execute("VACUUM ANALYZE market.candles_1m")
        _prepared(environment)
        hand_s, by_hands, digests = by_hand(connection)
        dbt_s = dbt(environment, "run", *MARTS, "--full-refresh", "--threads", "1")
        statements_s = _statements_s(environment)
        four_s = dbt(environment, "run", *MARTS, "--full-refresh", "--threads", "4")
        assert found_in(connection, "marts") == by_hands
        assert digests_of(connection, "marts") == digests
        frame = export(connection, folder / "minutes.parquet")
        polars_s, by_frames = by_polars(frame)
        del frame
        duck = by_duckdb(folder / "minutes.parquet")
        assert by_frames == by_hands
        assert duck is None or duck[1] == by_hands
    _drop(server, "year")
    duck_s = "not installed" if duck is None else f"{duck[0]:.1f} s"
    print(
        f"full build of 14 timeframes from {rows / 1e6:.1f} M minutes: {statements_s:.1f} s of "
        f"statements, by hand {hand_s:.1f} s: ratio {statements_s / hand_s:.2f} (goal 1.2: "
        f"{verdict(statements_s / hand_s, 1.2)}); dbt in all {dbt_s:.1f} s with one thread "
        f"({dbt_s / hand_s:.2f}), {four_s:.1f} s with four ({four_s / hand_s:.2f}); in memory "
        f"without storing anything: polars {polars_s:.1f} s, DuckDB {duck_s}"
    )


def _one_changed_minute(server: EmbeddedPostgres, folder: Path) -> None:
    sizes = (1.0, float(os.environ.get("MARTS_MILLIONS", "10")))
    with ExitStack() as stack:
        histories = [stack.enter_context(_history(server, folder, size)) for size in sizes]
        # in turn, so that other load on the machine affects both histories alike
        for number in range(ROUNDS):
            for history in histories:
                history.change_a_minute(number)
    for history in histories:
        print(
            f"one changed minute among {history.rows / 1e6:.1f} M: "
            f"{statistics.median(history.statements_s):.2f} s of statements for 14 marts "
            f"({_spread(history.statements_s)}), "
            f"{statistics.median(history.whole_s):.1f} s with dbt ({_spread(history.whole_s)})"
        )
    short, long = (statistics.median(history.statements_s) for history in histories)
    print(f"one changed minute, long history against short: ratio {long / short:.2f}")


def _spread(seconds: list[float]) -> str:
    return f"{min(seconds):.2f} to {max(seconds):.2f}"


@dataclass
class _History:
    """A database with years of minutes and built marts; times the rebuild of one changed minute."""

    connection: psycopg.Connection
    environment: dict[str, str]
    rows: int
    middle: datetime
    whole_s: list[float] = field(default_factory=list)
    statements_s: list[float] = field(default_factory=list)

    def change_a_minute(self, number: int) -> None:
        self.connection.execute(
            "UPDATE market.candles_1m SET volume = volume + 1 WHERE symbol = %s AND open_time = %s",
            (symbols(1)[0], self.middle + timedelta(hours=number)),
        )
        self.whole_s.append(dbt(self.environment, "run", *MARTS))
        self.statements_s.append(_statements_s(self.environment))


@contextmanager
def _history(server: EmbeddedPostgres, folder: Path, millions: float) -> Iterator[_History]:
    count = max(2, round(millions / 5))  # five million minutes are nine and a half years
    days = round(millions * 1e6 / count / 1_440)
    name = f"minute_{millions:g}".replace(".", "_")
    url = _database(server, name)
    with _connect(url) as connection, dbt_home(url, folder / name) as environment:
        start = today() - timedelta(days=days)
        rows = write_minutes(connection, symbols(count), start, today(), is_logged=False)
        connection.execute("VACUUM ANALYZE market.candles_1m")
        _prepared(environment)
        dbt(environment, "run", *MARTS)
        connection.execute("VACUUM ANALYZE")  # else the server does so during the rounds
        middle = today() - timedelta(days=days // 2, hours=7, minutes=13)
        yield _History(connection, environment, rows, middle)
    _drop(server, name)


def _many_symbols(server: EmbeddedPostgres, folder: Path, parts: list[str]) -> None:
    url = _database(server, "many")
    names = symbols(1_500)
    captured = names[: int(os.environ.get("MARTS_CAPTURED", "100"))]
    now = today()
    # The end of an unfinished day, when its sessions of trades are longest.
    day_begins = today() + timedelta(days=1)
    day_ends = day_begins + timedelta(hours=24, minutes=-5)
    with _connect(url) as connection, dbt_home(url, folder / "many") as environment:
        write_minutes(connection, names, now - timedelta(hours=12), now, is_logged=False)
        trades = write_trades(connection, captured, day_begins, day_ends)
        # reads of every timeframe need 500 bars: the finer ones of a month, the others of years
        dense, sparse = "BTCUSDT", "ETHUSDT"
        write_minutes(connection, [dense], now - timedelta(days=30), now, is_logged=False)
        hour = timedelta(hours=1)
        write_minutes(connection, [sparse], now - 9 * YEAR, now, step=hour, is_logged=False)
        connection.execute("VACUUM ANALYZE")
        for layer in LAYERS:
            dbt(environment, "run", "--selector", layer)
        connection.execute("VACUUM ANALYZE")
        for number in range(5):
            minute = now + timedelta(minutes=number)
            write_minutes(
                connection, [*names, dense, sparse], minute, minute + timedelta(minutes=1)
            )
        if "reads" in parts:
            for suffix in ("", "_live"):
                for name in TIMEFRAMES:
                    _read(connection, name, suffix, dense, sparse)
        if "five_minutes" in parts:
            new = write_trades(connection, captured, day_ends, day_ends + timedelta(minutes=5))
            with_trades = f"{len(captured)} with their {trades + new:,} trades of the day"
            _five_minutes(environment, with_trades)


def _five_minutes(environment: dict[str, str], with_trades: str) -> None:
    took = {
        layer: dbt(
            environment, "build", "--selector", layer, "--exclude-resource-type", "unit_test"
        )
        for layer in LAYERS
    }
    total = sum(took.values())
    each = ", ".join(f"{layer} {seconds:.1f} s" for layer, seconds in took.items())
    print(
        f"five minutes of 1,500 symbols, {with_trades}, all layers with data tests: "
        f"{total:.1f} s ({each}), "
        f"goal 30 s: {verdict(total, 30)}"
    )


def _read(connection: psycopg.Connection, name: str, suffix: str, dense: str, sparse: str) -> None:
    """Read 500 bars of a timeframe while the last five minutes are not built."""
    width = timedelta(minutes=MINUTES.get(name, 43_830))
    symbol = dense if width <= timedelta(minutes=60) else sparse
    query = (
        f"SELECT * FROM marts.candles_{name}{suffix}"  # noqa: S608
        " WHERE symbol = %s AND open_time >= %s ORDER BY open_time"
    ).encode()
    values = (symbol, today() - BARS * width)

    def client_ms() -> float:
        began = time.perf_counter()
        connection.execute(query, values).fetchall()
        return (time.perf_counter() - began) * 1e3

    def server_ms() -> float:
        row = connection.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + query, values).fetchone()
        assert row is not None
        return float(row[0][0]["Planning Time"]) + float(row[0][0]["Execution Time"])

    first, rows = client_ms(), len(connection.execute(query, values).fetchall())
    on_server, by_client = _p99(server_ms), _p99(client_ms)
    print(
        f"read of {rows} bars, candles_{name}{suffix}: p50 {on_server[0]:.1f} ms, p99 "
        f"{on_server[1]:.1f} ms on the server ({verdict(on_server[1], 5)}); with fetching "
        f"{by_client[0]:.1f} and {by_client[1]:.1f} ms, the first of a session {first:.1f} ms"
    )


def _p99(measure: Callable[[], float]) -> tuple[float, float]:
    taken = sorted(measure() for _ in range(READS))
    return percentile(taken, 0.5), percentile(taken, 0.99)


def _drop(server: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
