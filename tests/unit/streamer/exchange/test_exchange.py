"""One connection on a real socket, against a server that does as each test says."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import CapturingLogger
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from include.backoff import Backoff
from streamer.exchange import connection as module
from streamer.exchange import stream_socket as line
from streamer.exchange.connection import StreamConnection

Behaviour = Callable[[ServerConnection], Awaitable[None]]


class Client:
    """A running connection and its callbacks."""

    def __init__(self, url: str, *, stale_after_s: float = 15.0) -> None:
        self.texts: list[bytes] = []
        self.life: list[str] = []
        self.connection = StreamConnection(
            url,
            name="spot-1",
            streams=["btcusdt@aggTrade", "btcusdt@kline_1m"],
            on_texts=self.texts.extend,
            on_open=lambda: self.life.append("open"),
            on_close=lambda: self.life.append("closed"),
            stale_after_s=stale_after_s,
        )

    async def until(self, done: Callable[[], bool]) -> None:
        """Run until the condition holds, then cancel, which must take effect promptly."""
        task = asyncio.create_task(self.connection.run())
        try:
            async with asyncio.timeout(30):
                while not done():
                    assert not task.done()
                    await asyncio.sleep(0.002)
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=2)
            was_heard = task.done()
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=0.1)
        assert was_heard, "it went on after it was cancelled"


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.06, max_s=0.06, min_s=0.05))
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(line, "CLOSE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(line, "TICK_S", 0.01)
    return log


@asynccontextmanager
async def server(
    behaviour: Behaviour,
    answer: Callable[[ServerConnection, Request], Response | None] | None = None,
) -> AsyncIterator[str]:
    async with serve(
        behaviour, "127.0.0.1", 0, process_request=answer, ping_interval=None, close_timeout=0.1
    ) as serving:
        yield f"ws://127.0.0.1:{serving.sockets[0].getsockname()[1]}"


def reasons(log: CapturingLogger) -> list[str]:
    return [c.kwargs["reason"] for c in log.calls if c.args[0] == "stream_disconnected"]


async def answering(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(json.dumps({"result": None, "id": json.loads(message)["id"]}))


async def test_connection_subscribes_and_delivers_complete_messages() -> None:
    asked: list[dict[str, object]] = []

    async def behaviour(socket: ServerConnection) -> None:
        asked.append(json.loads(await socket.recv()))
        await socket.send('{"n":1}')
        await socket.send(['{"n"', ":", "2}"])  # in three fragments
        await socket.ping()
        await socket.send('{"n":3}')
        await socket.wait_closed()

    async with server(behaviour) as url:
        client = Client(url)
        await client.until(lambda: len(client.texts) == 3)
    assert client.texts == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    streams = ["btcusdt@aggTrade", "btcusdt@kline_1m"]
    assert asked == [{"method": "SUBSCRIBE", "params": streams, "id": 1}]
    assert client.life == ["open"]


async def test_pings_of_the_exchange_are_answered() -> None:
    answered = asyncio.Event()

    async def behaviour(socket: ServerConnection) -> None:
        await asyncio.wait_for(await socket.ping(b"are you there"), 5)
        answered.set()
        await socket.wait_closed()

    async with server(behaviour) as url:
        await Client(url).until(answered.is_set)


async def test_closed_connection_is_replaced_and_subscribed_again(log: CapturingLogger) -> None:
    asked: list[int] = []

    async def behaviour(socket: ServerConnection) -> None:
        asked.append(json.loads(await socket.recv())["id"])
        if len(asked) < 3:
            await socket.close(1001, "24 hours are over")
        await socket.wait_closed()

    async with server(behaviour) as url:
        client = Client(url)
        await client.until(lambda: len(asked) == 3)
    assert asked == [1, 1, 1]
    assert reasons(log) == ["closed by the exchange: 1001 24 hours are over"] * 2
    assert client.life == ["open", "closed", "open", "closed", "open"]
    assert client.connection.reconnects == 2


async def test_silent_connection_is_replaced(log: CapturingLogger) -> None:
    connections: list[ServerConnection] = []

    async def behaviour(socket: ServerConnection) -> None:
        connections.append(socket)
        await answering(socket)

    async with server(behaviour) as url:
        client = Client(url, stale_after_s=0.3)
        await client.until(lambda: len(connections) == 2)
    assert reasons(log) == ["no frame for 0.3 s"]
    assert [json.loads(text) for text in client.texts[:1]] == [{"result": None, "id": 1}]


async def test_silence_timeout_grows_in_a_silent_market(
    log: CapturingLogger,
) -> None:
    connections: list[ServerConnection] = []

    async def behaviour(socket: ServerConnection) -> None:
        connections.append(socket)
        if len(connections) == 4:
            await socket.send(await socket.recv())  # what the answer to it would count as
            await socket.send("{}")
        await answering(socket)

    async with server(behaviour) as url:
        client = Client(url, stale_after_s=0.05)
        await client.until(lambda: len(connections) == 6)
    # the fourth gave something: from the start again
    assert reasons(log) == [f"no frame for {s} s" for s in (0.05, 0.1, 0.2, 0.4, 0.05)]


async def test_subscription_without_an_answer_is_a_dead_connection(
    log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.StreamSession, "is_answer_overdue", overdue_after(0.1))

    async def behaviour(socket: ServerConnection) -> None:
        while True:
            await socket.send("{}")
            await asyncio.sleep(0.02)

    async with server(behaviour) as url:
        client = Client(url)
        await client.until(lambda: client.life.count("open") == 2)
    assert reasons(log) == ["a subscription was not answered"]


def overdue_after(answer_timeout_s: float) -> Callable[[object, float], bool]:
    """As ``StreamSession.is_answer_overdue``, sooner."""
    real = module.StreamSession.is_answer_overdue

    def is_answer_overdue(session: module.StreamSession, now_s: float) -> bool:
        session._answer_timeout_s = answer_timeout_s
        return real(session, now_s)

    return is_answer_overdue


@pytest.mark.parametrize("status", [403, 451])
async def test_refused_region_is_logged_with_a_remedy(log: CapturingLogger, status: int) -> None:
    def answer(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(http.HTTPStatus(status), "restricted location\n")

    async with server(answering, answer) as url:
        client = Client(url)
        await client.until(lambda: len(reasons(log)) == 2)
    assert reasons(log)[0].startswith(f"HTTP {status}: the exchange refuses this address")
    assert "HTTPS_PROXY" in reasons(log)[0]
    assert client.life == ["closed", "closed"]


async def test_unreachable_exchange_is_retried(log: CapturingLogger) -> None:
    async with server(answering) as url:
        pass  # its port is free again
    client = Client(url)
    await client.until(lambda: client.connection.reconnects >= 2)
    assert all("Error" in reason for reason in reasons(log))
    assert "open" not in client.life


async def test_reconnect_replaces_the_current_connection(
    log: CapturingLogger,
) -> None:
    async with server(answering) as url:
        client = Client(url)

        def done() -> bool:
            if client.life == ["open"] and client.connection.is_open:
                client.connection.reconnect("the exchange announced a shutdown")
            return client.life == ["open", "closed", "open"]

        await client.until(done)
    assert reasons(log) == ["the exchange announced a shutdown"]


async def test_close_of_a_hanging_socket_times_out(
    log: CapturingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSED_TIMEOUT_S", 0.05)
    leave = asyncio.Event()

    async def run(self: line.StreamSocket) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await leave.wait()
        return "late"

    monkeypatch.setattr(line.StreamSocket, "run", run)
    client = Client("ws://127.0.0.1:1")
    await client.until(lambda: bool(client.connection._tasks))
    assert [call.kwargs["sockets"] for call in log.calls] == [1]
    leave.set()
    await asyncio.sleep(0)
