"""500 candles by REST for 50 clients, from a streamer of a quiet market, cold and hot.

The server has one core; PostgreSQL, the market and the clients share the other. Cold: each range is
requested once; its rows are in PostgreSQL's memory. Hot: twenty ranges repeatedly.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg

from benchmarks.load.processes import CORES, cpu_s, talking, waited_s
from benchmarks.load.stage import percentile, verdict
from benchmarks.serving_parts.stage import NAMES, SYMBOLS, served
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import to_us
from include.store.instruments import write_instruments
from include.store.postgres.pools import connect

DAYS = 2
FIRST = datetime(2026, 3, 2, tzinfo=UTC)
CLIENTS = 50
RATE = 500.0
"""Hot requests a second; cold requests also run at half this rate."""
TRADES_PER_S = 100
GOALS_MS = {"cold": 50.0, "hot": 5.0}
RUNS = (("cold", 0.5), ("cold", 1.0), ("hot", 1.0))
"""Kind, and share of the rate."""
SECONDS = 8.0

FILL = """
INSERT INTO market.candles_1m (
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
    status, source, source_rank, evidence_at
)
SELECT
    'S' || lpad(s::text, 4, '0') || 'USDT',
    %(first)s + m * interval '1 minute',
    60000.10 + m %% 977, 60009.10 + m %% 977, 59990.10 + m %% 977, 60001.10 + m %% 977,
    62.34500000 + m %% 89, 740000.12345678 + m %% 997, 100 + m %% 31,
    6.12300000 + m %% 41, 370000.12345678 + m %% 499, 200 * m, 200 * m + 199,
    'verified', 'rest', 80, %(first)s + interval '9 days'
FROM generate_series(1, %(symbols)s) AS s, generate_series(0, %(minutes)s - 1) AS m
"""


def fill(url: str) -> None:
    """Store two days of a hundred symbols."""
    values = {"first": FIRST, "symbols": SYMBOLS, "minutes": DAYS * 1_440}
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (FIRST,)
        )
        connection.execute(FILL, values)
    listed = [
        Instrument(
            name, Market.SPOT, name.removesuffix("USDT"), "USDT", "TRADING", Decimal("0.01"),
            Decimal("0.00001"),
        )
        for name in NAMES.split(",")
    ]  # fmt: skip
    with connect(url, application_name="benchmark") as connection:
        write_instruments(connection, listed, to_us(FIRST))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) market.candles_1m")


@contextmanager
def serving() -> Iterator[tuple[int, str]]:
    """Run a streamer on filled tables; yield its process id and the URL of its API."""
    with served(trades_per_s=TRADES_PER_S) as to:
        fill(to.live.database_url)
        yield to.live.streamer.pid, to.api_url


def run(seconds: float = SECONDS, rate: float = RATE) -> None:
    """Print latencies, cold and hot."""
    last = FIRST + timedelta(days=DAYS)
    command = [
        "-m", "benchmarks.readers.rest", "--symbols", NAMES, "--clients", str(CLIENTS),
        "--from-ms", str(int(FIRST.timestamp()) * 1_000),
        "--to-ms", str(int(last.timestamp()) * 1_000),
        "--seconds", str(seconds),
    ]  # fmt: skip
    with serving() as (process_id, url):
        time.sleep(1.0)
        for kind, share in RUNS:
            goal_ms, asked = GOALS_MS[kind], rate * share
            hot = ["--hot"] if kind == "hot" else []
            began_s, began_wait_s = cpu_s(process_id), waited_s(process_id)
            with talking(
                [*command, "--url", url, "--rate", str(asked), *hot], core=CORES[-1]
            ) as clients:
                answered = clients.wait("answered", timeout_s=seconds * 3 + 90)
            used_s, queued_s = cpu_s(process_id) - began_s, waited_s(process_id) - began_wait_s
            latencies, settled = answered["latencies_ms"], answered["settled_ms"]
            p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
            print(
                f"serving: REST, 500 candles, {CLIENTS} clients, {kind}: {answered['rate']:,.0f} "
                f"requests/s of {asked:,.0f}, p50 {p50:.1f} ms, p99 {p99:.1f} ms (goal "
                f"{goal_ms:g}: {verdict(p99, goal_ms)}), {used_s / len(latencies) * 1e3:.2f} ms "
                f"of the server's core a request, {queued_s / len(latencies) * 1e3:.2f} ms waited "
                f"for it; behind the first second p99 {percentile(settled, 0.99):.1f} ms, most "
                f"{settled[-1]:.0f} ms; answers {answered['statuses']}"
            )
