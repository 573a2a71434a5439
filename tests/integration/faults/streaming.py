"""A streamer beside an exchange on a fast clock, for faults that hit it while it runs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from include.domain.timeframes import MINUTE_US, minute_of
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from tests.integration.faults.staging import (
    Log,
    Rows,
    assert_equal,
    assert_unharmed,
    captured_log,
    events_of,
    minutes_of,
    read_rows,
)
from tests.integration.streamer.harness import settings_for, streaming

TIMEOUT_S = 60


@dataclass
class Stage:
    """A running streamer, its exchange, its table and its log."""

    exchange: Exchange
    streamer: Streamer
    database_url: str
    symbols: list[str]
    log: Log
    before: Rows

    def add(self, *entries: dict[str, Any]) -> list[str]:
        """Faults from now on; returns their ids."""
        return self.exchange.faults.add(list(entries))

    def hits(self) -> dict[str, int]:
        """How often each fault has hit."""
        return {one["id"]: one["hits"] for one in self.exchange.faults.listed()}

    async def until(self, holds: Callable[[], object], what: str = "") -> None:
        """Wait for a condition; it may read the table."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not await asyncio.to_thread(holds):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            seen = sorted({one["event"] for one in self.log})
            raise AssertionError(f"{what or holds} did not hold in {TIMEOUT_S} s; {seen}") from None

    async def let_pass(self, minutes: float) -> None:
        """Wait until some minutes of the exchange's time have passed."""
        goal_us = self.exchange.clock.now_us() + round(minutes * MINUTE_US)
        await self.until(lambda: self.exchange.clock.now_us() >= goal_us)

    async def assert_equals_exchange(
        self, symbols: Iterable[str] | None = None, *, minutes: int = 1
    ) -> Rows:
        """Wait until all is verified up to some minutes from now; hold it to the exchange."""
        wanted = self.symbols if symbols is None else list(symbols)
        goal_us = minute_of(self.exchange.clock.now_us()) + (minutes - 1) * MINUTE_US
        rows: Rows = {}

        def is_done() -> bool:
            nonlocal rows
            rows = read_rows(self.database_url)
            return all(_verified_to(rows, symbol, goal_us) for symbol in wanted)

        await self.until(is_done, f"all minutes of {wanted} verified")
        for symbol in wanted:
            first_us = minutes_of(rows, symbol)[0]
            assert_equal(self.exchange, rows, symbol, first_us, goal_us + MINUTE_US)
        assert_unharmed(self.before, rows)
        return rows

    def events(self, **fields: object) -> list[str]:
        """Log events about a subject."""
        return events_of(self.log, **fields)


def _verified_to(rows: Rows, symbol: str, goal_us: int) -> bool:
    minutes = minutes_of(rows, symbol)
    is_whole = (
        bool(minutes)
        and minutes[-1] >= goal_us
        and all(after - before == MINUTE_US for before, after in itertools.pairwise(minutes))
    )
    return is_whole and all(rows[symbol, one]["status"] == "verified" for one in minutes)


@asynccontextmanager
async def stage(
    database_url: str, symbols: list[str], config: SimulatorConfig, **settings: object
) -> AsyncIterator[Stage]:
    """A streamer that has stored the first minutes of its symbols."""
    with captured_log() as log:
        async with Exchange(config) as exchange:
            chosen = settings_for(exchange, database_url, **settings)
            async with streaming(chosen, *symbols) as streamer:
                one = Stage(exchange, streamer, database_url, symbols, log, {})
                await one.until(
                    lambda: all(minutes_of(read_rows(database_url), each) for each in symbols),
                    "a first row of each symbol",
                )
                one.before = {
                    key: row
                    for key, row in read_rows(database_url).items()
                    if row["status"] == "verified"
                }
                yield one
