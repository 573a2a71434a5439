"""Frames made beforehand, over a real server and a real client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.client import connect

from serving.http.encoded_frames import EXTENSION, Frames
from serving.http.server import Place, serving
from serving.websocket.messages import TEXT, framed


class Pushing:
    """An application that hands out where frames go, and stays until its reader leaves."""

    def __init__(self) -> None:
        self.to: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.to.set_result(cast(Frames, scope["extensions"][EXTENSION]))
        while (await receive())["type"] != "websocket.disconnect":
            pass


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def test_encoded_frames_arrive_unchanged_and_none_are_accepted_after_a_close() -> None:
    app = Pushing()
    async with serving(app, Place("127.0.0.1", 0, has_websockets=True)) as url:
        async with connect(url.replace("http", "ws")) as reader:
            to = await app.to
            assert to.is_writable()
            to.write_frames(framed(TEXT, b"one") + framed(TEXT, b"two"))
            assert [await reader.recv(), await reader.recv()] == ["one", "two"]
        await until(lambda: not to.is_writable())


async def test_callback_reports_when_a_blocked_reader_resumes() -> None:
    app = Pushing()
    async with (
        serving(app, Place("127.0.0.1", 0, has_websockets=True)) as url,
        connect(url.replace("http", "ws"), max_queue=1) as reader,
    ):
        to = await app.to
        called = asyncio.Event()
        frame, pushed = framed(TEXT, bytes(100_000)), 0
        async with asyncio.timeout(10):
            while to.is_writable():  # until what lies between is full
                to.write_frames(frame)
                pushed += 1
                await asyncio.sleep(0)
        to.call_when_writable(called.set)
        assert not called.is_set()
        async with asyncio.timeout(10):
            for _ in range(pushed):
                await reader.recv()
            await called.wait()
        assert to.is_writable()
