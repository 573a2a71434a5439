"""Clients that send too much before a request is whole, or never end one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from serving.http import bounded_http as module
from serving.http.bounded_http import MAX_HEAD_BYTES
from serving.http.server import Place, serving

TIMEOUT_S = 30
SOON_S = 0.05
NEVER_S = 1e6
READ_BYTES = 1 << 18
"""Most that arrives in one piece."""
BEGUN = b"GET / HTTP/1.1\r\nHost: x\r\n"
REQUEST = BEGUN + b"\r\n"
CHUNKED = b"POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def app(gate: asyncio.Event | None = None) -> Starlette:
    async def hello(_: Request) -> PlainTextResponse:
        if gate is not None:
            await gate.wait()
        return PlainTextResponse("hello")

    async def size(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    return Starlette(
        routes=[
            Route("/", hello),
            Route("/size", size, methods=["POST"]),
            WebSocketRoute("/echo", echo),
        ]
    )


@asynccontextmanager
async def connected(gate: asyncio.Event | None = None) -> AsyncIterator[Streams]:
    """A connection to a server, and nothing said yet."""
    async with asyncio.timeout(TIMEOUT_S), serving(app(gate), Place("127.0.0.1", 0)) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """All that the server says; a reset is an end like others."""
    told = b""
    try:
        while data := await reader.read(1 << 16):
            told += data
    except ConnectionError:
        pass
    return told


async def answer(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"hello")


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /",  # a URL
        BEGUN + b"x: ",  # a header's value
        BEGUN + b"x",  # its name
    ],
)
async def test_endless_head_is_refused_and_the_connection_closed(
    begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", NEVER_S)
    async with connected() as (reader, writer):
        writer.write(begin + b"a" * (MAX_HEAD_BYTES + 1 - len(begin)))
        assert (await until_closed(reader)).startswith(b"HTTP/1.1 431 ")


async def test_headers_behind_a_body_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", NEVER_S)
    async with connected() as (reader, writer):
        writer.write(CHUNKED + b"x: " + b"a" * (MAX_HEAD_BYTES + 3 * READ_BYTES))
        assert await until_closed(reader) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        BEGUN + b"x: abcdef\r\n" * (READ_BYTES // 13) + b"\r\n",
    ],
)
async def test_complete_head_that_is_too_long_is_refused(head: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(head)
        # Where it comes in one piece; otherwise what is left unread may take the answer with it.
        assert (await until_closed(reader))[:13] in (b"", b"HTTP/1.1 431 ")


async def test_large_headers_uploads_and_websockets_are_served() -> None:
    place = Place("127.0.0.1", 0, has_websockets=True)
    async with asyncio.timeout(TIMEOUT_S), serving(app(), place) as url:
        async with httpx.AsyncClient() as client:
            long = {"x": "a" * (MAX_HEAD_BYTES - 1_000)}
            for _ in range(3):  # of one connection
                assert (await client.get(url, headers=long)).text == "hello"
                body = b"a" * (3 << 20)
                assert (await client.post(f"{url}/size", content=body)).text == str(3 << 20)
        async with connect(f"{url.replace('http', 'ws')}/echo") as socket:
            for _ in range(3):
                await socket.send("a" * (100 << 10))
                assert len(await socket.recv()) == 100 << 10


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET",
        BEGUN,
        b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
async def test_unfinished_request_times_out(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", SOON_S)
    async with connected() as (reader, writer):
        writer.write(sent)
        assert await until_closed(reader) == b""


@pytest.mark.parametrize("further", [b"\r\n", b"GET", BEGUN])
async def test_timeout_applies_to_each_request(
    further: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected() as (reader, writer):
        writer.write(REQUEST)
        await answer(reader)
        monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", SOON_S)
        writer.write(further)
        assert await until_closed(reader) == b""


async def test_slow_answer_is_sent_despite_a_pipelined_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = asyncio.Event()
    ends: list[object] = []
    end_waiting = module.BoundedHttpProtocol._end_waiting

    def noted(self: module.BoundedHttpProtocol) -> None:
        ends.append(self)
        end_waiting(self)
        if len(ends) == 3:
            gate.set()

    monkeypatch.setattr(module.BoundedHttpProtocol, "_end_waiting", noted)
    async with connected(gate) as (reader, writer):
        monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", SOON_S)
        writer.write(REQUEST + BEGUN)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        assert await until_closed(reader) == b""  # the second one never ended


async def test_websocket_is_not_an_unfinished_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    armed: list[asyncio.TimerHandle] = []
    await_request = module.BoundedHttpProtocol._await_request

    def noted(self: module.BoundedHttpProtocol) -> None:
        await_request(self)
        assert self._deadline is not None
        armed.append(self._deadline)

    monkeypatch.setattr(module.BoundedHttpProtocol, "_await_request", noted)
    place = Place("127.0.0.1", 0, has_websockets=True)
    async with (
        asyncio.timeout(TIMEOUT_S),
        serving(app(), place) as url,
        connect(f"{url.replace('http', 'ws')}/echo") as socket,
    ):
        await socket.send("here")
        assert await socket.recv() == "here"
        assert armed
        assert all(one.cancelled() for one in armed)
