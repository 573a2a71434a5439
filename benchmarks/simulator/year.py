"""A year of 1m klines from the simulator: by REST in pages of 1,000 rows, and as monthly dumps.

The simulator runs in a process of its own and has no rows yet at the first request of a symbol
(cold). One client reads with one connection, or several symbols concurrently. Each year must have
every minute, and REST and dumps the same rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx

YEAR = 2024
FIRST_MS = int(datetime(YEAR, 1, 1, tzinfo=UTC).timestamp()) * 1_000
MINUTES = 366 * 1_440
MINUTE_MS = 60_000
PAGE_ROWS = 1_000
BUSY, QUIET = "BTCUSDT", "COSUSDT"
SEVERAL = ("ETHBTC", "SHIBUSDT", "PEPEUSDT", "BIFIUSDT")


@contextmanager
def simulator() -> Iterator[str]:
    """Start a simulator process; yield the URL of REST and dumps."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "simulator", "--start", f"{YEAR}-01-01",
            "--clock-start", f"{YEAR + 1}-02-10", "--spot-weight-limit", "1000000000",
            "--symbols", ",".join((BUSY, QUIET, *SEVERAL)), "--um-symbols", "KEEPUSDT",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["spot_rest_url"]
    finally:
        process.terminate()
        process.wait(timeout=20)


def read_pages(client: httpx.Client, symbol: str) -> list[list[int | str]]:
    """Read the year by REST."""
    rows: list[list[int | str]] = []
    while len(rows) < MINUTES:
        start_ms = FIRST_MS + len(rows) * MINUTE_MS
        query: dict[str, str | int] = {
            "symbol": symbol, "interval": "1m", "startTime": start_ms, "limit": PAGE_ROWS,
            "endTime": FIRST_MS + MINUTES * MINUTE_MS - 1,
        }  # fmt: skip
        answer = client.get("/api/v3/klines", params=query).raise_for_status()
        page = answer.json()
        if not page or page[0][0] != start_ms:
            raise ValueError(f"{symbol}: no row at {start_ms} in {answer.url}")
        rows += page
    return rows


def read_months(client: httpx.Client, symbol: str) -> list[bytes]:
    """Download the year as zips and compare their checksums."""
    zips = []
    for month in range(1, 13):
        path = f"/data/spot/monthly/klines/{symbol}/1m/{symbol}-1m-{YEAR}-{month:02d}.zip"
        content = client.get(path).raise_for_status().content
        told = client.get(f"{path}.CHECKSUM").raise_for_status().text.split()[0]
        if hashlib.sha256(content).hexdigest() != told:
            raise ValueError(f"{path} does not fit its checksum")
        zips.append(content)
    return zips


def lines_of(zips: list[bytes]) -> list[str]:
    """Return the rows of all zips, in order."""
    lines = []
    for content in zips:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            lines += archive.read(archive.namelist()[0]).decode().splitlines()
    return lines


def run() -> None:
    """Print how long each year takes, cold and again."""
    print(f"simulated year: {MINUTES:,} rows of 1m, one client")
    with simulator() as url, httpx.Client(base_url=url, timeout=120) as client:
        for symbol in (QUIET, BUSY):
            for state in ("cold", "again"):
                begun = time.perf_counter()
                rows = read_pages(client, symbol)
                print(f"  REST   {symbol:8} {state:6} {time.perf_counter() - begun:6.1f} s")
            for state in ("cold", "again"):
                begun = time.perf_counter()
                zips = read_months(client, symbol)
                size = sum(map(len, zips)) / 1e6
                took = time.perf_counter() - begun
                print(f"  dumps  {symbol:8} {state:6} {took:6.1f} s, {size:.0f} MB")
            if lines_of(zips) != [",".join(map(str, row)) for row in rows]:
                raise ValueError(f"{symbol}: dumps and REST differ")
        begun = time.perf_counter()
        with ThreadPoolExecutor(len(SEVERAL)) as pool:
            years = list(pool.map(lambda symbol: read_pages(client, symbol), SEVERAL))
        took = time.perf_counter() - begun
        print(f"  REST   {len(years)} symbols at once {took:6.1f} s")
