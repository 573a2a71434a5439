"""Recorded REST answers and dump files have the simulator's fields, of the same types.

A shape is the path of each value and its kind. The answers of one recording were truncated and
sorted by the project that made it, so the order of fields is compared with the original ones of
2019 alone.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.parity.shapes import DECIMAL, kind_of

pytestmark = pytest.mark.recorded

TIMES = re.compile(r"(\A|[.\]])(E|T|time|\w+Time|\w+Date)\Z")
NOON = datetime(2025, 2, 3, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    """The clock stands still."""
    config = SimulatorConfig(start=datetime(2024, 11, 20, tzinfo=UTC), clock_start=NOON, speed=0)
    with ExchangeThread(config) as running:
        yield running


@pytest.fixture(scope="module")
def client(exchange: ExchangeThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=exchange.spot_rest_url, timeout=60) as opened:
        opened.headers["X-MBX-APIKEY"] = "any"
        yield opened


# --- shapes


def walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """All values that hold no others, by path; filters by their type, cells by their column."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(f"{path}.{name}" if path else name, inner)
    elif isinstance(value, list):
        for row in value:
            if path.endswith("permissionSets"):
                yield from walk(f"{path}[]", row)
            elif isinstance(row, list):
                for column, cell in enumerate(row):
                    yield from walk(f"{path}[].{column}", cell)
            elif isinstance(row, dict) and "filterType" in row:
                yield from walk(f"{path}[{row['filterType']}]", row)
            else:
                yield from walk(f"{path}[]", row)
    else:
        yield path, value


def shape_of(body: Any, *, with_decimals: bool) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = defaultdict(set)
    for path, value in walk("", body):
        is_time = TIMES.search(path) is not None
        kinds[path].add(kind_of(value, is_time=is_time, with_decimals=with_decimals))
    return dict(kinds)


# --- answers


class Answer(NamedTuple):
    """One endpoint, in the recording and at the simulator.

    Attributes:
        recorded: part of the recorded query that selects the answer; `none` without.
        query: for the simulator. later: fields that the exchange added after the recording.
    """

    path: str
    recorded: str
    query: dict[str, Any]
    later: tuple[str, ...] = ()


SPOT, FUTURE = {"symbol": "BTCUSDT"}, {"symbol": "BTCUSDT", "limit": 5}
ANSWERS = [
    Answer("/api/v3/aggTrades", "fromId=202790190", SPOT),
    Answer("/api/v3/avgPrice", "", SPOT, ("closeTime",)),
    Answer("/api/v3/depth", "limit=1000", SPOT),
    Answer("/api/v3/exchangeInfo", "", {"symbol": "ETHBTC"},
           ("symbols[].opoAllowed", "symbols[].pegInstructionsAllowed")),
    Answer("/api/v3/historicalTrades", "", SPOT),
    Answer("/api/v3/klines", "interval=1m", SPOT | {"interval": "1m"}),
    Answer("/api/v3/klines", "interval=1d", SPOT | {"interval": "1d"}),
    Answer("/api/v3/ticker/24hr", "symbol=ETHBTC", {"symbol": "ETHBTC"}),
    Answer("/api/v3/ticker/24hr", "symbols=", {"symbols": '["BTCUSDT","ETHUSDT"]'}),
    Answer("/api/v3/ticker/24hr", "none", {}),
    Answer("/api/v3/ticker/bookTicker", "", SPOT),
    Answer("/api/v3/ticker/price", "", SPOT),
    Answer("/fapi/v1/aggTrades", "", FUTURE, ("[].nq",)),
    Answer("/fapi/v1/depth", "", FUTURE),
    Answer("/fapi/v1/exchangeInfo", "", {}),
    Answer("/fapi/v1/klines", "", FUTURE | {"interval": "5m"}),
    Answer("/fapi/v1/premiumIndex", "symbol=BTCUSDT", SPOT),
    Answer("/fapi/v1/ticker/24hr", "symbol=BTCUSDT", SPOT),
    Answer("/fapi/v1/ticker/24hr", "none", {}),
    Answer("/fapi/v1/ticker/bookTicker", "symbol=BTCUSDT", SPOT),
    Answer("/fapi/v1/ticker/bookTicker", "none", {}),
    Answer("/fapi/v1/ticker/price", "symbol=BTCUSDT", SPOT),
    Answer("/fapi/v1/ticker/price", "none", {}),
    Answer("/fapi/v1/time", "", {}),
    Answer("/fapi/v1/trades", "limit=1000", FUTURE, ("[].isRPITrade",)),
]  # fmt: skip


@functools.cache
def recorded_routes(folder: Path) -> Any:
    text = gzip.decompress((folder / "rest-http-recorded/gocryptotrader-http.json.gz").read_bytes())
    return json.loads(text)["routes"]


def recorded_answer(folder: Path, answer: Answer) -> Any:
    """The recorded body of a request; of an exchangeInfo two symbols alone."""
    body = next(
        entry["data"]
        for entry in recorded_routes(folder)[answer.path]["GET"]
        if answer.recorded in (entry["queryString"] or "none")
    )
    if answer.path.endswith("exchangeInfo"):
        wanted = ("ETHBTC", "BTCUSDT")
        body["symbols"] = [entry for entry in body["symbols"] if entry["symbol"] in wanted]
    return body


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.path[1:]}?{a.recorded}")
def test_simulated_answers_have_the_recorded_shape(
    recorded_data: Path, client: httpx.Client, answer: Answer
) -> None:
    recorded = recorded_answer(recorded_data, answer)
    response = client.get(answer.path, params=answer.query)
    assert response.status_code == 200
    body = response.json()
    assert type(body) is type(recorded)
    is_spot = answer.path.startswith("/api/")
    wanted = shape_of(recorded, with_decimals=is_spot)
    simulated = shape_of(body, with_decimals=is_spot)
    assert all(name in simulated for name in answer.later)
    for name in answer.later:
        del simulated[name]
    assert simulated == wanted


@functools.cache
def answers_of_2019(folder: Path, name: str) -> tuple[dict[str, list[str]], Any]:
    """Headers and body of an unmodified answer."""
    text = gzip.decompress(
        (folder / f"rest-http-recorded/coingecko-binance-{name}.yml.gz").read_bytes()
    )
    (exchange, *_) = yaml.load(text, yaml.CSafeLoader)["http_interactions"]
    response = exchange["response"]
    return response["headers"], json.loads(response["body"]["string"])


def first_object(body: Any) -> dict[str, Any]:
    found = body[0] if isinstance(body, list) else body
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("name", "path", "query"),
    [
        ("fetch_order_book", "/api/v3/depth", {"symbol": "BTCUSDT", "limit": 500}),
        ("fetch_ticker", "/api/v3/ticker/24hr", {}),
        ("fetch_trades", "/api/v3/trades", {"symbol": "BTCUSDT"}),
    ],
)
def test_untouched_answers_have_the_same_order_of_fields_and_headers(
    recorded_data: Path, client: httpx.Client, name: str, path: str, query: dict[str, Any]
) -> None:
    headers, recorded = answers_of_2019(recorded_data, name)
    response = client.get(path, params=query)
    body = response.json()
    assert list(first_object(body)) == list(first_object(recorded))
    if name == "fetch_ticker":
        body, recorded = ([row for row in rows if row["count"]] for rows in (body, recorded))
    assert shape_of(body, with_decimals=True) == shape_of(recorded, with_decimals=True)
    assert response.headers["content-type"].lower() == headers["Content-Type"][0]
    for header in ("X-Mbx-Used-Weight", "X-Mbx-Used-Weight-1m"):
        assert response.headers[header].isdigit()
        assert headers[header][0].isdigit()


def test_day_without_trades_has_the_recorded_zeros(recorded_data: Path) -> None:
    _, every = answers_of_2019(recorded_data, "fetch_ticker")
    recorded = next(row for row in every if not row["count"])
    config = SimulatorConfig(
        spot_symbols=("BIFIUSDT",), start=datetime(2024, 1, 1, tzinfo=UTC), speed=0,
        clock_start=datetime(2024, 3, 1, tzinfo=UTC), seed=223,
    )  # fmt: skip
    with ExchangeThread(config) as exchange, httpx.Client(base_url=exchange.spot_rest_url) as http:
        row = http.get("/api/v3/ticker/24hr", params={"symbol": "BIFIUSDT"}).json()
    assert row["count"] == 0
    alive = ("symbol", "prevClosePrice", "openTime", "closeTime", "bidPrice", "bidQty",
             "askPrice", "askQty")  # fmt: skip
    told, wanted = ({k: v for k, v in one.items() if k not in alive} for one in (row, recorded))
    assert told == wanted


def test_symbols_of_2019_have_their_fields_in_the_same_order(
    recorded_data: Path, client: httpx.Client
) -> None:
    _, recorded = answers_of_2019(recorded_data, "fetch_pairs")
    body = client.get("/api/v3/exchangeInfo").json()
    assert list(body) == list(recorded)
    old = list(first_object(recorded["symbols"]))
    new = list(first_object(body["symbols"]))
    assert [name for name in new if name in old] == old


def recorded_depths(folder: Path) -> Iterator[tuple[str, Any]]:
    """Market and body of order books from REST, beside recorded frames."""
    for name, market in (
        ("ws-spot-20240808", "spot"),
        ("ws-usdm-vs-klines-20240808", "um"),
        ("ws-cryptofeed-2021", "spot"),
    ):
        for file in sorted((folder / name).glob("*.gz")):
            with gzip.open(file, "rt") as lines:
                for line in lines:
                    begin = line.find('{"lastUpdateId"')
                    if begin >= 0 and '"stream"' not in line:
                        yield market, json.loads(line[begin:])


def test_order_books_have_the_recorded_fields(recorded_data: Path, client: httpx.Client) -> None:
    paths = {"spot": "/api/v3/depth", "um": "/fapi/v1/depth"}
    seen = set()
    for market, recorded in recorded_depths(recorded_data):
        query = {"symbol": "BTCUSDT", "limit": 1_000}
        body = client.get(paths[market], params=query).json()
        is_spot = market == "spot"
        assert list(body) == list(recorded)
        assert shape_of(body, with_decimals=is_spot) == shape_of(recorded, with_decimals=is_spot)
        seen.add(market)
    assert seen == {"spot", "um"}


def test_klines_have_the_recorded_cells_at_every_interval(
    recorded_data: Path, client: httpx.Client
) -> None:
    with zipfile.ZipFile(recorded_data / "rest-klines-12-intervals/BTCUSDT.zip") as archive:
        latest = {name.split("/")[1]: name for name in sorted(archive.namelist())}
        recorded = {interval: json.loads(archive.read(name)) for interval, name in latest.items()}
    assert len(recorded) == 12
    for interval, rows in recorded.items():
        query = {"symbol": "BTCUSDT", "interval": interval}
        body = client.get("/api/v3/klines", params=query).json()
        assert shape_of(body, with_decimals=True) == shape_of(rows, with_decimals=True)


# --- dumps


class Dump(NamedTuple):
    """A recorded dump and a simulated one of the same kind."""

    recorded: str
    simulated: str


SPOT_FILES = "data/spot/{}/klines/BTCUSDT/{}/BTCUSDT-{}-{}.zip"
UM_FILES = "data/futures/um/monthly/klines/KEEPUSDT/{}/KEEPUSDT-{}-2025-01.zip"
DUMPS = [
    Dump("dump-spot-1m-20200101/BTCUSDT-1m-2020-01-01.zip",
         SPOT_FILES.format("daily", "1m", "1m", "2024-12-31")),
    Dump("dump-spot-1h-ms-to-us/BTCUSDT-1h-2024-12.zip",
         SPOT_FILES.format("monthly", "1h", "1h", "2024-12")),
    Dump("dump-spot-1h-ms-to-us/BTCUSDT-1h-2025-01.zip",
         SPOT_FILES.format("monthly", "1h", "1h", "2025-01")),
    Dump("dump-um-1m-bulk/FILUSDT-1m-2025-02.zip", UM_FILES.format("1m", "1m")),
    Dump("dump-um-1m-5m-near-2025/NEARUSDT-5m-2025-02.zip", UM_FILES.format("5m", "5m")),
]  # fmt: skip


def csv_of(archive_path: Any, stem: str) -> list[list[str]]:
    with zipfile.ZipFile(archive_path) as archive:
        assert archive.namelist() == [f"{stem}.csv"]
        text = archive.read(f"{stem}.csv").decode()
    assert text.endswith("\n")
    assert "\r" not in text
    return [line.split(",") for line in text.splitlines()]


def cell_kind(cell: str, *, with_decimals: bool) -> str:
    found = DECIMAL.match(cell)
    if found is None:
        return f"text {cell!r}"
    if found[1] is None:
        return f"time of {len(cell)} digits" if len(cell) >= 13 else "integer"
    return f"decimal of {len(found[1])} places" if with_decimals else "decimal"


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.recorded)
def test_simulated_dumps_have_the_recorded_columns(
    recorded_data: Path, client: httpx.Client, tmp_path: Path, dump: Dump
) -> None:
    is_spot = dump.simulated.startswith("data/spot")
    path = tmp_path / "simulated.zip"
    path.write_bytes(client.get(f"/{dump.simulated}").content)
    recorded = csv_of(recorded_data / dump.recorded, Path(dump.recorded).stem)
    simulated = csv_of(path, Path(dump.simulated).stem)
    if not is_spot:
        assert simulated.pop(0) == recorded.pop(0)
    shapes = [
        [{cell_kind(cell, with_decimals=is_spot) for cell in column}
         for column in zip(*rows, strict=True)]
        for rows in (simulated, recorded)
    ]  # fmt: skip
    if not is_spot:  # a listing whose quantities are whole has integers there
        shapes = [[kinds - {"integer", "decimal"} for kinds in shape] for shape in shapes]
    assert shapes[0] == shapes[1]
    for rows in (simulated, recorded):
        opens, closes = ({row[column][10:] for row in rows} for column in (0, 6))
        assert opens == {"0" * (len(rows[0][0]) - 10)}
        assert closes == {"9" * (len(rows[0][0]) - 10)}


def test_checksums_are_written_as_recorded(recorded_data: Path, client: httpx.Client) -> None:
    recorded = recorded_data / "dump-spot-1m-20200101/BTCUSDT-1m-2020-01-01.zip.CHECKSUM"
    simulated = client.get(f"/{SPOT_FILES.format('daily', '1m', '1m', '2025-01-05')}.CHECKSUM")
    form = re.compile(r"[0-9a-f]{64}  BTCUSDT-1m-20\d\d-01-0\d\.zip\Z")
    assert form.match(recorded.read_text())
    assert form.match(simulated.text)
