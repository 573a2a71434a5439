"""The candle feeds of all symbols: their clock, and closing minutes; feeds are played here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from include.domain.instruments import Market, exchange_symbol_of
from streamer.candles.feeds import CandleFeeds


class Connection:
    def __init__(self, name: str) -> None:
        self.name = name


class Feed:
    def __init__(self, market: Market, name: str, aggregators: Mapping[str, object]) -> None:
        self.market = market
        self.connection = Connection(name)
        self.carried = dict(aggregators)
        self.due = 0
        """Calls of ``on_clock`` that find a minute to close."""
        self.now_us = 0

    def on_clock(self) -> bool:
        self.due -= 1
        return self.due >= 0

    @property
    def names(self) -> list[str]:
        return list(self.carried)

    def add(self, members: Mapping[str, object]) -> None:
        self.carried.update(members)

    def remove(self, name: str) -> None:
        del self.carried[name]


@pytest.fixture
def feeds() -> CandleFeeds:
    make_feed: Any = Feed
    return CandleFeeds(make_feed, streams_per_symbol=2, max_streams=6)


def add(feeds: CandleFeeds, *symbols: str, market: Market = Market.SPOT) -> None:
    aggregators: Any = {exchange_symbol_of(symbol): object() for symbol in symbols}
    feeds.add(market, aggregators)


def test_each_connection_carries_as_many_symbols_as_its_streams_allow(feeds: CandleFeeds) -> None:
    add(feeds, *"ABCD")
    assert {one.connection.name: one.names for one in feeds.feeds} == {
        "spot-1": ["A", "B", "C"],
        "spot-2": ["D"],
    }
    assert feeds.feed_of("D") is feeds.feeds[1]
    feeds.remove("D")
    with pytest.raises(KeyError):
        feeds.feed_of("D")
    assert feeds.last_trade_us("D") == 0


def test_clock_continues_after_the_last_feed_is_closed(feeds: CandleFeeds) -> None:
    assert feeds.now_us == 0
    add(feeds, "A")
    add(feeds, "A.P", market=Market.UM)
    played: Any = list(feeds.feeds)
    for feed, now_us in zip(played, (7, 9), strict=True):
        feed.now_us = now_us
    assert feeds.now_us == 9
    feeds.remove("A.P")
    assert feeds.now_us == 7  # of the remaining feeds
    feeds.remove("A")
    played[0].now_us = 8
    assert feeds.now_us == 8


async def test_other_tasks_run_while_minutes_are_closed(feeds: CandleFeeds) -> None:
    add(feeds, *(f"X{number}" for number in range(4)))
    assert not await feeds.close_minutes()
    played: Any = feeds.feeds
    for feed in played:
        feed.due = 2
    remaining: list[int] = []
    closing = asyncio.ensure_future(feeds.close_minutes())
    while not closing.done():
        await asyncio.sleep(0)
        remaining.append(sum(max(0, feed.due) for feed in played))
    assert remaining[:4] == [3, 2, 1, 0]
    assert await closing
