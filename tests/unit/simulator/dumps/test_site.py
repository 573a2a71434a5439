"""The dump site's files and listing."""

import csv
import hashlib
import io
import re
import zipfile
import zlib
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from simulator.clock import DAY_US, SECOND_US, SimulatedClock, to_us
from simulator.dumps.faults import (
    AlterRows,
    CorruptZip,
    DropRows,
    DumpRule,
    LatePublication,
    MissingChecksum,
    MissingFile,
    ReissueFile,
    StaleChecksum,
    TruncateZip,
)
from simulator.dumps.site import SimulatedDumpSite
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.wire.payloads import kline_row

START_US = to_us(datetime(2024, 12, 30, 13, tzinfo=UTC))
NOW_US = to_us(datetime(2025, 2, 3, 12, tzinfo=UTC))
SPOT = "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-"
DAY_PATH = f"{SPOT}2025-01-05.zip"


def _markets(start_us: int = START_US) -> dict[MarketName, SimulatedMarket]:
    spot = select_instruments("spot", ("ETHBTC", "COSUSDT"), seed=1)
    um = select_instruments("um", ("KEEPUSDT",), seed=1)
    return {
        "spot": SimulatedMarket(spot, seed=1, start_us=start_us),
        "um": SimulatedMarket(um, seed=1, start_us=start_us),
    }


def _site(now_us: int = NOW_US, **delays: int) -> SimulatedDumpSite:
    return SimulatedDumpSite(_markets(), SimulatedClock(start_us=now_us, speed=0), **delays)


def _read(site: SimulatedDumpSite, path: str) -> list[list[str]]:
    file = site.find(path)
    assert file is not None
    with zipfile.ZipFile(io.BytesIO(site.read(file))) as archive:
        (name,) = archive.namelist()
        assert name == path.rpartition("/")[2].replace(".zip", ".csv")
        return list(csv.reader(io.StringIO(archive.read(name).decode())))


def _keys(site: SimulatedDumpSite, prefix: str, delimiter: str = "", marker: str = "") -> Any:
    text = site.listing(prefix=prefix, delimiter=delimiter, marker=marker).decode()
    keys = re.findall(r"<Key>(.*?)</Key>", text)
    folders = re.findall(r"<CommonPrefixes><Prefix>(.*?)</Prefix>", text)
    return keys, folders, "<IsTruncated>true" in text


@pytest.mark.parametrize(("day", "unit_us"), [("2024-12-31", 1_000), ("2025-01-01", 1)])
def test_spot_days_are_in_ms_before_2025_and_in_us_since(day: str, unit_us: int) -> None:
    rows = _read(_site(), f"{SPOT}{day}.zip")
    begin = to_us(datetime.fromisoformat(day))
    instrument = _markets()["spot"].instrument("ETHBTC")
    klines = _markets()["spot"].klines(
        "ETHBTC", "1m", begin, begin + DAY_US - 1, view_us=begin + DAY_US
    )
    wanted = [[str(v) for v in kline_row(instrument, bar, unit_us=unit_us)] for bar in klines]
    assert len(rows) == 1_440
    assert rows == wanted
    assert rows[0][6].endswith("999" if unit_us == 1_000 else "999999")


def test_futures_days_have_a_header_and_stay_in_ms() -> None:
    path = "data/futures/um/daily/klines/KEEPUSDT/1m/KEEPUSDT-1m-2025-01-02.zip"
    header, *rows = _read(_site(), path)
    assert header[0] == "open_time"
    assert header[-1] == "ignore"
    assert len(header) == 12
    assert len(rows) == 1_440
    assert {len(row[0]) for row in rows} == {13}


def test_first_day_starts_with_the_listing() -> None:
    rows = _read(_site(), f"{SPOT}2024-12-30.zip")
    assert int(rows[0][0]) * 1_000 == START_US
    assert len(rows) == 11 * 60


def test_months_hold_the_days_in_order() -> None:
    month = _read(_site(), "data/spot/monthly/klines/ETHBTC/1m/ETHBTC-1m-2025-01.zip")
    assert len(month) == 31 * 1_440
    assert month[:1_440] == _read(_site(), f"{SPOT}2025-01-01.zip")


def test_monthly_klines_are_in_folders_named_1mo() -> None:
    path = "data/spot/monthly/klines/ETHBTC/1mo/ETHBTC-1mo-2025-01.zip"
    rows = _read(_site(), path)
    assert len(rows) == 1


def test_zips_are_reproducible_and_match_their_checksum() -> None:
    first, second = _site(), _site()
    path = f"{SPOT}2025-01-05.zip"
    one, other = first.find(path), second.find(path)
    assert one is not None
    assert other is not None
    assert first.read(one) == second.read(other)
    digest = hashlib.sha256(first.read(one)).hexdigest()
    assert first.checksum(one) == f"{digest}  ETHBTC-1m-2025-01-05.zip".encode()


def test_day_is_published_after_its_end_and_delay() -> None:
    end_us = to_us(datetime(2025, 1, 6, tzinfo=UTC))
    path = f"{SPOT}2025-01-05.zip"
    assert _site(end_us - 1).find(path) is None
    assert _site(end_us).find(path) is not None
    hour_us = 3_600 * SECOND_US
    assert _site(end_us + hour_us - 1, daily_delay_us=hour_us).find(path) is None
    assert _site(end_us + hour_us, daily_delay_us=hour_us).find(path) is not None
    month = "data/spot/monthly/klines/ETHBTC/1h/ETHBTC-1h-2025-01.zip"
    february_us = to_us(datetime(2025, 2, 1, tzinfo=UTC))
    assert _site(february_us - 1).find(month) is None
    assert _site(february_us).find(month) is not None


@pytest.mark.parametrize(
    "path",
    [
        "data/spot/daily/klines/NOSUCH/1m/NOSUCH-1m-2025-01-05.zip",
        "data/spot/daily/klines/ETHBTC/7m/ETHBTC-7m-2025-01-05.zip",
        "data/spot/daily/klines/ETHBTC/1w/ETHBTC-1w-2025-01-05.zip",
        "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2024-12-29.zip",
        "data/spot/hourly/klines/ETHBTC/1m/ETHBTC-1m-2025-01-05.zip",
        "data/futures/um/daily/klines/KEEPUSDT/1s/KEEPUSDT-1s-2025-01-05.zip",
        "data/futures/cm/daily/klines/KEEPUSDT/1m/KEEPUSDT-1m-2025-01-05.zip",
        "data/spot/daily",
        "",
    ],
)
def test_nonexistent_files_are_not_found(path: str) -> None:
    assert _site().find(path) is None


def test_listing_is_walked_folder_by_folder() -> None:
    site = _site()
    assert _keys(site, "", "/")[1] == ["data/"]
    assert _keys(site, "data/", "/")[1] == ["data/futures/", "data/spot/"]
    assert _keys(site, "data/futures/", "/")[1] == ["data/futures/um/"]
    assert _keys(site, "data/spot/daily/", "/")[1] == [
        f"data/spot/daily/{kind}/" for kind in ("aggTrades", "klines", "trades")
    ]
    assert _keys(site, "data/spot/daily/klines/", "/")[1] == [
        "data/spot/daily/klines/COSUSDT/",
        "data/spot/daily/klines/ETHBTC/",
    ]
    assert (
        "data/spot/monthly/klines/ETHBTC/1mo/"
        in _keys(site, "data/spot/monthly/klines/ETHBTC/", "/")[1]
    )
    keys, folders, truncated = _keys(site, "data/spot/daily/klines/ETHBTC/1m/", "/")
    assert not folders
    assert not truncated
    assert len(keys) == 2 * 35  # 2024-12-30 to 2025-02-02, zip and CHECKSUM
    assert keys[:2] == [f"{SPOT}2024-12-30.zip", f"{SPOT}2024-12-30.zip.CHECKSUM"]
    assert keys == sorted(keys)
    assert all(site.find(key.removesuffix(".CHECKSUM")) for key in keys)


def test_prefix_may_end_within_a_name() -> None:
    site = _site()
    assert _keys(site, f"{SPOT}2025-02")[0] == [
        f"{SPOT}2025-02-0{day}.zip{end}" for day in (1, 2) for end in ("", ".CHECKSUM")
    ]
    assert _keys(site, "data/spot/daily/klines/ETH", "/")[1] == ["data/spot/daily/klines/ETHBTC/"]


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_pages_have_a_thousand_keys_and_continue_after_the_marker(delimiter: str) -> None:
    now_us = START_US + 1_300 * DAY_US
    site = SimulatedDumpSite(_markets(), SimulatedClock(start_us=now_us, speed=0))
    prefix = "data/spot/daily/klines/ETHBTC/1m/"
    pages, marker = [], ""
    while True:
        keys, _, truncated = _keys(site, prefix, delimiter, marker)
        pages.append(keys)
        if not truncated:
            break
        marker = keys[-1]
    assert [len(page) for page in pages] == [1_000, 1_000, 600]
    flat = [key for page in pages for key in page]
    assert flat == sorted(set(flat))


def test_full_walk_is_sorted_across_folders() -> None:
    site = _site(START_US + 2 * DAY_US)
    found, marker = [], ""
    while True:
        keys, _, truncated = _keys(site, "data/", "", marker)
        found += keys
        if not truncated:
            break
        marker = keys[-1]
    assert found == sorted(set(found))
    assert any("/trades/" in key for key in found)
    assert any("futures" in key for key in found)


def test_agg_trade_dumps_have_the_agg_trades_of_the_day() -> None:
    site = _site()
    spot = _read(site, "data/spot/daily/aggTrades/ETHBTC/ETHBTC-aggTrades-2025-01-03.zip")
    trades = _markets()["spot"].day_trades("ETHBTC", to_us(datetime(2025, 1, 3, tzinfo=UTC)))
    assert [int(row[0]) for row in spot] == trades.agg_id.tolist()
    assert [int(row[5]) for row in spot] == trades.time_us.tolist()
    assert {row[6] for row in spot} == {"True", "False"}
    path = "data/futures/um/daily/trades/KEEPUSDT/KEEPUSDT-trades-2025-01-03.zip"
    header, *rows = _read(site, path)
    assert header == ["id", "price", "qty", "quote_qty", "time", "is_buyer_maker"]
    assert {row[5] for row in rows} == {"true", "false"}


def _faulty(*effects: Any, path: str = DAY_PATH, now_us: int = NOW_US) -> SimulatedDumpSite:
    site = _site(now_us)
    for effect in effects:
        site.faults.add(DumpRule(effect=effect, path=path))
    return site


def _fits(site: SimulatedDumpSite, path: str = DAY_PATH) -> bool:
    """Whether the checksum matches the bytes."""
    file = site.find(path)
    assert file is not None
    return site.checksum(file).split()[0].decode() == hashlib.sha256(site.read(file)).hexdigest()


def _is_readable(site: SimulatedDumpSite) -> bool:
    try:
        _read(site, DAY_PATH)
    except (zipfile.BadZipFile, zlib.error):
        return False
    return True


@pytest.mark.parametrize(
    ("effect", "fits", "is_readable"),
    [
        (AlterRows(), True, True),
        (DropRows(), True, True),
        (CorruptZip(), False, False),
        (CorruptZip(checksum_fits=True), True, False),
        (TruncateZip(), False, False),
        (TruncateZip(checksum_fits=True), True, False),
        (StaleChecksum(), False, True),
    ],
)
def test_damaged_file_matches_its_checksum_only_if_the_fault_says_so(
    effect: Any, fits: bool, is_readable: bool
) -> None:
    site = _faulty(effect)
    assert _fits(site) is fits
    assert _is_readable(site) is is_readable
    other = f"{SPOT}2025-01-06.zip"
    assert _fits(site, other)
    assert site.altered_rows(other) == []


def test_damaged_file_is_good_again_after_the_fault() -> None:
    site = _site()
    rule_id = site.faults.add(DumpRule(effect=CorruptZip(), path="*"))
    assert not _is_readable(site)
    assert site.faults.remove(rule_id) == 1
    assert _is_readable(site)
    assert _fits(site)


def test_only_the_missing_file_is_hidden() -> None:
    site = _faulty(MissingFile())
    assert site.find(DAY_PATH) is None
    keys = _keys(site, "data/spot/daily/klines/ETHBTC/1m/", "/")[0]
    assert len(keys) == 2 * 34
    assert not any("2025-01-05" in key for key in keys)
    assert site.altered_rows(DAY_PATH) == []
    assert site.faults.active()[0].hits == 1  # listing and oracle do not count as hits


def test_missing_checksum_does_not_hide_its_file() -> None:
    keys = _keys(_faulty(MissingChecksum()), DAY_PATH)[0]
    assert keys == [DAY_PATH]


def test_late_file_is_published_after_its_delay() -> None:
    end_us = to_us(datetime(2025, 1, 6, tzinfo=UTC))
    hour_us = 3_600 * SECOND_US
    assert (
        _faulty(LatePublication(delay_us=hour_us), now_us=end_us + hour_us - 1).find(DAY_PATH)
        is None
    )
    site = _faulty(LatePublication(delay_us=hour_us), now_us=end_us + hour_us)
    assert site.find(DAY_PATH) is not None
    listing = site.listing(prefix=DAY_PATH, delimiter="", marker="").decode()
    assert "<LastModified>2025-01-06T01:00:00.000Z</LastModified>" in listing


@pytest.mark.parametrize("is_repair", [True, False])
def test_reissued_file_has_new_rows_checksum_and_date(is_repair: bool) -> None:
    at_us = NOW_US - 3_600 * SECOND_US
    effect = ReissueFile(at_us=at_us, change=AlterRows(rows=4), is_repair=is_repair)
    before, after = _faulty(effect, now_us=at_us - 1), _faulty(effect, now_us=at_us)
    assert _fits(before)
    assert _fits(after)
    assert len(before.altered_rows(DAY_PATH)) == (4 if is_repair else 0)
    assert len(after.altered_rows(DAY_PATH)) == (0 if is_repair else 4)
    assert _read(before, DAY_PATH) != _read(after, DAY_PATH)
    dates = [
        re.findall("<LastModified>(.*?)</", site.listing(
            prefix=DAY_PATH, delimiter="", marker="").decode())[0]
        for site in (before, after)
    ]  # fmt: skip
    assert dates == ["2025-01-06T00:00:00.000Z", "2025-02-03T11:00:00.000Z"]


def test_month_can_differ_from_its_days_in_listed_rows() -> None:
    path = "data/spot/monthly/klines/ETHBTC/1m/ETHBTC-1m-2025-01.zip"
    site = _faulty(AlterRows(rows=7), path="*/monthly/*")
    month = _read(site, path)
    true = _read(_site(), path)
    differ = [row[0] for row, old in zip(month, true, strict=True) if row != old]
    assert differ == [row.key for row in site.altered_rows(path)]
    assert len(differ) == 7
    assert _read(site, DAY_PATH) == _read(_site(), DAY_PATH)


@pytest.mark.parametrize(
    "path",
    [
        "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-20250105.zip",
        "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2025-W01-7.zip",
        "data/spot/daily/klines/ETHBTC/1m/COSUSDT-1m-2025-01-05.zip",
        "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2025-02-30.zip",
        "data/spot/monthly/klines/ETHBTC/1m/ETHBTC-1m-2025-13.zip",
        "data/spot/monthly/aggTrades/ETHBTC/ETHBTC-aggTrades-2025-02.zip",
    ],
)
def test_other_spellings_of_a_date_are_not_found(path: str) -> None:
    assert _site().find(path) is None


@pytest.mark.parametrize("kind", ["aggTrades", "trades"])
def test_months_of_trades_are_listed_and_read(kind: str) -> None:
    site = _site()
    folder = f"data/spot/monthly/{kind}/COSUSDT/"
    keys = _keys(site, folder, "/")[0]
    assert keys[0] == f"{folder}COSUSDT-{kind}-2024-12.zip"
    assert len(keys) == 4  # December and January, each with its checksum
    rows = _read(site, keys[0])
    first_day = _read(site, f"data/spot/daily/{kind}/COSUSDT/COSUSDT-{kind}-2024-12-30.zip")
    assert rows[: len(first_day)] == first_day
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)


# --- contracts


def _contracts() -> SimulatedDumpSite:
    cm = select_instruments(
        "cm", ("ETHUSD_PERP", "ETHUSD_QUARTER"), seed=1, period_us=(START_US, NOW_US)
    )
    markets: dict[MarketName, SimulatedMarket] = {
        "cm": SimulatedMarket(cm, seed=1, start_us=START_US - 5 * DAY_US)
    }
    return SimulatedDumpSite(markets, SimulatedClock(start_us=NOW_US, speed=0))


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("trades", "id,price,qty,base_qty,time,is_buyer_maker"),
        (
            "aggTrades",
            "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
        ),
    ],
)
def test_coin_m_trades_hold_contracts_and_base_amounts(kind: str, header: str) -> None:
    path = f"data/futures/cm/daily/{kind}/ETHUSD_PERP/ETHUSD_PERP-{kind}-2025-01-02.zip"
    names, *rows = _read(_contracts(), path)
    assert ",".join(names) == header
    assert all(row[2].isdigit() for row in rows)
    if kind == "trades":
        for row in rows[:500]:
            amount = Decimal(row[2]) * 10 / Decimal(row[1])
            assert Decimal(row[3]) == amount.quantize(Decimal("1e-8"), ROUND_HALF_UP)
            assert len(row[3].partition(".")[2]) == 8


def test_coin_m_klines_have_the_names_of_usd_m_and_equal_the_trades() -> None:
    site = _contracts()
    path = "data/futures/cm/daily/klines/ETHUSD_PERP/1h/ETHUSD_PERP-1h-2025-01-02.zip"
    names, *rows = _read(site, path)
    assert names[7] == "quote_volume"
    trades = _read(
        site, "data/futures/cm/daily/aggTrades/ETHUSD_PERP/ETHUSD_PERP-aggTrades-2025-01-02.zip"
    )[1:]
    begin = int(rows[0][0])
    hour = [row for row in trades if begin <= int(row[5]) < begin + 3_600_000]
    assert rows[0][5] == str(sum(int(row[2]) for row in hour))
    amount = sum(Decimal(row[2]) * 10 / Decimal(row[1]) for row in hour)
    assert Decimal(rows[0][7]) == amount.quantize(Decimal("1e-8"), ROUND_HALF_UP)


def test_dated_contracts_have_files_until_their_delivery() -> None:
    site = _contracts()
    keys, folders, _ = _keys(site, "data/futures/cm/daily/aggTrades/", "/")
    assert keys == []
    assert [one.split("/")[-2] for one in folders] == [
        "ETHUSD_250328", "ETHUSD_250627", "ETHUSD_PERP",
    ]  # fmt: skip
    keys, _, _ = _keys(site, "data/futures/cm/daily/aggTrades/ETHUSD_250627/")
    assert keys[0].endswith("-2024-12-27.zip")  # listed at the delivery of December
    assert len(keys) == 2 * 38
    markets = site._markets
    late = SimulatedClock(start_us=to_us(datetime(2025, 4, 2, tzinfo=UTC)), speed=0)
    keys, _, _ = _keys(
        SimulatedDumpSite(markets, late), "data/futures/cm/daily/klines/ETHUSD_250328/1m/"
    )
    assert keys[-1].endswith("-2025-03-28.zip.CHECKSUM")


def test_altered_coin_m_rows_stay_plausible() -> None:
    site = _contracts()
    path = "data/futures/cm/daily/klines/ETHUSD_PERP/1m/ETHUSD_PERP-1m-2025-01-02.zip"
    site.faults.add(DumpRule(effect=AlterRows(rows=2), path=path))
    for row in site.altered_rows(path):
        true, served = row.true.split(","), str(row.served).split(",")
        contracts = int(served[5]) - int(true[5])
        assert contracts == 1
        more = Decimal(served[7]) - Decimal(true[7])
        assert abs(more - Decimal(10) / Decimal(true[4])) < Decimal("2e-8")
