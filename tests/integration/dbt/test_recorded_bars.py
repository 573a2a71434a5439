"""The marts built from recorded minutes are the exchange's own bars, to the last digit."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.domain.timeframes import from_us

pytestmark = pytest.mark.recorded

Row = tuple[datetime, Decimal, Decimal, Decimal, Decimal, Decimal, Decimal, int, Decimal, Decimal]


def row_of(fields: list[Any], open_time: datetime) -> Row:
    """Open time and nine values of a kline array, whose order is the exchange's."""
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


def exchange_bars(folder: Path, interval: str) -> dict[datetime, tuple[Any, ...]]:
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
def test_complete_bars_equal_the_exchanges(
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

    dbt("run")

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
