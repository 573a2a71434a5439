"""A download resumes after an interruption, unless the file has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from include.binance.files.downloads import Downloaded, download

BODY = bytes(range(256)) * 40
SUM = hashlib.sha256(BODY).hexdigest()
SENT_BYTES = 1_000


class InterruptedBody(httpx.SyncByteStream):
    """A body whose connection breaks."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.RemoteProtocolError("peer closed the connection")


class Server:
    """Serves a body, interrupting the first answers; records the requests."""

    def __init__(self, *, cuts: int = 0, tag: str = '"a"', **options: bool) -> None:
        self.body, self.tag, self.cuts = BODY, tag, cuts
        self.options = options
        self.asked: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        wanted, if_range = request.headers.get("range", ""), request.headers.get("if-range", "")
        self.asked.append((wanted, if_range))
        status, body = 200, self.body
        headers = {"ETag": self.tag} if self.tag else {}
        if not self.options.get("undated"):
            headers["Last-Modified"] = "Thu, 19 Nov 2026 04:30:05 GMT"
        if wanted and if_range == self.tag and not self.options.get("no_ranges"):
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                return httpx.Response(416)
            told = begin - 1 if self.options.get("lies") else begin
            headers["Content-Range"] = f"bytes {told}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[begin:]
        if self.cuts:
            self.cuts -= 1
            return httpx.Response(
                status, headers=headers, stream=InterruptedBody(body[:SENT_BYTES])
            )
        return httpx.Response(status, headers=headers, content=body)


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[[Server], Downloaded]:
    def once(server: Server) -> Downloaded:
        with httpx.Client(transport=httpx.MockTransport(server)) as http:
            return download(
                http, "https://x.test/f.zip", tmp_path / "f.zip",
                check_status=lambda answer: answer.raise_for_status() and None,
            )  # fmt: skip

    return once


def interrupted_then_complete(fetch: Callable[[Server], Downloaded], server: Server) -> Downloaded:
    for _ in range(server.cuts):
        with pytest.raises(httpx.RemoteProtocolError):
            fetch(server)
    return fetch(server)


def test_interrupted_download_requests_only_the_rest(
    fetch: Callable[[Server], Downloaded], tmp_path: Path
) -> None:
    server = Server(cuts=2)
    done = interrupted_then_complete(fetch, server)
    assert (done.checksum, done.resumed_at) == (SUM, 2 * SENT_BYTES)
    assert server.asked == [
        ("", ""),
        (f"bytes={SENT_BYTES}-", '"a"'),
        (f"bytes={2 * SENT_BYTES}-", '"a"'),
    ]
    assert (tmp_path / "f.zip").read_bytes() == BODY
    assert [one.name for one in tmp_path.iterdir()] == ["f.zip"]


def test_changed_file_is_fetched_from_the_start(
    fetch: Callable[[Server], Downloaded],
) -> None:
    server = Server(cuts=1)
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(server)
    server.body, server.tag = b"another", '"b"'
    done = fetch(server)
    assert (done.checksum, done.resumed_at) == (hashlib.sha256(b"another").hexdigest(), 0)


@pytest.mark.parametrize(
    "server",
    [
        Server(cuts=1, no_ranges=True),
        Server(cuts=1, lies=True),
        Server(cuts=1, tag="", undated=True),
    ],
    ids=["no ranges", "another range", "nameless"],
)
def test_file_is_fetched_from_the_start_without_range_support(
    fetch: Callable[[Server], Downloaded], server: Server
) -> None:
    done = interrupted_then_complete(fetch, server)
    assert (done.checksum, done.resumed_at) == (SUM, 0)


def test_partial_file_longer_than_the_file_is_discarded(
    fetch: Callable[[Server], Downloaded], tmp_path: Path
) -> None:
    (tmp_path / "f.zip.part").write_bytes(BODY + b"more")
    (tmp_path / "f.zip.part.state").write_text('"a"')
    assert fetch(Server()).checksum == SUM


def test_weak_tag_does_not_identify_bytes_but_the_date_does(
    fetch: Callable[[Server], Downloaded], tmp_path: Path
) -> None:
    server = Server(cuts=1, tag='W/"a"')
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(server)
    assert (tmp_path / "f.zip.part.state").read_text() == "Thu, 19 Nov 2026 04:30:05 GMT"
