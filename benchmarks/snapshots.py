"""Writing the open candles of 1,500 symbols beside a long snapshot.

The writer's own statements run at the writer's pace against the embedded PostgreSQL: every 250 ms a
round writes the open candle of each symbol, and at each minute's end the closed candles are stored.
In every second turn another session holds a REPEATABLE READ transaction, as a backup, a full build
or an analyst's query does, and has read the live candles in it.

Printed are percentiles of a round with and without that transaction, their ratio, and the bytes of
all tables that have open candles.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import psycopg

from benchmarks.load.stage import verdict
from deploy.local.postgres import EmbeddedPostgres
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US
from include.store.candles.live import LiveCandle, rotate_live_async, write_live_async
from include.store.candles.minutes import store_async
from include.store.migrate import migrate
from include.store.postgres.pools import connect_async
from streamer.storage.writer import LIVE_INTERVAL_S, LIVE_SYMBOLS

SYMBOLS = 1_500
SECONDS = 120
"""Seconds of each turn."""
TURNS = 2
"""Turns without and with a snapshot."""
WARM_UP_S = 10
FIRST_US = 1_700_000_040_000_000
PERCENTILES = (0.5, 0.9, 0.99)
RATIO_GOAL = 1.2
SIZE_GOAL_MB = 128.0

_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c
WHERE c.relkind = 'r' AND c.relname LIKE 'live\\_candles%'
"""


_REMOVE = """
SELECT ops.delete_live_candles(array_agg(symbol), array_agg(open_time)) FROM market.live_candles
"""


@dataclass(slots=True)
class Rounds:
    """Measurements of rounds.

    Attributes:
        rounds_s: seconds of each round.
        bytes: the largest size of the tables.
    """

    rounds_s: list[float] = field(default_factory=list)
    bytes: int = 0

    def percentile_ms(self, share: float) -> float:
        """Return a percentile of the rounds."""
        return sorted(self.rounds_s)[int(share * (len(self.rounds_s) - 1))] * 1_000


def candle(symbol: str, minute: int, trades: int) -> Candle:
    """Return the state of a candle after this number of trades."""
    price = Decimal("61234.50") + trades
    volume = Decimal("0.01234") * trades
    return Candle(
        symbol, FIRST_US + minute * MINUTE_US, price, price, price, price, volume, volume * price,
        trades, volume, volume * price, minute * 1_000 + 1, minute * 1_000 + trades,
    )  # fmt: skip


async def _write(url: str, first_minute: int, seconds: int, measured: Rounds) -> None:
    symbols = [f"S{number:04}USDT" for number in range(SYMBOLS)]
    async with await connect_async(url, application_name="benchmark") as connection:
        await connection.execute(_REMOVE)
        loop = asyncio.get_running_loop()
        began_s, number = loop.time(), 0
        while loop.time() - began_s < seconds:
            due_s = began_s + number * LIVE_INTERVAL_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            minute, trades = divmod(int((loop.time() - began_s) / LIVE_INTERVAL_S), 240)
            minute += first_minute
            rows = [
                LiveCandle(candle(name, minute, trades + 1), is_closed=False) for name in symbols
            ]
            round_s = time.perf_counter()
            for first in range(0, len(rows), LIVE_SYMBOLS):
                await write_live_async(connection, rows[first : first + LIVE_SYMBOLS])
            await rotate_live_async(connection)
            measured.rounds_s.append(time.perf_counter() - round_s)
            number = max(number + 1, int((loop.time() - began_s) / LIVE_INTERVAL_S))
            if trades < 4 and minute > first_minute:
                closed = [
                    CandleCandidate(
                        candle(name, minute - 1, 240), Status.UNCONFIRMED, Source.STREAM
                    )
                    for name in symbols
                ]
                for first in range(0, len(closed), LIVE_SYMBOLS):
                    await store_async(connection, closed[first : first + LIVE_SYMBOLS])
            row = await (await connection.execute(_SIZE)).fetchone()
            measured.bytes = max(measured.bytes, row[0] if row else 0)


def run(seconds: int = SECONDS) -> None:
    """Run all turns and print the verdict."""
    alone, held = Rounds(), Rounds()
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            url = server.create_database("live")
            migrate(url)
            asyncio.run(_write(url, 0, WARM_UP_S, Rounds()))
            for turn in range(1, TURNS + 1):
                asyncio.run(_write(url, 1_000 * turn, seconds, alone))
                with psycopg.connect(url) as holder:
                    holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    holder.execute("SELECT count(*) FROM market.live_candles")
                    asyncio.run(_write(url, 1_000 * turn + 500, seconds, held))
                    holder.rollback()
    for name, rounds in (("without a snapshot", alone), ("beside a snapshot", held)):
        times = ", ".join(
            f"p{share * 100:g} {rounds.percentile_ms(share):.0f}" for share in PERCENTILES
        )
        print(
            f"snapshots: {name}: {len(rounds.rounds_s)} rounds of {SYMBOLS:,} symbols, {times} ms; "
            f"tables at most {rounds.bytes / 1e6:.1f} MB"
        )
    ratio = held.percentile_ms(0.99) / alone.percentile_ms(0.99)
    print(
        f"snapshots: p99 beside a snapshot to p99 without {ratio:.2f} (goal {RATIO_GOAL}: "
        f"{verdict(ratio, RATIO_GOAL)}); size {held.bytes / 1e6:.1f} MB (goal {SIZE_GOAL_MB:g}: "
        f"{verdict(held.bytes / 1e6, SIZE_GOAL_MB)})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=SECONDS)
    run(parser.parse_args().seconds)
