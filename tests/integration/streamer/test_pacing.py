"""The exchange's rolling second: five messages and no more, or the address is banned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from include.binance.streams.messages import ControlAnswer
from include.binance.streams.session import MAX_STREAMS
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from simulator.streams.client_limits import MessageRate
from streamer.exchange.connection import StreamConnection


async def test_full_connection_resubscribes_within_the_rate_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 0
    exceeds = MessageRate.exceeds

    def note(rate: MessageRate, limit: int, now_s: float) -> bool:
        nonlocal most
        is_exceeded = exceeds(rate, limit, now_s)
        most = max(most, len(rate._arrivals))
        return is_exceeded

    monkeypatch.setattr(MessageRate, "exceeds", note)
    streams = [f"x{number}@trade" for number in range(MAX_STREAMS)]
    opened: list[str] = []
    async with Exchange(SimulatorConfig()) as exchange:
        connection: StreamConnection

        def on_texts(messages: Sequence[bytes]) -> None:
            for data in messages:
                number = int(data.rpartition(b":")[2].rstrip(b"}\r\n "))
                connection.session.on_answer(ControlAnswer(number))

        connection = StreamConnection(
            f"{exchange.spot_ws_url}/stream",
            name="spot-1",
            streams=streams,
            on_texts=on_texts,
            on_open=lambda: opened.append("open"),
            on_close=lambda: opened.append("closed"),
            stale_after_s=30,
        )
        task = asyncio.create_task(connection.run())
        try:
            async with asyncio.timeout(60):
                for messages in (6, 12):
                    while not (connection.is_open and connection.session.sent >= messages):
                        connection.session.resubscribe(streams)  # again and again: queued once
                        await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=5)
        assert opened == ["open"]
        assert 2 <= most <= 3  # of five; the rest is left for pongs
