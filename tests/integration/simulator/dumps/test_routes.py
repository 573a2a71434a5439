"""Faults of the dump site, with a real client."""

import hashlib
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from include.binance.files.dumps import DumpSite
from simulator.config import SimulatorConfig
from simulator.dumps.faults import (
    AbortDownload,
    AlterRows,
    DumpRule,
    MissingChecksum,
    MissingFile,
    RefuseFile,
    RefuseListing,
    SlowDownload,
)
from simulator.server import ExchangeThread

FOLDER = "data/spot/daily/klines/COSUSDT/1m/"
PATH = f"/{FOLDER}COSUSDT-1m-2025-01-03.zip"
CONFIG = SimulatorConfig(
    start=datetime(2025, 1, 2, tzinfo=UTC),
    clock_start=datetime(2025, 1, 4, 12, tzinfo=UTC),
    speed=0,
    spot_symbols=("COSUSDT",),
    um_symbols=("KEEPUSDT",),
)


def _break(exchange: ExchangeThread, effect: Any, path: str = "*2025-01-03.zip") -> None:
    exchange.dump_faults.add(DumpRule(effect=effect, path=path))


def test_file_has_its_publication_time(client: httpx.Client) -> None:
    answer = client.get(PATH)
    assert answer.headers["last-modified"] == "Sat, 04 Jan 2025 00:00:00 GMT"
    assert answer.headers["content-type"] == "application/zip"
    assert client.head(PATH).headers["content-length"] == str(len(answer.content))


def test_download_is_aborted_within_the_file(
    exchange: ExchangeThread, client: httpx.Client
) -> None:
    whole = client.get(PATH).content
    _break(exchange, AbortDownload(keep_percent=50))
    received: list[bytes] = []

    def download() -> None:
        with client.stream("GET", PATH) as answer:
            assert answer.headers["content-length"] == str(len(whole))
            received.extend(answer.iter_raw())

    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        download()
    part = b"".join(received)
    assert 0 < len(part) < len(whole)
    assert whole.startswith(part)


def test_range_requests_work_as_on_s3(client: httpx.Client) -> None:
    whole = client.get(PATH)
    tag, size = whole.headers["etag"], len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    rest = client.get(PATH, headers={"Range": "bytes=100-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, whole.content[100:])
    assert rest.headers["content-range"] == f"bytes 100-{size - 1}/{size}"
    some = client.get(PATH, headers={"Range": "bytes=5-9"})
    assert (some.status_code, some.content) == (206, whole.content[5:10])
    other = client.get(PATH, headers={"Range": "bytes=100-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, whole.content)
    assert client.get(PATH, headers={"Range": f"bytes={size}-"}).status_code == 416


def test_client_resumes_after_each_abort(exchange: ExchangeThread, tmp_path: Path) -> None:
    exchange.dump_faults.add(
        DumpRule(effect=AbortDownload(keep_percent=50), path="*2025-01-03.zip", times=3)
    )
    with (
        capture_logs() as logs,
        DumpSite(exchange.dump_url, exchange.dump_url, sleep=lambda _: None) as site,
    ):
        fetched = site.fetch(PATH.lstrip("/"), tmp_path)
    assert hashlib.sha256(fetched.file.read_bytes()).hexdigest() == fetched.checksum
    resumed = [one["from_bytes"] for one in logs if one["event"] == "download_resumed"]
    size = fetched.file.stat().st_size
    assert len(resumed) == 3
    assert resumed == sorted(set(resumed))
    assert resumed[-1] > 0.8 * size


def test_slow_download_is_complete(exchange: ExchangeThread, client: httpx.Client) -> None:
    whole = client.get(PATH).content
    _break(exchange, SlowDownload(seconds=0.4))
    begun = time.monotonic()
    assert client.get(PATH).content == whole
    assert time.monotonic() - begun >= 0.4


def test_files_and_listings_are_refused_separately(
    exchange: ExchangeThread, client: httpx.Client
) -> None:
    _break(exchange, RefuseFile(status=503))
    assert [client.get(f"{PATH}{end}").status_code for end in ("", ".CHECKSUM")] == [503, 503]
    assert client.get("/", params={"prefix": FOLDER}).status_code == 200
    exchange.dump_faults.clear()
    _break(exchange, RefuseListing(status=500), path="data/spot/*")
    assert client.get("/", params={"prefix": FOLDER}).status_code == 500
    assert client.get("/", params={"prefix": "data/futures/"}).status_code == 200
    assert client.get(PATH).status_code == 200


def test_missing_files_return_404(exchange: ExchangeThread, client: httpx.Client) -> None:
    _break(exchange, MissingChecksum())
    assert client.get(f"{PATH}.CHECKSUM").status_code == 404
    assert client.get(PATH).status_code == 200
    _break(exchange, MissingFile())
    answer = client.get(PATH)
    assert answer.status_code == 404
    assert "<Code>NoSuchKey</Code>" in answer.text


def test_altered_file_matches_its_checksum_and_its_rows_are_listed(
    exchange: ExchangeThread, client: httpx.Client
) -> None:
    true = hashlib.sha256(client.get(PATH).content).hexdigest()
    _break(exchange, AlterRows(rows=3))
    served = hashlib.sha256(client.get(PATH).content).hexdigest()
    assert client.get(f"{PATH}.CHECKSUM").text.split()[0] == served != true
    rows = client.get("/sim/altered", params={"path": PATH}).json()
    assert len(rows) == 3
    assert rows == [asdict(row) for row in exchange.site.altered_rows(PATH.removeprefix("/"))]
