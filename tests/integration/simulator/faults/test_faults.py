"""Faults of REST and of the dump site, added by a plan and seen by a client."""

import asyncio
import hashlib
import io
import time
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from simulator.config import SimulatorConfig
from simulator.faults.plan import PlanError
from simulator.server import Exchange

NOON = datetime(2026, 2, 3, 12, 0, 0, tzinfo=UTC)
CONFIG = SimulatorConfig(
    clock_start=NOON,
    start=datetime(2026, 1, 30, tzinfo=UTC),
    speed=50,
    spot_symbols=("BTCUSDT", "ETHBTC"),
    um_symbols=("BTCUSDT",),
)
DAY = "data/spot/daily/klines/ETHBTC/1h/ETHBTC-1h-2026-02-02.zip"
MONTH = "data/spot/monthly/klines/ETHBTC/1h/ETHBTC-1h-2026-01.zip"
Site = tuple[Exchange, httpx.AsyncClient]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with (
        Exchange(CONFIG) as exchange,
        httpx.AsyncClient(base_url=exchange.spot_rest_url) as client,
    ):
        yield exchange, client


async def _klines(client: httpx.AsyncClient, symbol: str = "BTCUSDT") -> httpx.Response:
    query = {"symbol": symbol, "interval": "1m", "limit": "10"}
    return await client.get("/api/v3/klines", params=query)


def _only(exchange: Exchange) -> dict[str, Any]:
    (entry,) = exchange.faults.listed()
    return entry


def _rows(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.namelist()[0]).splitlines()


async def test_errors_hit_only_matching_requests_as_often_as_configured(site: Site) -> None:
    exchange, client = site
    entry = {"kind": "rest_error", "market": "spot", "endpoints": "klines", "symbols": "BTC*"}
    exchange.faults.add(entry | {"status": 429, "retry_after_s": 7, "times": 2})
    assert (await client.get("/api/v3/time")).status_code == 200
    assert (await _klines(client, "ETHBTC")).status_code == 200
    for _ in range(2):
        refused = await _klines(client)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert (await _klines(client)).status_code == 200
    listed = _only(exchange)
    assert (listed["state"], listed["hits"]) == ("finished", 2)


async def test_slow_stale_malformed_and_aborted_answers(site: Site) -> None:
    exchange, client = site
    (slow,) = exchange.faults.add({"kind": "slow_rest", "delay_s": 0.3})
    began = time.monotonic()
    assert (await _klines(client)).status_code == 200
    assert time.monotonic() - began >= 0.3
    exchange.faults.remove(slow)

    (stale,) = exchange.faults.add({"kind": "rest_stale", "endpoints": "klines", "rows": 3})
    assert len((await _klines(client)).json()) == 7
    exchange.faults.remove(stale)

    for form in ("truncated", "not_json"):
        exchange.faults.add({"kind": "rest_malformed", "form": form, "times": 1})
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
            (await _klines(client)).json()
    exchange.faults.add({"kind": "rest_cut", "times": 1})
    with pytest.raises(httpx.TransportError):
        await _klines(client)
    assert len((await _klines(client)).json()) == 10


async def test_void_rows_hit_only_agg_trades(site: Site) -> None:
    exchange, client = site
    query = {"symbol": "BTCUSDT", "limit": "10"}
    posted = await client.post(
        "/sim/faults", json={"kind": "rest_void", "symbols": "BTC*", "rows": 2, "times": 1}
    )
    assert posted.status_code == 200, posted.text
    assert len((await _klines(client)).json()) == 10
    other = await client.get("/api/v3/aggTrades", params=query | {"symbol": "ETHBTC"})
    assert all(Decimal(row["p"]) > 0 for row in other.json())
    rows = (await client.get("/api/v3/aggTrades", params=query)).json()
    assert len(rows) == 10
    voids = [row for row in rows if (row["p"], row["q"], row["f"], row["l"]) == ("0", "0", -1, -1)]
    assert len(voids) == 2
    assert {row["a"] for row in voids} <= {row["a"] for row in rows if row not in voids}
    again = (await client.get("/api/v3/aggTrades", params=query)).json()
    assert all(Decimal(row["p"]) > 0 for row in again)
    listed = _only(exchange)
    assert (listed["state"], listed["hits"]) == ("finished", 1)


async def test_void_rows_of_other_endpoints_are_refused(site: Site) -> None:
    exchange, _ = site
    with pytest.raises(PlanError, match=r"endpoints is \['klines'\]; only 'aggTrades'"):
        exchange.faults.add({"kind": "rest_void", "endpoints": "klines"})
    exchange.faults.add({"kind": "rest_void", "endpoints": ["agg*", "klines"]})


async def test_lag_omits_younger_trades(site: Site) -> None:
    exchange, client = site
    lag = {"kind": "rest_lag", "kline_lag_ms": 600_000, "trade_lag_ms": 600_000}
    exchange.faults.add(lag)
    last = (await _klines(client)).json()[-1][0]
    now_ms = exchange.clock.now_us() // 1_000
    assert 540_000 <= now_ms - last < 760_000
    trades = await client.get("/api/v3/aggTrades", params={"symbol": "BTCUSDT", "limit": "1"})
    assert exchange.clock.now_us() // 1_000 - trades.json()[0]["T"] >= 600_000


@pytest.mark.parametrize("kind", ["corrupt_zip", "truncated_zip", "stale_checksum"])
async def test_zips_and_checksums_can_mismatch(site: Site, kind: str) -> None:
    exchange, client = site
    good = (await client.get(f"/{DAY}")).content
    (identity,) = exchange.faults.add({"kind": kind, "files": "*ETHBTC-1h-2026-02-02.zip"})
    content = (await client.get(f"/{DAY}")).content
    checksum = (await client.get(f"/{DAY}.CHECKSUM")).text.split()[0]
    assert hashlib.sha256(content).hexdigest() != checksum
    assert (content == good) == (kind == "stale_checksum")
    exchange.faults.remove(identity)
    content = (await client.get(f"/{DAY}")).content
    checksum = (await client.get(f"/{DAY}.CHECKSUM")).text.split()[0]
    assert hashlib.sha256(content).hexdigest() == checksum
    assert _only(exchange)["hits"] >= 1


async def test_days_can_be_missing_late_or_truncated(site: Site) -> None:
    exchange, client = site
    listing = {"prefix": DAY.rpartition("/")[0] + "/"}
    for entry in (
        {"kind": "missing_day", "files": "*ETHBTC-1h-2026-02-02.zip"},
        {"kind": "late_publication", "symbols": "ETHBTC", "delay_s": 86_400},
    ):
        (identity,) = exchange.faults.add(entry)
        assert (await client.get(f"/{DAY}")).status_code == 404
        assert "1h-2026-02-02" not in (await client.get("/", params=listing)).text
        exchange.faults.remove(identity)
    (identity,) = exchange.faults.add({"kind": "missing_checksum", "symbols": "ETHBTC"})
    assert (await client.get(f"/{DAY}.CHECKSUM")).status_code == 404
    exchange.faults.remove(identity)
    exchange.faults.add({"kind": "truncated_day", "symbols": "ETHBTC", "rows": 5})
    assert len(_rows((await client.get(f"/{DAY}")).content)) == 19
    assert "1h-2026-02-02" in (await client.get("/", params=listing)).text


async def test_file_is_reissued_at_its_time_and_months_can_differ(site: Site) -> None:
    exchange, client = site
    truth = _rows((await client.get(f"/{DAY}")).content)
    exchange.faults.add({"kind": "reissued", "files": f"*{DAY[-26:]}", "at": "+90s", "rows": 2})
    first = _rows((await client.get(f"/{DAY}")).content)
    assert sum(one != other for one, other in zip(first, truth, strict=True)) == 2
    checksum = (await client.get(f"/{DAY}.CHECKSUM")).text
    async with asyncio.timeout(30):
        while _only(exchange)["state"] == "scheduled":
            await asyncio.sleep(0.01)
    assert _rows((await client.get(f"/{DAY}")).content) == truth
    assert (await client.get(f"/{DAY}.CHECKSUM")).text != checksum
    month = _rows((await client.get(f"/{MONTH}")).content)
    exchange.faults.add({"kind": "monthly_differs", "market": "spot", "symbols": "ETHBTC"})
    differing = _rows((await client.get(f"/{MONTH}")).content)
    assert sum(one != other for one, other in zip(month, differing, strict=True)) == 3
    assert _rows((await client.get(f"/{DAY}")).content) == truth


async def test_downloads_and_listings_fail(site: Site) -> None:
    exchange, client = site
    exchange.faults.add({"kind": "cut_download", "times": 1})
    with pytest.raises(httpx.TransportError):
        await client.get(f"/{DAY}")
    exchange.faults.add({"kind": "download_error", "status": 502, "times": 1})
    assert (await client.get(f"/{DAY}")).status_code == 502
    exchange.faults.add({"kind": "listing_error", "times": 1})
    assert (await client.get("/", params={"prefix": "data/"})).status_code == 503
    assert (await client.get("/", params={"prefix": "data/"})).status_code == 200
    exchange.faults.add({"kind": "slow_download", "delay_s": 0.3})
    began = time.monotonic()
    assert (await client.get(f"/{DAY}")).status_code == 200
    assert time.monotonic() - began >= 0.25


async def test_files_and_symbols_together_are_refused(site: Site) -> None:
    exchange, _ = site
    with pytest.raises(PlanError, match="has both symbols and files"):
        exchange.faults.add({"kind": "corrupt_zip", "symbols": "BTCUSDT", "files": "*.zip"})
