"""Listings are read once for all who ask, and again after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from include.domain.instruments import Instrument, Market
from include.errors import TransientError
from include.store.instruments import Listing
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.http.context import (
    LISTINGS_RETRY_S,
    LISTINGS_STALE_S,
    LISTINGS_TTL_S,
    Context,
)


class History:
    """Tables that a test plays."""

    def __init__(self) -> None:
        self.reads = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.listings: list[Listing] = []
        self.now_s = 0.0

    async def call(self, _call: Callable[[Any], Any]) -> list[Any]:
        self.reads += 1
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return self.listings


def listing(symbol: str, from_us: int = 0) -> Listing:
    instrument = Instrument(
        symbol, Market.SPOT, symbol[:-4], "USDT", "TRADING", Decimal("0.01"), Decimal("0.001")
    )
    return Listing(instrument, from_us, None)


async def renewed(history: History) -> None:
    """Let the tables answer, and the requests continue."""
    history.go_on.set()
    async with asyncio.timeout(30):
        for task in asyncio.all_tasks():
            if task.get_name() == "listings":
                await task


def context_of(history: Any, clock: Callable[[], float]) -> Context:
    live_bars = LiveBars(
        lambda: pytest.fail("nobody listens"), lambda _symbol, _newest: ((), (), ())
    )
    prices = DayPriceCache(history, streamed=list, newest=live_bars.newest, now_us=lambda: 0)
    return Context(
        live_bars, history, lambda: ["BTCUSDT"], lambda: 0, live_bars.newest, dict, prices, clock
    )


async def test_concurrent_requests_share_one_read() -> None:
    history = History()
    context = context_of(history, lambda: 0.0)
    asking = [asyncio.create_task(context.symbols()) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # one that leaves does not end what the others wait for
    history.go_on.set()
    async with asyncio.timeout(30):
        for one in asking[1:]:
            assert await one == {"BTCUSDT"}
        await context.listings()
    assert history.reads == 1


async def test_error_reaches_all_waiting_and_the_next_request_reads_again() -> None:
    history = History()
    context = context_of(history, lambda: 0.0)
    history.error = TransientError("PostgreSQL is away")
    history.go_on.set()
    found = await asyncio.gather(*(context.listings() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, TransientError) for one in found)
    assert history.reads == 1
    history.error = None
    assert await context.listings() == []


async def test_old_listings_are_served_while_they_are_refreshed() -> None:
    history = History()
    history.go_on.set()
    context = context_of(history, lambda: history.now_s)
    await context.listings()
    history.go_on.clear()
    history.now_s = LISTINGS_TTL_S + 1
    history.listings = [listing("NEWUSDT")]
    for _ in range(3):
        assert await context.listings() == []  # immediately: the tables do not answer yet
        await asyncio.sleep(0)
    assert history.reads == 2
    await renewed(history)
    assert await context.symbols() == {"BTCUSDT", "NEWUSDT"}
    assert history.reads == 2


async def test_listings_survive_a_database_outage_and_are_refreshed_after_it() -> None:
    history = History()
    history.go_on.set()
    history.listings = [listing("OLDUSDT")]
    context = context_of(history, lambda: history.now_s)
    await context.listings()
    history.error = TransientError("PostgreSQL is away")
    with capture_logs() as logged:
        for ask in range(1, 4):
            history.now_s = LISTINGS_STALE_S + ask * LISTINGS_RETRY_S
            for _ in range(3):  # once every 5 s, for all requests
                assert "OLDUSDT" in await context.symbols()
                await renewed(history)
            assert history.reads == 1 + ask
        history.error = None
        history.listings = [listing("NEWUSDT")]
        history.now_s += LISTINGS_RETRY_S
        await context.listings()
        await renewed(history)
    assert await context.symbols() == {"BTCUSDT", "NEWUSDT"}
    assert [one["event"] for one in logged] == ["listings_not_read", "listings_recovered"]


async def test_stale_listings_are_read_before_the_answer() -> None:
    history = History()
    history.go_on.set()
    context = context_of(history, lambda: history.now_s)
    await context.listings()
    history.now_s = LISTINGS_STALE_S + 1
    history.listings = [listing("NEWUSDT")]
    assert await context.listings() == history.listings


async def test_newest_listing_of_a_reused_ticker_is_found() -> None:
    history = History()
    history.go_on.set()
    history.listings = [listing("AUSDT", 1), listing("AUSDT", 2), listing("BUSDT", 1)]
    context = context_of(history, lambda: history.now_s)
    newest = await context.newest_listings()
    assert {name: one.listed_from_us for name, one in newest.items()} == {"AUSDT": 2, "BUSDT": 1}
    assert await context.newest_listings() is newest  # made once for all who ask
