"""What a cut costs is dated by the clock that the rows bear."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.config import load_settings
from include.domain.timeframes import SECOND_US
from streamer.capture.capture import CUT, Capture

TRADED_US = 1_763_716_800_000_000
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1763716800000,"s":"BTCUSDT","t":5,'
    b'"p":"2.5","q":"0.1","T":1763716800000,"m":true,"X":"MARKET"}}'
)
QUOTE = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":7,"s":"BTCUSDT","b":"1","B":"2",'
    b'"a":"3","A":"4","T":1763716800000,"E":1763716800000}}'
)


@pytest.fixture
def moments() -> list[int]:
    """The wall clock: frames come two seconds late."""
    return [TRADED_US + 2 * SECOND_US]


@pytest.fixture
def capture(tmp_path: Path, moments: list[int]) -> Iterator[Capture]:
    settings = load_settings(
        database_url="postgresql://nobody@127.0.0.1:1/none", candelabra_home=tmp_path
    )
    one = Capture(
        settings, ("trades", "book_tickers"), trade_stream="aggTrade", traded_us=lambda _: 0,
        now_us=lambda: moments[-1],
    )  # fmt: skip
    yield one
    asyncio.run(one.stop(1.0))


def test_trades_on_their_way_at_a_cut_are_older_than_it_quotes_are_not(
    capture: Capture, moments: list[int]
) -> None:
    capture.add(["BTCUSDT.P"])
    (feed,) = capture._feeds.feeds
    session = feed.connection.session
    session.next_message(0.0)
    feed.on_texts([b'{"result":null,"id":1}', TRADE, QUOTE])
    feed._closed()
    moments.append(moments[-1] + SECOND_US)
    feed.on_texts([QUOTE.replace(b'"u":7', b'"u":8')])
    assert sorted(
        (gap.dataset, gap.from_us - TRADED_US, gap.to_us - TRADED_US)
        for gap in capture.losses.take()
        if gap.cause == CUT
    ) == [("book_tickers", 2 * SECOND_US, 3 * SECOND_US), ("trades", 0, 3 * SECOND_US)]
