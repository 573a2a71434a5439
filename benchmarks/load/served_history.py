"""Serve a year of klines as the exchange does: monthly dumps with checksums, and REST pages.

``python -m benchmarks.load.served_history FOLDER`` serves both without limits and prints its URL.
It generates the rows of REST pages on the fly, so that the client is the bottleneck.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
import zipfile
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

YEAR = 2024
MINUTE_MS = 60_000
SYMBOL = "BENCHUSDT"
PUBLISHED = datetime(YEAR + 1, 1, 2, tzinfo=UTC)


def month_bounds_ms(month: int) -> tuple[int, int]:
    """Return the first millisecond of a month and of the next month."""
    start = datetime(YEAR, month, 1, tzinfo=UTC)
    end = datetime(YEAR + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()) * 1_000, int(end.timestamp()) * 1_000


def line(open_ms: int) -> str:
    """Return a row of the dump format: eight decimals, values that differ from minute to minute."""
    n = open_ms // MINUTE_MS
    base = 60_000 + n * 7 % 9_973
    close = base + n * 13 % 29
    volume = n * 31 % 90_017 + 2
    taker = volume // 2
    trades = n % 3_000 + 1
    return (
        f"{open_ms},{base}.{n % 97:02d}000000,{close + 40}.99000000,{base - 31}.01000000,"
        f"{close}.{n % 89:02d}000000,{volume}.{n % 99_991:05d}000,{open_ms + 59_999},"
        f"{volume * base}.{n % 99_989:05d}123,{trades},{taker}.{n % 99_961:05d}000,"
        f"{taker * base}.{n % 99_929:05d}456,0"
    )


def dump_path(month: int) -> str:
    """Return the path of a month on the dump site."""
    return f"data/spot/monthly/klines/{SYMBOL}/1m/{SYMBOL}-1m-{YEAR}-{month:02d}.zip"


def write_year(folder: Path) -> None:
    """Write the twelve monthly files, each with its checksum."""
    for month in range(1, 13):
        start_ms, end_ms = month_bounds_ms(month)
        text = "\n".join(line(at) for at in range(start_ms, end_ms, MINUTE_MS)) + "\n"
        file = folder / dump_path(month)
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{file.stem}.csv", text)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        Path(f"{file}.CHECKSUM").write_text(f"{digest}  {file.name}\n")


def page(query: dict[str, list[str]]) -> bytes:
    """Return the rows of ``GET /api/v3/klines`` in µs, as the request's header selects."""
    start_ms, limit = int(query["startTime"][0]), int(query["limit"][0])
    end_ms = min(int(query["endTime"][0]), start_ms + limit * MINUTE_MS - 1)
    rows = []
    for at in range(start_ms, end_ms + 1, MINUTE_MS):
        parts = line(at).split(",")
        texts = '","'.join(parts[1:6])
        rows.append(
            f'[{at}000,"{texts}",{at + 59_999}999,"{parts[7]}",{parts[8]},"{parts[9]}",'
            f'"{parts[10]}","0"]'
        )
    return f"[{','.join(rows)}]".encode()


class _Site(asyncio.Protocol):
    """Serve one HTTP/1.1 connection with keep-alive; supports GET only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            self._transport.write(self._answer(head.split(b" ", 2)[1].decode()))

    def _answer(self, target: str) -> bytes:
        url = urlsplit(target)
        status, body = b"200 OK", b""
        if url.path == "/api/v3/time":
            body = json.dumps({"serverTime": time.time_ns() // 1_000}).encode()
        elif url.path == "/api/v3/klines":
            body = page(parse_qs(url.query))
        elif (file := self._folder / url.path.lstrip("/")).is_file():
            body = file.read_bytes()
        else:
            status = b"404 Not Found"
        modified = formatdate(PUBLISHED.timestamp(), usegmt=True).encode()
        return (
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\nLast-Modified: %b\r\n"
            b"x-mbx-used-weight-1m: 1\r\n\r\n" % (status, len(body), modified)
        ) + body


async def _serve(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Site(folder), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
