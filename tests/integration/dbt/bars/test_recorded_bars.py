"""Marts built from recorded minutes equal the exchange's recorded bars exactly."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from include.domain.timeframes import TIMEFRAMES, from_us, to_us
from tests.integration.dbt.conftest import BARS

pytestmark = pytest.mark.recorded

Row = tuple[datetime, Decimal, Decimal, Decimal, Decimal, Decimal, Decimal, int, Decimal, Decimal]


def row_of(fields: list[Any], open_time: datetime) -> Row:
    """Open time and nine values of a kline array of the exchange."""
    _, open_, high, low, close, volume, _, quote_volume, count, taker, taker_quote, *_ = fields
    prices = [Decimal(value) for value in (open_, high, low, close, volume, quote_volume)]
    return (open_time, *prices, int(count), Decimal(taker), Decimal(taker_quote))  # type: ignore[return-value]


def minutes_of_2020(folder: Path) -> Iterator[Row]:
    for path in sorted((folder / "dump-spot-1m-20200101").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
        for fields in csv.reader(io.StringIO(text)):
            yield row_of(fields, from_us(int(fields[0]) * 1000))


def minutes_of_2025(folder: Path) -> Iterator[Row]:
    with gzip.open(folder / "rest-1m-20251029" / "BTCUSDT_1m.csv.gz", "rt") as lines:
        for fields in list(csv.reader(lines))[1:]:
            yield row_of(fields, datetime.fromisoformat(fields[0]))


@cache
def exchange_bars(folder: Path, interval: str) -> dict[datetime, tuple[Any, ...]]:
    """All recorded bars of an interval."""
    bars = {}
    with zipfile.ZipFile(folder / "rest-klines-12-intervals" / "BTCUSDT.zip") as archive:
        for name in archive.namelist():
            if name.split("/")[1] == interval and name.endswith(".json"):
                for fields in json.loads(archive.read(name)):
                    bar = row_of(fields, from_us(int(fields[0]) * 1000))
                    bars[bar[0]] = bar[1:]
    return bars


@pytest.mark.parametrize(
    ("minutes", "intervals"),
    [
        (minutes_of_2020, {"2h", "4h", "6h", "8h", "12h", "1d"}),
        (minutes_of_2025, {"15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"}),
    ],
)
def test_complete_bars_equal_recorded_bars(
    market: Any,
    dbt: Any,
    coarse: Any,
    recorded_data: Path,
    minutes: Any,
    intervals: set[str],
) -> None:
    rows = list(minutes(recorded_data))
    for month in {row[0].replace(day=1, hour=0, minute=0) for row in rows}:
        market.connection.execute(
            "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (month,)
        )
    with market.connection.cursor().copy(
        "COPY market.candles_1m (symbol, open_time, open, high, low, close, volume, quote_volume,"
        " trade_count, taker_buy_volume, taker_buy_quote_volume, status, source, source_rank,"
        " evidence_at) FROM STDIN"
    ) as copy:
        for row in rows:
            copy.write_row(
                ("BTCUSDT", *row, "verified", "rest", 80, datetime(2026, 1, 1, tzinfo=UTC))
            )

    dbt("run", "--select", BARS)

    compared = set()
    for timeframe in coarse:
        theirs = exchange_bars(recorded_data, timeframe.name)
        ours = {
            open_time: bar[1:10]
            for (_, open_time), bar in market.bars(timeframe).items()
            if bar[-1] and open_time in theirs
        }
        assert ours == {open_time: theirs[open_time] for open_time in ours}, timeframe.name
        if ours:
            compared.add(timeframe.name)
    assert compared == intervals


RECORDED = ("15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
LISTED = datetime(2017, 8, 17, 4, tzinfo=UTC)
"""The first trade of BTCUSDT. Bars that begin earlier are complete as well."""

COLUMNS = (
    "symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,"
    " taker_buy_volume, taker_buy_quote_volume"
)


def divides(finer: str, coarser: str) -> bool:
    """Whether bars of the finer interval exactly fill every bar of the coarser."""
    width, wanted = TIMEFRAMES[finer].width_us, TIMEFRAMES[coarser].width_us
    if width is None or finer == coarser:
        return False
    if wanted is None:
        return TIMEFRAMES["1d"].width_us % width == 0  # type: ignore[operator]
    return wanted > width and wanted % width == 0


PAIRS = [(finer, coarser) for finer in RECORDED for coarser in RECORDED if divides(finer, coarser)]


@pytest.fixture(scope="module")
def roll_ups(shared_market: Any, shared_dbt: Any) -> dict[tuple[str, str], str]:
    """The marts' roll-up SQL for each pair of intervals, on tables of schema ``recorded``."""
    connection = shared_market.connection
    connection.execute("CREATE SCHEMA recorded")
    connection.execute("CREATE TABLE recorded.relistings (symbol text, relisted_at timestamptz)")
    pairs = [("1m", "5m"), *PAIRS]
    template = "-- next pair".join(
        f"{{{{ roll_up_query('{coarser}', 'recorded.\"{finer}\"', 'ops.outages',"
        " 'recorded.relistings') }}"
        for finer, coarser in pairs
    )
    compiled = shared_dbt("compile", "--inline", template).result.results[0].node.compiled_code
    return dict(zip(pairs, compiled.split("-- next pair"), strict=True))


def compared_bars(connection: Any, coarser: str, query: str, within: str = "true") -> int:
    """Assert that a query equals the recorded bars; return how many were compared."""
    ours = f"SELECT {COLUMNS} FROM ({query}) AS rolled_up WHERE {within}"  # noqa: S608
    theirs = f'SELECT {COLUMNS} FROM recorded."{coarser}" WHERE {within}'  # noqa: S608
    differing = connection.execute(
        f"({ours} EXCEPT {theirs}) UNION ALL ({theirs} EXCEPT {ours})"
    ).fetchall()
    assert differing == [], coarser
    return int(
        connection.execute(f"SELECT count(*) FROM ({theirs}) AS compared").fetchone()[0]  # noqa: S608
    )


@pytest.fixture(scope="module")
def compare(
    shared_market: Any, roll_ups: dict[tuple[str, str], str], recorded_data: Path
) -> Callable[[str, str], int]:
    """Compare recorded bars with the roll-up of a finer interval; return how many."""
    for interval in RECORDED:
        store(shared_market.connection, interval, exchange_bars(recorded_data, interval))

    def equal(finer: str, coarser: str) -> int:
        bars = exchange_bars(recorded_data, finer)
        since = "-infinity" if min(bars) <= LISTED else min(bars)
        within = f"open_time >= '{since}' AND next_open_time <= '{max(bars)}'"
        return compared_bars(shared_market.connection, coarser, roll_ups[finer, coarser], within)

    return equal


def test_recorded_bars_equal_the_roll_up_of_their_parents(
    compare: Callable[[str, str], int],
) -> None:
    """Nine years, including bars with outages and silent bars."""
    parents = [pair for pair in PAIRS if TIMEFRAMES[pair[1]].parent == pair[0]]
    compared = {(finer, coarser): compare(finer, coarser) for finer, coarser in parents}
    assert len(compared) == 11
    assert compared["1d", "3d"] > 1_050
    assert compared["1d", "1w"] > 450
    assert compared["1d", "1M"] == 104
    assert min(compared.values()) >= 15


@pytest.mark.long
def test_recorded_bars_equal_the_roll_up_of_each_finer_interval(
    compare: Callable[[str, str], int],
) -> None:
    compared = {(finer, coarser): compare(finer, coarser) for finer, coarser in PAIRS}
    assert len(compared) == 60
    assert compared["15m", "1d"] > 480
    assert compared["2h", "1d"] > 3_100
    assert min(compared.values()) >= 15


def test_month_of_futures_equals_recorded_5m_bars(
    shared_market: Any, roll_ups: dict[tuple[str, str], str], recorded_data: Path
) -> None:
    for interval in ("1m", "5m"):
        path = recorded_data / "dump-um-1m-5m-near-2025" / f"NEARUSDT-{interval}-2025-02.zip"
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
        rows = [
            row_of(row, from_us(int(row[0]) * 1000))
            for row in list(csv.reader(io.StringIO(text)))[1:]
        ]
        store(shared_market.connection, interval, {row[0]: row[1:] for row in rows})
    assert compared_bars(shared_market.connection, "5m", roll_ups["1m", "5m"]) == 28 * 288


def store(connection: Any, interval: str, bars: dict[datetime, tuple[Any, ...]]) -> None:
    """Store recorded bars in a table that a roll-up can read."""
    connection.execute(
        f'CREATE TABLE recorded."{interval}" (symbol text COLLATE "C", open_time timestamptz,'
        " next_open_time timestamptz, open numeric, high numeric, low numeric, close numeric,"
        " volume numeric, quote_volume numeric, trade_count bigint, taker_buy_volume numeric,"
        " taker_buy_quote_volume numeric, first_trade_id bigint, last_trade_id bigint,"
        " minute_count integer, is_complete boolean)"
    )
    timeframe = TIMEFRAMES[interval]
    with connection.cursor().copy(f'COPY recorded."{interval}" FROM STDIN') as copy:
        for open_time, values in bars.items():
            after = from_us(timeframe.next_open_us(to_us(open_time)))
            copy.write_row(("BTCUSDT", open_time, after, *values, None, None, 1, True))


@pytest.mark.parametrize("interval", RECORDED)
def test_recorded_bars_open_where_ours_do(recorded_data: Path, interval: str) -> None:
    """Bars of 3d follow one listing day, bars of 1w start on Monday."""
    timeframe = TIMEFRAMES[interval]
    bars = exchange_bars(recorded_data, interval)
    assert len(bars) >= 104
    for open_time in bars:
        assert timeframe.open_time_us(to_us(open_time)) == to_us(open_time)
