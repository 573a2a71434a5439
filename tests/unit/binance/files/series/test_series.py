"""Files of derivative series: shapes, bad rows, repeats."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.binance.files.series.funding_rates import read_funding_rates
from include.binance.files.series.metrics import read_metrics
from include.binance.files.series.price_klines import read_price_klines
from include.binance.files.series.reading import SeriesFile
from include.domain.candles import Status
from include.domain.series.kinds import Series
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, from_us, to_us
from include.errors import RejectedInputError

DAY_START_US = to_us(datetime(2026, 11, 1, tzinfo=UTC))
WINDOW = (DAY_START_US, DAY_START_US + DAY_US)
MS = DAY_START_US // 1000
NOT_A_MINUTE = "close_time is not within the minute: not a 1m kline"

KLINE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
FUNDING_HEADER = "calc_time,funding_interval_hours,last_funding_rate"
METRICS_HEADER = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,"
    "count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,count_long_short_ratio,"
    "sum_taker_long_short_vol_ratio"
)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "file.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def reasons(found: SeriesFile) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for one in found.rejections]


# --- price klines


def kline(minute: int, prices: str, *, late_ms: int = 59_999) -> str:
    open_ms = MS + minute * 60_000
    return f"{open_ms},{prices},0,{open_ms + late_ms},0,60,0,0,0"


def prices(folder: Path, *lines: str, series: Series = Series.MARK) -> SeriesFile:
    return read_price_klines(written(folder, KLINE_HEADER, *lines), series, window=WINDOW)


def test_price_klines_keep_every_digit_and_are_sorted(tmp_path: Path) -> None:
    found = prices(tmp_path, kline(1, "2,3,1,2.50000001"), kline(0, "1,1,1,1.00000000"))
    assert [(one.time_us, one.values, one.status) for one in found.points[Series.MARK]] == [
        (DAY_START_US, ("1", "1", "1", "1.00000000"), Status.VERIFIED),
        (DAY_START_US + MINUTE_US, ("2", "3", "1", "2.50000001"), Status.VERIFIED),
    ]
    assert (found.rejections, found.time_unit, found.rows) == ([], "ms", 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (kline(0, "1,0.5,0.4,0.5"), "high is below another price"),
        (kline(0, "1,2,1.5,1"), "low is above another price"),
        (kline(0, "1,NaN,1,1"), "high is no number: 'NaN'"),
        (kline(0, "1,1e3,1,1"), "high is no number: '1e3'"),
        (kline(0, "1,1,1,"), "close is empty"),
        (kline(0, "0,1,0,1"), "a price is not positive"),
        (kline(0, "-1,1,-1,1"), "a price is not positive"),
        (kline(0, "1,1,1,1", late_ms=60_000), NOT_A_MINUTE),
        (kline(1440, "1,1,1,1"), "the time is outside the period of the file"),
        (f"{MS + 1},1,1,1,1,0,{MS + 59_999},0,60,0,0,0", "open_time is not a full minute"),
        ("1,2,3", "3 columns, expected 12 (half a line?)"),
    ],
)
def test_a_bad_price_kline_is_rejected_and_the_others_load(
    tmp_path: Path, line: str, reason: str
) -> None:
    found = prices(tmp_path, kline(5, "1,1,1,1"), line)
    assert reasons(found) == [(3, reason)]
    assert found.rows == 1


def test_the_premium_index_may_be_negative(tmp_path: Path) -> None:
    found = prices(tmp_path, kline(0, "-0.0001,0.0002,-0.0003,0"), series=Series.PREMIUM)
    assert found.rejections == []
    assert found.rows == 1


def test_equal_rows_count_once_and_contradictory_ones_are_rejected(tmp_path: Path) -> None:
    found = prices(
        tmp_path,
        kline(0, "1,1,1,1"),
        kline(0, "1.0,1,1,1"),
        kline(1, "1,1,1,1"),
        kline(1, "2,2,2,2"),
    )
    assert [one.time_us for one in found.points[Series.MARK]] == [DAY_START_US]
    assert found.repeated == 1
    assert reasons(found) == [
        (4, "rows of one time contradict each other"),
        (5, "rows of one time contradict each other"),
    ]


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedInputError, match="neither a row nor a known header"):
        read_price_klines(written(tmp_path, FUNDING_HEADER), Series.MARK)


def test_a_file_without_rows_is_empty(tmp_path: Path) -> None:
    assert prices(tmp_path).points == {Series.MARK: []}


# --- funding rates


def test_settlements_belong_to_their_hour(tmp_path: Path) -> None:
    path = written(
        tmp_path, FUNDING_HEADER, f"{MS + 11},8,-0.00010000", f"{MS + 8 * 3_600_000 - 1},4,0.02"
    )
    found = read_funding_rates(path, window=WINDOW)
    assert [(one.time_us, one.values) for one in found.points[Series.FUNDING]] == [
        (DAY_START_US, ("-0.00010000", from_us(DAY_START_US + 11_000), None, 8)),
        (DAY_START_US + 8 * HOUR_US, ("0.02", from_us(DAY_START_US + 8 * HOUR_US - 1000), None, 4)),
    ]
    assert found.rejections == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{MS + 60_000},8,0.0001", "funding_time is not near a whole hour"),
        (f"{MS},8,", "funding_rate is empty"),
        (f"{MS},8,1.5", "funding_rate is not below 100 %"),
        (f"{MS},0,0.0001", "interval_hours is not within a day: '0'"),
        (f"{MS},,0.0001", "interval_hours is not within a day: ''"),
        (f"{MS - 3_600_000},8,0.0001", "the time is outside the period of the file"),
    ],
)
def test_a_bad_settlement_is_rejected(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, FUNDING_HEADER, f"{MS + 8 * 3_600_000},8,0.0001", line)
    found = read_funding_rates(path, window=WINDOW)
    assert reasons(found) == [(3, reason)]
    assert found.rows == 1


# --- metrics


def metrics(folder: Path, *lines: str) -> SeriesFile:
    return read_metrics(written(folder, METRICS_HEADER, *lines), "BTCUSDT", window=WINDOW)


def test_metrics_have_two_series_and_unknown_cells(tmp_path: Path) -> None:
    found = metrics(
        tmp_path,
        "2026-11-01 00:05:00,BTCUSDT,2.5,100.25,,,1.1,",
        "2026-11-01 00:00:00,BTCUSDT,2.0,100.00,1.2,1.3,1.1,0.9",
    )
    assert [(one.values, one.status) for one in found.points[Series.OPEN_INTEREST]] == [
        (("2.0", "100.00"), Status.VERIFIED),
        (("2.5", "100.25"), Status.VERIFIED),
    ]
    assert [(one.values, one.status) for one in found.points[Series.RATIOS]] == [
        (("1.2", "1.3", "1.1", "0.9"), Status.VERIFIED),
        ((None, None, "1.1", None), Status.PARTIAL),
    ]


def test_rows_of_old_files_that_occur_twice_count_once(tmp_path: Path) -> None:
    line = "2026-11-01 00:05:00,BTCUSDT,2.5,100.25,,,1.1,"
    found = metrics(tmp_path, line, line)
    assert (found.rows, found.repeated, found.rejections) == (1, 1, [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2026-11-01 00:05:00,BTCUSDT,-2.5,100,1,1,1,1", "open_interest is negative"),
        ("2026-11-01 00:05:00,BTCUSDT,NaN,100,1,1,1,1", "open_interest is no number: 'NaN'"),
        ("2026-11-01 00:05:00,ETHUSDT,1,100,1,1,1,1", "the row is not of BTCUSDT"),
        ("2026-11-01 00:05:01,BTCUSDT,1,1,1,1,1,1", "create_time is not a multiple of 5 minutes"),
        (
            "2026-13-01 00:05:00,BTCUSDT,1,1,1,1,1,1",
            "create_time is no time: '2026-13-01 00:05:00'",
        ),
        ("2026-11-02 00:05:00,BTCUSDT,1,100,1,1,1,1", "the time is outside the period of the file"),
    ],
)
def test_a_bad_row_of_metrics_is_rejected(tmp_path: Path, line: str, reason: str) -> None:
    found = metrics(tmp_path, "2026-11-01 00:00:00,BTCUSDT,2.0,100.00,1.2,1.3,1.1,0.9", line)
    assert reasons(found) == [(3, reason)]
    assert found.rows == 1


def test_the_first_time_of_the_next_day_is_accepted(tmp_path: Path) -> None:
    found = metrics(tmp_path, "2026-11-02 00:00:00,BTCUSDT,2.0,100.00,1.2,1.3,1.1,0.9")
    assert found.rows == 1
