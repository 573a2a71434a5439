"""The registry is retried, and its failure does not end the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.backoff import Backoff
from include.config import Settings, load_settings
from include.domain.instruments import Market
from include.errors import PermanentError, TransientError
from streamer.symbols import registry as module
from streamer.symbols.registry import Registry

Answers = list[Exception | None]
SETTINGS = load_settings(database_url="postgresql://here/candles")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], list[Any]]:
    """Plays the synchronisation with these outcomes; returns the markets of each call."""

    def play(answers: Answers) -> list[Any]:
        asked: list[Any] = []

        def sync(*, settings: Settings, markets: Any, url: str) -> None:
            asked.append(markets)
            answer = answers.pop(0) if answers else None
            if answer is not None:
                raise answer

        monkeypatch.setattr(module, "sync_instruments", sync)
        monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.001, max_s=0.001))
        return asked

    return play


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    return log


async def test_unanswered_list_is_requested_again(
    calls: Callable[[Answers], list[Any]], log: CapturingLogger
) -> None:
    asked = calls([TransientError("away"), TransientError("away")])
    running = asyncio.create_task(Registry(SETTINGS, lambda: [Market.UM]).run())
    await until(lambda: len(asked) == 3)
    running.cancel()
    assert asked == [(Market.UM,)] * 3
    assert {call.args[0] for call in log.calls} == {"instruments_postponed"}


async def test_refused_list_ends_nothing_and_the_next_one_follows(
    calls: Callable[[Answers], list[Any]], log: CapturingLogger
) -> None:
    asked = calls([PermanentError("half of the market is missing")])
    registry = Registry(SETTINGS, lambda: [Market.SPOT])
    running = asyncio.create_task(registry.run())
    await until(lambda: bool(log.calls))
    registry.refresh()
    await until(lambda: len(asked) == 2)
    assert not running.done()
    running.cancel()
    assert log.calls[0].args[0] == "instruments_not_synchronised"
