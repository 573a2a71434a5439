"""The HTTP server inside of a larger program."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from structlog.testing import CapturingLogger, capture_logs

from include.config import load_settings
from include.errors import PermanentError
from serving.http import server as module
from serving.http.server import Place, serving
from serving.serve import warn_of_open_addresses


def app() -> Starlette:
    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async def fails(_: Request) -> PlainTextResponse:
        raise ValueError("inside")

    return Starlette(routes=[Route("/", hello), Route("/fails", fails)])


async def test_server_answers_until_closed_and_frees_its_port() -> None:
    async with httpx.AsyncClient() as client:
        async with serving(app(), Place("127.0.0.1", 0)) as url:
            assert (await client.get(url)).text == "hello"
            assert (await client.get(f"{url}/none")).status_code == 404
            assert (await client.post(url)).status_code == 405
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
    port = int(url.rpartition(":")[2])
    async with serving(app(), Place("127.0.0.1", port)) as again:
        assert again == url


async def test_failed_request_affects_no_other() -> None:
    async with serving(app(), Place("127.0.0.1", 0)) as url, httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/fails")).status_code == 500
        assert (await client.get(url)).text == "hello"


async def test_unfinished_request_does_not_delay_the_shutdown() -> None:
    async with asyncio.timeout(30):
        async with serving(app(), Place("127.0.0.1", 0)) as url:
            port = int(url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            await writer.drain()
    writer.close()


async def test_default_port_is_used_unless_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with serving(app(), Place("127.0.0.1", None, usual_port=port)) as first:
        assert first == f"http://127.0.0.1:{port}"
        async with serving(app(), Place("127.0.0.1", None, usual_port=port)) as second:
            assert second != first
            async with httpx.AsyncClient() as client:
                assert (await client.get(second)).text == "hello"


async def test_server_listens_on_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with serving(app(), Place("::1", 0)) as url:
        assert url.startswith("http://[::1]:")
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).text == "hello"


async def test_foreign_host_is_refused_with_its_setting() -> None:
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(PermanentError, match=f"STREAMER_HTTP_HOST={host}"):
            async with serving(app(), Place(host, 0)):
                pass


async def test_unexpected_stop_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    made: list[module._Server] = []

    class Server(module._Server):
        def __init__(self, config: module.uvicorn.Config) -> None:
            super().__init__(config)
            made.append(self)

    monkeypatch.setattr(module, "_Server", Server)
    async with serving(app(), Place("127.0.0.1", 0)):
        made[0].should_exit = True
        async with asyncio.timeout(30):
            while [call.args[0] for call in log.calls][-1] != "http_server_stopped":
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("host", "is_of_this_machine"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("candles.example", False),
    ],
)
def test_open_address_without_login_is_logged(host: str, is_of_this_machine: bool) -> None:
    with capture_logs() as logged:
        warn_of_open_addresses(load_settings(api_host=host, auth_required=True))
        warn_of_open_addresses(load_settings(api_host=host, api=False))
    assert not logged
    with capture_logs() as logged:
        warn_of_open_addresses(load_settings(api_host=host))
    told = [(one["event"], one["setting"], one["host"]) for one in logged]
    assert told == ([] if is_of_this_machine else [("served_without_login", "API_HOST", host)])
