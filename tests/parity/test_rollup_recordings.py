"""Roll-ups of recorded 1m candles equal the bars that the exchange itself published."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from include.domain.candles import Candle, silent_candle
from include.domain.columns.candles import CANDLE_SCHEMA, from_candles, roll_up, to_candles
from include.domain.rollup import roll_up as roll_up_rows
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, Timeframe, timeframe, to_us

pytestmark = pytest.mark.recorded

COARSER = ("15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")


def rest_rows(
    data: Path, interval: str, *, within: tuple[datetime, datetime] | None = None
) -> Iterator[Candle]:
    """Recorded REST bars of BTCUSDT at one interval: all, or those that open within two times."""
    start_ms, end_ms = (
        (0, 1e18) if within is None else (moment.timestamp() * 1_000 for moment in within)
    )
    with zipfile.ZipFile(data / "rest-klines-12-intervals" / "BTCUSDT.zip") as archive:
        for name in archive.namelist():
            if name.startswith(f"BTCUSDT/{interval}/") and name.endswith(".json"):
                yield from (
                    candle_of(row)
                    for row in json.loads(archive.read(name))
                    if start_ms <= row[0] < end_ms
                )


def candle_of(row: list) -> Candle:  # type: ignore[type-arg]
    o, h, low, c, v = (Decimal(text) for text in row[1:6])
    quote, taker, taker_quote = Decimal(row[7]), Decimal(row[9]), Decimal(row[10])
    return Candle("BTCUSDT", row[0] * 1000, o, h, low, c, v, quote, row[8], taker, taker_quote)


def dump_frame(path: Path, *, has_header: bool, member: str | None = None) -> pl.DataFrame:
    """A kline dump read without our own parser."""
    with zipfile.ZipFile(path) as archive:
        raw = pl.read_csv(
            archive.read(member or archive.namelist()[0]), has_header=has_header, infer_schema=False
        )
    names = raw.columns
    return frame_of(raw.select(pl.all().name.map(lambda name: str(names.index(name)))))


def frame_of(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns named by their place in the exchange's kline row, as a candle frame."""
    return raw.select(
        symbol=pl.lit("BTCUSDT"),
        open_time=(pl.col("0").cast(pl.Int64) * 1000).cast(CANDLE_SCHEMA["open_time"]),
        open="1", high="2", low="3", close="4", volume="5", quote_volume="7",
        trade_count=pl.col("8").cast(pl.Int64), taker_buy_volume="9", taker_buy_quote_volume="10",
        first_trade_id=pl.lit(None, dtype=pl.Int64), last_trade_id=pl.lit(None, dtype=pl.Int64),
    )  # fmt: skip


def complete_bars(frame: pl.DataFrame, to: Timeframe, *, finer_us: int) -> dict[int, Candle]:
    """Rolled-up bars with every finer bar in the frame, by open time."""
    present: dict[int, int] = {}
    for moment in frame["open_time"].dt.epoch("us"):
        bar = to.open_time_us(moment)
        present[bar] = present.get(bar, 0) + 1
    columnar = to_candles(roll_up(frame, to))
    assert columnar == roll_up_rows(to_candles(frame.sort("open_time")), to)
    return {
        bar.open_time_us: bar
        for bar in columnar
        if present[bar.open_time_us] * finer_us
        == to.next_open_us(bar.open_time_us) - bar.open_time_us
    }


def by_time(rows: Iterable[Candle]) -> dict[int, Candle]:
    return {row.open_time_us: row for row in rows}


def spanned(frame: pl.DataFrame) -> tuple[datetime, datetime]:
    """The days of a frame's candles."""
    first, last = frame["open_time"].min(), frame["open_time"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return first - timedelta(days=1), last


def assert_equal(ours: dict[int, Candle], theirs: dict[int, Candle], *, at_least: int) -> None:
    both = ours.keys() & theirs.keys()
    assert len(both) >= at_least
    wrong = {at: (ours[at], theirs[at]) for at in both if ours[at].values != theirs[at].values}
    assert wrong == {}


@pytest.mark.parametrize("name", ["2h", "4h", "6h", "8h", "12h", "1d"])
def test_two_days_of_the_2020_dumps_equal_the_rest_bars(recorded_data: Path, name: str) -> None:
    to = timeframe(name)
    folder = recorded_data / "dump-spot-1m-20200101"
    frame = pl.concat(
        dump_frame(folder / f"BTCUSDT-1m-2020-01-0{day}.zip", has_header=False) for day in (1, 2)
    )
    ours = complete_bars(frame, to, finer_us=MINUTE_US)
    theirs = by_time(rest_rows(recorded_data, name, within=spanned(frame)))
    assert to.width_us is not None
    assert_equal(ours, theirs, at_least=2 * 86_400_000_000 // to.width_us)


@pytest.mark.parametrize("name", COARSER)
def test_three_days_of_2025_equal_the_rest_bars(recorded_data: Path, name: str) -> None:
    with gzip.open(recorded_data / "rest-1m-20251029" / "BTCUSDT_1m.csv.gz") as file:
        raw = pl.read_csv(file.read(), infer_schema=False)
    frame = raw.select(
        symbol="symbol",
        open_time=pl.col("open_time").str.to_datetime("%Y-%m-%d %H:%M:%S%z", time_unit="us"),
        open="open", high="high", low="low",
        close="close", volume="volume", quote_volume="qav",
        trade_count=pl.col("num_trades").cast(pl.Int64), taker_buy_volume="taker_base",
        taker_buy_quote_volume="taker_quote",
        first_trade_id=pl.lit(None, dtype=pl.Int64), last_trade_id=pl.lit(None, dtype=pl.Int64),
    )  # fmt: skip
    theirs = by_time(rest_rows(recorded_data, name, within=spanned(frame)))
    ours = complete_bars(frame, timeframe(name), finer_us=MINUTE_US)
    assert_equal(ours, theirs, at_least=2)


def test_month_of_futures_rolls_up_to_every_recorded_5m_bar(recorded_data: Path) -> None:
    folder = recorded_data / "dump-um-1m-5m-near-2025"
    minutes = dump_frame(folder / "NEARUSDT-1m-2025-02.zip", has_header=True)
    fives = dump_frame(folder / "NEARUSDT-5m-2025-02.zip", has_header=True)
    ours = complete_bars(minutes, timeframe("5m"), finer_us=MINUTE_US)
    theirs = by_time(to_candles(fives))
    assert len(ours) == len(theirs)
    assert_equal(ours, theirs, at_least=28 * 288)


@pytest.mark.parametrize(
    ("finer", "coarser"),
    [
        pytest.param("15m", "30m", marks=pytest.mark.long),
        pytest.param("30m", "1h", marks=pytest.mark.long),
        pytest.param("1h", "2h", marks=pytest.mark.long),
        pytest.param("2h", "4h", marks=pytest.mark.long),
        pytest.param("2h", "6h", marks=pytest.mark.long),
        ("4h", "8h"),
        ("6h", "12h"),
        ("12h", "1d"),
        ("1d", "3d"),
        ("1d", "1w"),
        ("1d", "1M"),
    ],
)
def test_eight_years_of_rest_bars_roll_up_to_the_coarser_ones(
    recorded_data: Path, finer: str, coarser: str
) -> None:
    width_us = timeframe(finer).width_us
    assert width_us is not None
    frame = from_candles(list(rest_rows(recorded_data, finer)))
    ours = complete_bars(frame.unique("open_time"), timeframe(coarser), finer_us=width_us)
    theirs = by_time(rest_rows(recorded_data, coarser))
    assert_equal(ours, theirs, at_least=100)


def test_silent_hour_of_2023_03_24_does_not_open_its_4h_bar(recorded_data: Path) -> None:
    noon = to_us(datetime(2023, 3, 24, 12, tzinfo=UTC))
    hours = [
        row
        for row in rest_rows(recorded_data, "1h")
        if timeframe("4h").open_time_us(row.open_time_us) == noon
    ]
    assert hours[0] == silent_candle("BTCUSDT", noon, Decimal("28080.00"))
    theirs = next(row for row in rest_rows(recorded_data, "4h") if row.open_time_us == noon)
    rolled = roll_up_rows(hours, timeframe("4h"))
    assert [rolled[0].values] == [theirs.values]
    assert theirs.open == Decimal("28079.99")
    assert to_candles(roll_up(from_candles(hours), TIMEFRAMES["4h"])) == rolled
