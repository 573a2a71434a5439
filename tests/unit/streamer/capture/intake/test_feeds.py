"""Symbols find room on capture's connections, and connections follow the symbols."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from include.domain.instruments import Market
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.feeds import CaptureFeeds
from streamer.capture.intake.rows import DATASETS, Intake
from streamer.exchange import connection_ends


def routes(market: Market) -> dict[str, list[str]]:
    return {f"ws://127.0.0.1:1/{market.value}": ["trade", "bookTicker"]}


@pytest.fixture
def feeds() -> CaptureFeeds:
    intake = Intake(DATASETS, max_rows=1_000, on_losses=lambda _: None)

    def make(
        market: Market, url: str, kinds: Sequence[str], names: Sequence[str], own_name: str
    ) -> CaptureFeed:
        return CaptureFeed(
            url, market, kinds, names, intake, name=own_name, stale_after_s=15,
            on_missed=lambda *_: None, on_revived=lambda *_: None, now_us=lambda: 0,
        )  # fmt: skip

    return CaptureFeeds(routes, make, max_streams=6)


def names(feeds: CaptureFeeds) -> list[list[str]]:
    return [sorted(feed.names) for feed in feeds.feeds]


def test_a_stream_says_since_when_it_is_delivered(feeds: CaptureFeeds) -> None:
    feeds.add(["A"])
    (feed,) = feeds.feeds
    assert feeds.delivers_since_us(Market.SPOT, "bookTicker", "A") is None
    feed.connection.session.next_message(0.0)
    feed.on_texts([b'{"result":null,"id":1}'])
    assert feeds.delivers_since_us(Market.SPOT, "bookTicker", "A") == 0
    for market, kind, name in (
        (Market.UM, "bookTicker", "A"), (Market.SPOT, "aggTrade", "A"), (Market.SPOT, "trade", "B"),
    ):  # fmt: skip
        with pytest.raises(KeyError):
            feeds.delivers_since_us(market, kind, name)


def test_a_connection_carries_what_fits_and_each_market_has_its_own(feeds: CaptureFeeds) -> None:
    feeds.add(["A", "B", "C", "D", "A.P"])
    assert names(feeds) == [["A", "B", "C"], ["D"], ["A"]]
    assert [feed.market for feed in feeds.feeds] == [Market.SPOT, Market.SPOT, Market.UM]


def test_further_symbols_go_where_there_is_room_and_none_twice(feeds: CaptureFeeds) -> None:
    feeds.add(["A", "B"])
    feeds.add(["B", "C", "D"])
    assert names(feeds) == [["A", "B", "C"], ["D"]]
    assert len(feeds.feeds[0].connection.streams) == 6


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.002)


async def test_a_connection_without_symbols_is_given_up_while_others_go_on(
    feeds: CaptureFeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: set[CaptureFeed] = set()
    feeds.add(["A", "B", "C", "D"])

    def watched(feed: CaptureFeed) -> None:
        async def run() -> None:
            running.add(feed)
            try:
                await asyncio.Event().wait()
            finally:
                running.discard(feed)

        monkeypatch.setattr(feed.connection, "run", run)

    for feed in feeds.feeds:
        watched(feed)
    first, second = feeds.feeds
    task = asyncio.create_task(feeds.run())
    await until(lambda: running == {first, second})
    feeds.remove("D")
    await until(lambda: running == {first})
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert running == set()


async def test_a_connection_that_does_not_end_is_left_and_told(
    feeds: CaptureFeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_ends, "CANCEL_TIMEOUT_S", 0.05)
    feeds.add(["A"])
    (feed,) = feeds.feeds
    stuck, freed = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        stuck.set()
        while not freed.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await freed.wait()

    monkeypatch.setattr(feed.connection, "run", run)
    task = asyncio.create_task(feeds.run())
    await stuck.wait()
    with capture_logs() as logged:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.timeout(30):
                await task
    freed.set()
    assert [(one["event"], one["of"]) for one in logged] == [("connections_left", "raw capture")]
