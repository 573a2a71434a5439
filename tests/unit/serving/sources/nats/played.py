"""A connection to NATS that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from nats.aio.client import Client
from nats.aio.msg import Msg

from serving.sources.nats.connection import NatsConnection, Session


@dataclass
class PlayedSubscription:
    unsubscribed: bool = False

    async def unsubscribe(self) -> None:
        self.unsubscribed = True


@dataclass
class PlayedClient:
    """Takes what is published, and hands on what a test says."""

    said: list[tuple[str, bytes]] = field(default_factory=list)
    hear: dict[str, Callable[[Msg], Awaitable[None]]] = field(default_factory=dict)

    async def subscribe(
        self, subject: str, *, cb: Callable[[Msg], Awaitable[None]], **_: Any
    ) -> PlayedSubscription:
        self.hear[subject] = cb
        return PlayedSubscription()

    async def publish(self, subject: str, payload: bytes) -> None:
        self.said.append((subject, payload))

    async def flush(self, **_: Any) -> None:
        await asyncio.sleep(0)

    async def deliver(self, subject: str, payload: bytes) -> None:
        """A message has come for who subscribed to this."""
        await self.hear[subject](Msg(cast(Client, self), subject=subject, data=payload))


class PlayedConnection(NatsConnection):
    """One connection after another, as a test says."""

    def __init__(self) -> None:
        super().__init__("nats://127.0.0.1:1", name="a test")
        self.client = PlayedClient()
        self.cut = asyncio.Event()

    async def run(self, session: Session) -> None:
        while True:
            self.cut.clear()
            self.is_connected = True
            running = asyncio.create_task(session(cast(Client, self.client)))
            cutting = asyncio.create_task(self.cut.wait())
            try:
                await asyncio.wait([running, cutting], return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    return running.result()
            finally:
                running.cancel()
                cutting.cancel()
                await asyncio.wait([running, cutting], timeout=10)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)
