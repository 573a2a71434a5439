"""Cost of a row on disk: in each market data table with its index, and in the archive.

Rows of simulated spot symbols are written as the streamer writes them: candles by the merge, minute
by minute for all symbols; captured rows in batches, in order of arrival. The benchmark then reads
the size of the partitions (heap, index, maps) from PostgreSQL, and the size of the Parquet files
that ``archive_days`` writes. From the bytes of a row it computes the cost of a year.
"""

from __future__ import annotations

import asyncio
import heapq
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from operator import itemgetter
from pathlib import Path

import psycopg

from deploy.local.postgres import EmbeddedPostgres
from include.config import load_settings
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US, to_us
from include.jobs.storage.archive import archive_days, list_days
from include.store.candles.merging import merge_candidates
from include.store.migrate import migrate
from include.store.postgres.pools import connect, connect_async
from include.store.trades.captured import (
    AGG_TRADES,
    BOOK_TICKERS,
    RAW_TABLES,
    TRADES,
    RawTable,
    write_raw_async,
)
from simulator.market.instruments import DEFAULT_SPOT, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.wire.payloads import agg_trade_rows, kline_row, trade_rows

SEED = 612
SYMBOLS = 40
DAY = datetime(2026, 1, 12, tzinfo=UTC)
BEGIN_US = to_us(DAY)
CANDLE_MINUTES = 3 * 1_440
MINUTES_A_BATCH = 5
RAW_ROWS = 400_000
"""Rows in each table of raw capture."""
BATCH_ROWS = 20_000
"""Rows of one COPY: the default of the setting."""

BUSIEST_ROWS_A_DAY = 1_000_000
"""aggTrades a day of the busiest symbol; BTCUSDT has about 30 million a month."""
YEAR_DAYS = 365
COUNTS = (1, 100, 1_500)


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes that one row takes.

    Attributes:
        heap: in the table itself, with its maps.
        index: in its primary key.
        file: in the archive; None if the table is not archived.
    """

    heap: float
    index: float
    file: float | None

    @property
    def table(self) -> float:
        """Bytes of a row in PostgreSQL: heap and index."""
        return self.heap + self.index


def run() -> None:
    """Print the bytes of a row, and the cost of a year for some numbers of symbols."""
    instruments = select_instruments(
        "spot", DEFAULT_SPOT, generated=max(0, SYMBOLS - len(DEFAULT_SPOT)), seed=SEED
    )
    start_us = BEGIN_US - 2 * 86_400_000_000
    market = SimulatedMarket(instruments, seed=SEED, start_us=start_us)
    with tempfile.TemporaryDirectory(prefix="candelabra-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            url = server.create_database("disk")
            migrate(url)
            costs = measure(url, market, Path(folder))
    for name, cost in costs.items():
        kept = "" if cost.file is None else f"; archived {cost.file:.1f}"
        print(
            f"disk: {name}: {cost.table:.0f} bytes a row ({cost.heap:.0f} table, "
            f"{cost.index:.0f} index){kept}"
        )
    print(table_of_a_year(costs))


def measure(url: str, market: SimulatedMarket, home: Path) -> dict[str, Cost]:
    """Fill the tables, archive them, and print the cost of a row."""
    with connect(url, application_name="benchmark") as connection:
        for minute in range(0, CANDLE_MINUTES, MINUTES_A_BATCH):
            merge_candidates(connection, _candidates(market, BEGIN_US + minute * MINUTE_US))
    captured = {AGG_TRADES: _agg_trades, TRADES: _trades, BOOK_TICKERS: _quotes}
    for table, lines_of in captured.items():
        streams = [lines_of(market, symbol) for symbol in market]
        in_time = (line for _, line in heapq.merge(*streams, key=itemgetter(0)))
        asyncio.run(_write(url, table, islice(in_time, RAW_ROWS)))
    sizes = _sizes(url)
    settings = load_settings(database_url=url, candelabra_home=home)
    after = DAY + timedelta(days=2)
    archive_days(settings=settings, before=after.date(), now=after)
    files = {
        name: [(one.bytes, one.rows) for one in list_days(settings=settings, dataset=name)]
        for name in RAW_TABLES
    }
    return {
        name: Cost(
            heap / rows,
            index / rows,
            sum(size for size, _ in files[name]) / sum(count for _, count in files[name])
            if files.get(name)
            else None,
        )
        for name, (rows, heap, index) in sizes.items()
    }


def table_of_a_year(costs: dict[str, Cost]) -> str:
    """Return a Markdown table: gigabytes (10⁹ bytes) of a year by number of symbols.

    A symbol's number of trades falls with its rank, as 1/rank; each symbol has one candle a minute.
    """
    lines = [
        "| a year of | rows | "
        + " | ".join(f"{count:,} symbol{'s' * (count > 1)}" for count in COUNTS)
        + " |",
        "|---|---|" + "---:|" * len(COUNTS),
    ]

    def row(what: str, unit: str, bytes_a_row: float, rows: list[float]) -> str:
        told = " | ".join(_in_gb(bytes_a_row * count) for count in rows)
        return f"| {what} | {unit} | {told} |"

    minutes = [float(count * YEAR_DAYS * 1_440) for count in COUNTS]
    lines.append(row("`candles_1m`", "525,600 a symbol", costs["candles_1m"].table, minutes))
    trades = [
        BUSIEST_ROWS_A_DAY * YEAR_DAYS * sum(1 / rank for rank in range(1, count + 1))
        for count in COUNTS
    ]
    cost = costs[AGG_TRADES.name]
    told = f"{BUSIEST_ROWS_A_DAY:,} a day of the busiest"
    lines.append(row("`agg_trades` in the table", told, cost.table, trades))
    if cost.file is not None:
        lines.append(row("`agg_trades` in the archive", told, cost.file, trades))
    return "\n".join(lines)


# --- inside


def _in_gb(size_bytes: float) -> str:
    size_gb = size_bytes / 1e9
    return f"{size_gb:,.2f} GB" if size_gb < 10 else f"{size_gb:,.0f} GB"


def _candidates(market: SimulatedMarket, start_us: int) -> Iterator[CandleCandidate]:
    """Yield closed candles of all symbols, as the closed kline confirms them."""
    end_us = start_us + MINUTES_A_BATCH * MINUTE_US
    for symbol in market:
        instrument = market.instrument(symbol)
        for bar in market.klines(symbol, "1m", start_us, end_us - 1, view_us=end_us):
            told = kline_row(instrument, bar, unit_us=1)
            numbers = [Decimal(str(told[n])) for n in (1, 2, 3, 4, 5, 7)]
            has_trades = bar.trade_count > 0
            candle = Candle(
                symbol,
                bar.open_time_us,
                *numbers,
                bar.trade_count,
                Decimal(str(told[9])),
                Decimal(str(told[10])),
                bar.first_id if has_trades else None,
                bar.last_id if has_trades else None,
            )
            yield CandleCandidate(candle, Status.VERIFIED, Source.KLINE, bar.close_time_us + 40_000)


Lines = Iterator[tuple[int, str]]
"""Times (µs) and COPY lines, sorted by time."""


def _minutes(market: SimulatedMarket, symbol: str) -> Iterator[int]:
    first = BEGIN_US // MINUTE_US
    return iter(range(first, first + 1_440))


def _agg_trades(market: SimulatedMarket, symbol: str) -> Lines:
    history = market.history(symbol)
    for minute in _minutes(market, symbol):
        for row in agg_trade_rows(history.minute(minute), unit_us=1):
            at_us = int(row["T"])
            yield (
                at_us,
                AGG_TRADES.line(
                    (symbol, row["a"], row["p"], row["q"], row["f"], row["l"], at_us, row["m"])
                ),
            )


def _trades(market: SimulatedMarket, symbol: str) -> Lines:
    """Yield lines without the quote amount, which the stream does not send."""
    history = market.history(symbol)
    for minute in _minutes(market, symbol):
        for row in trade_rows(history.minute(minute), unit_us=1):
            at_us = int(row["time"])
            yield (
                at_us,
                TRADES.line(
                    (symbol, row["id"], row["price"], row["qty"], None, at_us, row["isBuyerMaker"])
                ),
            )


def _quotes(market: SimulatedMarket, symbol: str) -> Lines:
    """Yield spot book tickers. They have no event time, so the time of receipt is used."""
    book, instrument = market.book(symbol), market.instrument(symbol)
    price, quantity = instrument.format_price, instrument.format_quantity
    step, last = book.step_at(BEGIN_US), book.step_at(BEGIN_US + 86_399_000_000)
    while step < last:
        for best in book.best_updates(step):
            at_us = max(BEGIN_US, best.time_us) + 3_000
            yield at_us, BOOK_TICKERS.line(
                (
                    symbol, best.update_id, price(best.bid), quantity(best.bid_quantity),
                    price(best.ask), quantity(best.ask_quantity), None, at_us,
                )
            )  # fmt: skip
        step += 1


async def _write(url: str, table: RawTable, lines: Iterable[str]) -> None:
    left = iter(lines)
    async with await connect_async(url, application_name="benchmark") as connection:
        while batch := list(islice(left, BATCH_ROWS)):
            await write_raw_async(connection, table, batch)


def _sizes(url: str) -> dict[str, tuple[int, int, int]]:
    """Return rows, bytes of the table and bytes of its index, over all partitions."""
    found: dict[str, tuple[int, int, int]] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        for name in ("candles_1m", *RAW_TABLES):
            row = connection.execute(
                "SELECT sum(c.reltuples)::bigint, sum(pg_table_size(p.relid))::bigint, "
                "sum(pg_indexes_size(p.relid))::bigint FROM pg_partition_tree(%s) AS p "
                "JOIN pg_class AS c ON c.oid = p.relid WHERE p.isleaf AND c.reltuples > 0",
                (f"market.{name}",),
            ).fetchone()
            assert row is not None
            if row[0]:  # not liquidations, and not depth, which has its own benchmark
                found[name] = (row[0], row[1], row[2])
    return found
