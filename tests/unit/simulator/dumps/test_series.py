"""Files of derivative series: price klines, funding rates and metrics."""

import csv
import io
import zipfile
from datetime import UTC, datetime

import pytest

from simulator.clock import DAY_US, MINUTE_US, SimulatedClock, to_us
from simulator.dumps.faults import (
    AlterRows,
    DumpEffect,
    DumpRule,
    EmptyCells,
    LoseRows,
    RepeatRows,
    ShuffleRows,
)
from simulator.dumps.site import SimulatedDumpSite
from simulator.market.derivatives.open_interest import statistics_times
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.wire.derivatives import price_kline_row

START = to_us(datetime(2025, 12, 30, 13, tzinfo=UTC))
NOW = to_us(datetime(2026, 2, 3, 12, tzinfo=UTC))
UM = "data/futures/um"
METRICS = (
    "create_time", "symbol", "sum_open_interest", "sum_open_interest_value",
    "count_toptrader_long_short_ratio", "sum_toptrader_long_short_ratio",
    "count_long_short_ratio", "sum_taker_long_short_vol_ratio",
)  # fmt: skip


def site_of(start_us: int = START, now_us: int = NOW) -> SimulatedDumpSite:
    markets: dict[MarketName, SimulatedMarket] = {
        "um": SimulatedMarket(
            select_instruments("um", ("BTCUSDT",), seed=1), seed=1, start_us=start_us
        ),
        "cm": SimulatedMarket(
            select_instruments("cm", ("BTCUSD_PERP",), seed=1), seed=1, start_us=start_us
        ),
    }
    return SimulatedDumpSite(markets, SimulatedClock(start_us=now_us, speed=0))


@pytest.fixture
def site() -> SimulatedDumpSite:
    return site_of()


def read(site: SimulatedDumpSite, path: str) -> list[list[str]]:
    file = site.find(path)
    assert file is not None, path
    with zipfile.ZipFile(io.BytesIO(site.read(file))) as archive:
        (name,) = archive.namelist()
        return list(csv.reader(io.StringIO(archive.read(name).decode())))


def metrics_path(day: str) -> str:
    return f"{UM}/daily/metrics/BTCUSDT/BTCUSDT-metrics-{day}.zip"


@pytest.mark.parametrize("kind", ["markPriceKlines", "indexPriceKlines", "premiumIndexKlines"])
@pytest.mark.parametrize(("cadence", "text", "days"), [("daily", "2026-01-05", 1),
                                                       ("monthly", "2026-01", 31)])  # fmt: skip
def test_price_kline_files_have_the_rows_of_rest(
    site: SimulatedDumpSite, kind: str, cadence: str, text: str, days: int
) -> None:
    head, *rows = read(site, f"{UM}/{cadence}/{kind}/BTCUSDT/1h/BTCUSDT-1h-{text}.zip")
    assert head[:6] == ["open_time", "open", "high", "low", "close", "volume"]
    assert len(rows) == days * 24
    first_us = int(rows[0][0]) * 1_000
    series = site._markets["um"].derivatives("BTCUSDT")
    name = {"m": "mark", "i": "index", "p": "premium"}[kind[0]]
    klines = series.klines(
        name,  # type: ignore[arg-type]
        parse_interval("1h"), first_us, first_us + days * DAY_US - 1, view_us=NOW,
    )  # fmt: skip
    assert rows == [[str(value) for value in price_kline_row(one)] for one in klines]


def test_index_klines_of_coin_m_are_in_a_folder_of_the_pair(site: SimulatedDumpSite) -> None:
    folder = "data/futures/cm/daily"
    rows = read(site, f"{folder}/indexPriceKlines/BTCUSD/1m/BTCUSD-1m-2026-01-05.zip")
    assert len(rows) == 1_441
    assert site.find(f"{folder}/indexPriceKlines/BTCUSD_PERP/1m/BTCUSD_PERP-1m-2026-01-05.zip") is (
        None
    )
    marks = f"{folder}/markPriceKlines/BTCUSD_PERP/1m/BTCUSD_PERP-1m-2026-01-05.zip"
    assert len(read(site, marks)) == 1_441


def test_funding_rates_are_in_monthly_files_alone(site: SimulatedDumpSite) -> None:
    head, *rows = read(site, f"{UM}/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-01.zip")
    assert head == ["calc_time", "funding_interval_hours", "last_funding_rate"]
    assert len(rows) == 93
    settled = site._markets["um"].derivatives("BTCUSDT").settlements(START, NOW)
    known = {one.time_us // 1_000: one for one in settled}
    for time, hours, rate in rows:
        one = known[int(time)]
        assert (int(hours), round(float(rate) * 1e8)) == (one.interval_hours, one.rate)
    daily = f"{UM}/daily/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-01-05.zip"
    assert site.find(daily) is None
    this_month = f"{UM}/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-02.zip"
    assert site.find(this_month) is None


def test_metrics_have_a_row_every_five_minutes_and_are_not_always_sorted(
    site: SimulatedDumpSite,
) -> None:
    sorted_files = 0
    for day in range(1, 29):
        head, *rows = read(site, metrics_path(f"2026-01-{day:02d}"))
        assert tuple(head) == METRICS
        times = [row[0] for row in rows]
        assert len(set(times)) == len(times) == 288
        assert min(times) == f"2026-01-{day:02d} 00:00:00"
        assert max(times) == f"2026-01-{day:02d} 23:55:00"
        assert all(all(row) for row in rows)
        sorted_files += times == sorted(times)
    assert 5 < sorted_files < 23


def test_old_metrics_have_doubled_rows_and_empty_columns() -> None:
    day = datetime(2021, 5, 3, tzinfo=UTC)
    site = site_of(to_us(day), to_us(day) + 2 * DAY_US)
    rows = read(site, metrics_path("2021-05-03"))[1:]
    assert len(rows) == 2 * len({row[0] for row in rows}) == 574
    day = datetime(2022, 3, 3, tzinfo=UTC)
    site = site_of(to_us(day), to_us(day) + 2 * DAY_US)
    for row in read(site, metrics_path("2022-03-03"))[1:]:
        assert row[4] == row[5] == row[7] == ""
        assert row[2]
        assert row[3]
        assert row[6]


def test_metrics_agree_with_the_series(site: SimulatedDumpSite) -> None:
    rows = sorted(read(site, metrics_path("2026-01-05"))[1:])
    series = site._markets["um"].derivatives("BTCUSDT")
    first_us = to_us(datetime(2026, 1, 5, tzinfo=UTC))
    times = statistics_times(first_us, first_us + DAY_US - 1)
    amounts = series.open_interest(times)
    assert [round(float(row[2]) * 1_000) for row in rows] == amounts


def test_negative_open_interest_is_in_the_file(site: SimulatedDumpSite) -> None:
    series = site._markets["um"].derivatives("BTCUSDT")
    noon_us = to_us(datetime(2026, 1, 5, 12, tzinfo=UTC))
    series.negative = ((noon_us, noon_us + 10 * MINUTE_US),)
    rows = sorted(read(site, metrics_path("2026-01-05"))[1:])
    negative = [row[0][11:] for row in rows if row[2].startswith("-")]
    assert negative == ["12:00:00", "12:05:00"]


@pytest.mark.parametrize(
    ("effect", "count"),
    [(LoseRows(rows=5), 283), (RepeatRows(rows=5), 293), (ShuffleRows(), 288),
     (EmptyCells(rows=5), 288), (AlterRows(rows=5), 288)],
)  # fmt: skip
def test_faults_change_rows_within_a_file(
    site: SimulatedDumpSite, effect: DumpEffect, count: int
) -> None:
    path = metrics_path("2026-01-05")
    before = read(site, path)
    site.faults.add(DumpRule(effect=effect, path="*/metrics/*"))
    after = read(site, path)
    assert after[0] == before[0]
    assert len(after) - 1 == count
    assert after != before
    assert (sorted(after) == sorted(before)) == isinstance(effect, ShuffleRows)
    if isinstance(effect, EmptyCells):
        assert sum(row[4:] == ["", "", "", ""] for row in after) == 5


def test_listing_shows_the_folders_of_each_cadence(site: SimulatedDumpSite) -> None:
    text = site.listing(prefix=f"{UM}/daily/", delimiter="/", marker="").decode()
    for kind in ("metrics", "markPriceKlines", "indexPriceKlines", "premiumIndexKlines"):
        assert f"{UM}/daily/{kind}/" in text
    assert "fundingRate" not in text
    monthly = site.listing(prefix=f"{UM}/monthly/", delimiter="/", marker="").decode()
    assert "fundingRate" in monthly
    assert "metrics" not in monthly
    pairs = site.listing(prefix="data/futures/cm/daily/indexPriceKlines/", delimiter="/", marker="")
    assert b"indexPriceKlines/BTCUSD/" in pairs
    files = site.listing(prefix=f"{UM}/monthly/fundingRate/BTCUSDT/", delimiter="/", marker="")
    assert files.count(b"<Key>") == 4
