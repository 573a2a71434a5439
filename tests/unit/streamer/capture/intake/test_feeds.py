"""Capture's feeds on the connection pool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pytest

from include.domain.instruments import Market
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.feeds import CaptureFeeds
from streamer.capture.intake.rows import DATASETS, Intake


def routes(market: Market) -> dict[str, list[str]]:
    return {f"ws://127.0.0.1:1/{market.value}": ["trade", "bookTicker"]}


def made_feeds(routes: Callable[[Market], dict[str, list[str]]]) -> CaptureFeeds:
    intake = Intake(DATASETS, max_rows=1_000, on_losses=lambda _: None)

    def make(
        market: Market, url: str, kinds: Sequence[str], names: Collection[str], own_name: str
    ) -> CaptureFeed:
        return CaptureFeed(
            url, market, kinds, names, intake, name=own_name, stale_after_s=15,
            on_missed=lambda *_: None, on_revived=lambda *_: None, now_us=lambda: 0,
        )  # fmt: skip

    return CaptureFeeds(routes, make, max_streams=6)


@pytest.fixture
def feeds() -> CaptureFeeds:
    return made_feeds(routes)


def names(feeds: CaptureFeeds) -> list[list[str]]:
    return [sorted(feed.names) for feed in feeds.feeds]


def test_stream_is_delivered_from_its_acknowledgement_on(feeds: CaptureFeeds) -> None:
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


def test_each_market_has_its_own_connections(feeds: CaptureFeeds) -> None:
    feeds.add(["A", "B", "C", "D", "A.P"])
    assert names(feeds) == [["A", "B", "C"], ["D"], ["A"]]
    assert [feed.market for feed in feeds.feeds] == [Market.SPOT, Market.SPOT, Market.UM]


def test_new_symbols_fill_connections_with_room_and_are_added_once(feeds: CaptureFeeds) -> None:
    feeds.add(["A", "B"])
    feeds.add(["B", "C", "D"])
    assert names(feeds) == [["A", "B", "C"], ["D"]]
    assert len(feeds.feeds[0].connection.streams) == 6


def test_connection_without_symbols_is_closed(feeds: CaptureFeeds) -> None:
    feeds.add(["A", "B", "C", "D"])
    feeds.remove("D")
    feeds.remove("D")  # a symbol that is not captured is ignored
    assert names(feeds) == [["A", "B", "C"]]


def test_heartbeat_of_liquidations_takes_the_place_of_a_stream() -> None:
    feeds = made_feeds(lambda _: {"ws://127.0.0.1:1": ["forceOrder"]})
    feeds.add([f"S{number}.P" for number in range(6)])
    assert [len(feed.connection.streams) for feed in feeds.feeds] == [6, 2]
