"""Contents of dump files, and altered rows."""

import io
import zipfile
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from simulator.clock import DAY_US, to_us
from simulator.dumps.contents import PublishedFile, altered_rows, csv_chunks, make_zip
from simulator.dumps.faults import AlterRows, DropRows
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket

START_US = to_us(datetime(2024, 12, 28, tzinfo=UTC))


def _market(name: MarketName = "spot") -> SimulatedMarket:
    symbol = "COSUSDT" if name == "spot" else "KEEPUSDT"
    return SimulatedMarket(select_instruments(name, (symbol,), seed=1), seed=1, start_us=START_US)


def _day(kind: str, date: str = "2025-01-02", market: MarketName = "spot") -> PublishedFile:
    begin = to_us(datetime.fromisoformat(date).replace(tzinfo=UTC))
    symbol = "COSUSDT" if market == "spot" else "KEEPUSDT"
    interval = "1m" if kind == "klines" else None
    path = f"data/{market}/daily/{kind}/{symbol}-{kind}-{date}.zip"
    end = begin + DAY_US
    return PublishedFile(market, kind, symbol, interval, begin, end, path, end)


def _lines(
    market: SimulatedMarket, file: PublishedFile, *changes: AlterRows | DropRows
) -> list[str]:
    return b"".join(csv_chunks(market, file, changes)).decode().splitlines()


@pytest.mark.parametrize("kind", ["klines", "aggTrades", "trades"])
def test_altered_rows_are_listed_and_the_same_each_time(kind: str) -> None:
    market, file = _market(), _day(kind)
    true = _lines(market, file)
    served = _lines(market, file, AlterRows(rows=5))
    assert served == _lines(_market(), file, AlterRows(rows=5))
    assert len(served) == len(true)
    differ = [(old, new) for old, new in zip(true, served, strict=True) if old != new]
    found = altered_rows(market, file, (AlterRows(rows=5),))
    assert [(row.true, row.served) for row in found] == differ
    assert [row.key for row in found] == [old.split(",")[0] for old, _ in differ]
    assert len(differ) == 5


def test_altered_kline_is_plausible_with_one_more_trade() -> None:
    market, file = _market(), _day("klines")
    for row in altered_rows(market, file, (AlterRows(rows=20),)):
        assert row.served is not None
        true, served = row.true.split(","), row.served.split(",")
        assert [len(field) for field in served[1:5]] == [len(field) for field in true[1:5]]
        assert Decimal(served[5]) - Decimal(true[5]) == 1
        assert Decimal(served[7]) - Decimal(true[7]) == Decimal(true[4])
        assert int(served[8]) == int(true[8]) + 1
        same = (0, 1, 2, 3, 4, 6, 9, 10, 11)
        assert [served[place] for place in same] == [true[place] for place in same]
        assert len(served[5].partition(".")[2]) == 8


def test_missing_rows_of_a_truncated_day_are_listed() -> None:
    market, file = _market(), _day("klines")
    assert _lines(market, file, DropRows(rows=60)) == _lines(market, file)[:-60]
    found = altered_rows(market, file, (DropRows(rows=60),))
    assert [row.served for row in found] == [None] * 60
    assert found[-1].true == _lines(market, file)[-1]


def test_altered_futures_file_keeps_its_header() -> None:
    market, file = _market("um"), _day("klines", market="um")
    lines = _lines(market, file, DropRows(rows=10), AlterRows(rows=2))
    assert lines[0].startswith("open_time,")
    assert len(lines) == 1 + 1_430


@pytest.mark.parametrize("kind", ["aggTrades", "trades"])
def test_month_of_trades_is_the_concatenation_of_its_days(kind: str) -> None:
    market = _market()
    begin = to_us(datetime(2024, 12, 1, tzinfo=UTC))  # listed on the 28th
    end = to_us(datetime(2025, 1, 1, tzinfo=UTC))
    month = PublishedFile("spot", kind, "COSUSDT", None, begin, end, "m/COSUSDT-2024-12.zip", end)
    days = [f"2024-12-{day}" for day in (28, 29, 30, 31)]
    single = [line for date in days for line in _lines(market, _day(kind, date))]
    assert _lines(market, month) == single
    assert len(single) > 500


def test_zip_has_the_compressed_lines_and_their_digest() -> None:
    market, file = _market(), _day("klines")
    made = make_zip(market, file)
    assert make_zip(_market(), file) == made
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        (entry,) = archive.infolist()
        assert archive.read(entry).decode().splitlines() == _lines(market, file)
    assert entry.compress_size < entry.file_size / 2
    assert make_zip(market, file, (AlterRows(rows=1),)).digest != made.digest
