"""The way to a real NATS server: who may, TLS, cuts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from nats.aio.client import Client

from include.errors import PermanentError
from serving.sources.nats import connection as module
from serving.sources.nats.connection import NatsConnection, first_ended, flushed
from tests.integration.serving.grpc.test_server import certificate
from tests.nats_server import NatsServer, nats_server

CONTAINERS_CONF = Path(__file__).parents[5] / "deploy" / "docker" / "nats" / "candelabra.conf"
SECRET = "p@ss/w0rd"
AS_ME = "me:p%40ss%2Fw0rd@"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", module.Backoff(first_s=0.02, max_s=0.1, min_s=0.01))
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 1)


@asynccontextmanager
async def connected(
    nats: NatsConnection, work: Callable[[Client], Awaitable[None]]
) -> AsyncIterator[None]:
    async def session(client: Client) -> None:
        await work(client)
        await asyncio.sleep(3_600)

    running = asyncio.create_task(nats.run(session))
    try:
        yield
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert running.done()


async def nothing(_client: Client) -> None:
    pass


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.01)


def as_me(server: NatsServer) -> str:
    return server.url.replace("//", f"//{AS_ME}")


async def test_lost_connection_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    clients: list[Client] = []

    async def work(client: Client) -> None:
        clients.append(client)

    async with nats_server() as server:
        nats = NatsConnection(server.url, name="a test")
        async with connected(nats, work):
            await until(lambda: nats.is_connected)
            server.kill()
            await until(lambda: not nats.is_connected)
            assert nats.reason
            await server.start()
            await until(lambda: nats.is_connected)
            assert (nats.disconnects, nats.reason, len(clients)) == (1, "", 2)
        assert all(one.is_closed for one in clients)
    said = capsys.readouterr().out
    assert said.count("nats_connected") == 2
    assert "nats_unreachable" in said


def test_uvloop_notices_a_disconnect_during_a_publish() -> None:
    async def talk(client: Client) -> None:
        while True:
            await client.publish("candles.1m.X", bytes(10_000))
            await flushed(client)

    async def cut_and_mended() -> None:
        async with nats_server() as server:
            nats = NatsConnection(server.url, name="a test")
            async with connected(nats, talk):
                for disconnects in range(5):
                    await until(lambda: nats.is_connected)
                    await asyncio.sleep(0.01 * disconnects)
                    server.kill()
                    await until(lambda: not nats.is_connected)
                    await server.start()
                await until(lambda: nats.is_connected)

    uvloop.run(cut_and_mended())


async def test_cancelled_flush_ends_even_if_the_client_swallows_it() -> None:
    class Losing:
        async def flush(self, timeout: float) -> None:  # noqa: ASYNC109 - as the client's
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(timeout)

    async def talk() -> None:
        while True:
            await flushed(Losing())  # type: ignore[arg-type]

    talking = asyncio.create_task(talk())
    await asyncio.sleep(0)
    talking.cancel()
    await asyncio.wait([talking], timeout=10)
    assert talking.cancelled()


async def test_nats_of_the_containers_wants_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "generated")
    async with nats_server(["--config", str(CONTAINERS_CONF)]) as server:
        stranger = NatsConnection(server.url, name="a test")
        async with connected(stranger, nothing):
            await until(lambda: bool(stranger.reason))
            assert not stranger.is_connected
        url = server.url.replace("//", "//candelabra:generated@")
        ours = NatsConnection(url, name="a test")
        async with connected(ours, nothing):
            await until(lambda: ours.is_connected)


async def test_user_and_password_are_sent_and_never_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with nats_server(["--user", "me", "--pass", SECRET]) as server:
        nats = NatsConnection(as_me(server), name="a test")
        async with connected(nats, nothing):
            await until(lambda: nats.is_connected)
        wrong = NatsConnection(server.url.replace("//", "//me:s3cret@"), name="a test")
        async with connected(wrong, nothing):
            await until(lambda: "Authorization Violation" in wrong.reason)
        assert wrong.hosts == nats.hosts == f"127.0.0.1:{server.port}"
    said = capsys.readouterr().out
    assert "nats_unreachable" in said
    for secret in (SECRET, "p%40ss", "s3cret"):
        assert secret not in said


async def test_token_is_sent() -> None:
    async with nats_server(["--auth", "s3cret"]) as server:
        nats = NatsConnection(server.url.replace("//", "//s3cret@"), name="a test")
        async with connected(nats, nothing):
            await until(lambda: nats.is_connected)


async def test_available_server_is_chosen() -> None:
    async with nats_server() as server:
        nats = NatsConnection(f"nats://127.0.0.1:1,{server.url}", name="a test")
        async with connected(nats, nothing):
            await until(lambda: nats.is_connected)
        assert nats.hosts == f"127.0.0.1:1,127.0.0.1:{server.port}"


async def test_permission_violation_ends_the_connection(tmp_path: Path) -> None:
    """Otherwise each message would be refused silently."""
    config = tmp_path / "nats.conf"
    config.write_text(
        'authorization { users = [{user: me, password: "p@ss/w0rd", '
        'permissions: {publish: "candles.>", subscribe: "candles.>"}}] }'
    )

    async def talk(client: Client) -> None:
        await client.publish("candelabra.ask", b"")
        await flushed(client)

    async with nats_server(["-c", str(config)]) as server:
        nats = NatsConnection(as_me(server), name="a test")
        async with connected(nats, talk):
            await until(lambda: "permissions violation" in nats.reason.lower())
            await until(lambda: nats.disconnects >= 2)


async def test_tls_connects_only_to_trusted_servers(tmp_path: Path) -> None:
    trusted, key = certificate(tmp_path)
    options = ["--tls", "--tlscert", str(trusted), "--tlskey", str(key)]
    async with nats_server(options, scheme="tls") as server:
        nats = NatsConnection(server.url, name="a test", certificate=trusted)
        async with connected(nats, nothing):
            await until(lambda: nats.is_connected)
        stranger = NatsConnection(server.url, name="a test")
        async with connected(stranger, nothing):
            await until(lambda: "certificate" in stranger.reason.lower())
            assert not stranger.is_connected


async def test_tls_client_sends_nothing_to_a_server_without_tls() -> None:
    async with nats_server(["--user", "me", "--pass", SECRET], scheme="tls") as server:
        nats = NatsConnection(as_me(server), name="a test")
        async with connected(nats, nothing):
            await until(lambda: "does not offer TLS" in nats.reason)


async def test_bug_in_a_callback_is_not_an_error_of_nats() -> None:
    async with nats_server() as server:
        nats = NatsConnection(server.url, name="a test")

        async def session(client: Client) -> None:
            async def on_message(_message: object) -> None:
                raise KeyError("ours")

            await client.subscribe("here", cb=on_message)
            other = Client()
            await other.connect(server.url)
            await flushed(client)
            await other.publish("here", b"")
            await other.close()
            await asyncio.sleep(3_600)

        with pytest.raises(KeyError, match="ours"):
            await asyncio.wait_for(nats.run(session), 30)
        assert (nats.is_connected, nats.disconnects) == (False, 1)


async def test_finished_session_ends_the_connection() -> None:
    async with nats_server() as server:
        await asyncio.wait_for(NatsConnection(server.url, name="a test").run(nothing), 30)


async def test_first_finished_task_ends_the_others() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.append("long")

    assert await first_ended(long(), asyncio.sleep(0)) == 1
    assert ended == ["long"]


async def test_concurrent_failures_leave_no_unretrieved_error() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what))

    async def failing(error: Exception) -> None:
        raise error

    async def failing_late(error: Exception) -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            raise error

    async def at_once() -> None:
        with pytest.raises(ValueError, match="the first"):
            await first_ended(
                failing(ValueError("the first")),
                failing(KeyError("beside it")),
                failing_late(OSError("as it is cancelled")),
            )

    async def cancelled() -> None:
        begun = asyncio.Event()

        async def begin() -> None:
            begun.set()
            await failing_late(KeyError("one"))

        works = failing_late(OSError("another")), begin()
        working = asyncio.create_task(first_ended(*works))
        async with asyncio.timeout(10):
            await begun.wait()
        working.cancel()
        await asyncio.wait([working], timeout=10)
        assert working.cancelled()

    await at_once()
    await cancelled()
    gc.collect()  # asyncio reports unretrieved errors when a task is collected
    assert told == []


def test_invalid_certificate_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("hello")
    with pytest.raises(PermanentError, match="should be the PEM file of the trusted CA"):
        NatsConnection("tls://nats.test", name="a test", certificate=file)
