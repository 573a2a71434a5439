"""A stream that was acknowledged and stays silent is found by the trades of its symbol."""

from __future__ import annotations

from itertools import pairwise

import pytest

from include.domain.instruments import Market
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.rows import DATASETS, Intake
from streamer.capture.intake.watch import DEAD_AFTER_S, POLL_INTERVAL_S, StreamWatch

AT_US = 1_763_716_800_000_000
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1763716800000000,"s":"BTCUSDT","t":%d,'
    b'"p":"2.5","q":"0.1","T":1763716800000000,"m":true,"M":true}}'
)
BOOK_TICKER = b'{"stream":"%s@bookTicker","data":{"u":%d,"s":"%s","b":"1","B":"2","a":"3","A":"4"}}'


class Session:
    """Streams that are all acknowledged."""

    is_subscribed = True

    def __init__(self) -> None:
        self.asked_again: list[list[str]] = []

    def resubscribe(self, names: list[str]) -> None:
        self.asked_again.append(list(names))


class Connection:
    """The part of a feed that the watch uses."""

    name = "spot-capture-1"
    is_open = True
    is_rotating = False

    def __init__(self) -> None:
        self.session = Session()
        self.rotations: list[str] = []

    def rotate(self, reason: str) -> None:
        self.rotations.append(reason)


class Bench:
    """A feed of two symbols, their candle streams' last trades, and a clock."""

    def __init__(self) -> None:
        self.now_us = AT_US
        self.now_s = 0.0
        self.number = 0
        self.traded_us = {"BTCUSDT": 0, "ETHUSDT": 0}
        self.lost: list[tuple[str, str, int, int]] = []
        intake = Intake(DATASETS, max_rows=100_000, on_losses=lambda _: None)
        self.feed = CaptureFeed(
            "ws://127.0.0.1:1",
            Market.SPOT,
            ["trade", "bookTicker"],
            ["BTCUSDT", "ETHUSDT"],
            intake,
            name="spot-capture-1",
            stale_after_s=15,
            on_missed=lambda *_: None,
            on_revived=lambda *told: self.watch.revived(*told),
            now_us=lambda: self.now_us,
        )
        self.connection = Connection()
        self.feed.connection = self.connection  # type: ignore[assignment]
        self.watch = StreamWatch(
            [self.feed],
            self.traded_us.__getitem__,
            lambda _feed, kind, name, from_us, to_us: self.lost.append(
                (kind, name, (from_us - AT_US) // 1_000_000, (to_us - AT_US) // 1_000_000)
            ),
            now_us=lambda: self.now_us,
        )

    def publish_book_ticker(self, name: str) -> None:
        self.number += 1
        self.feed.on_text(BOOK_TICKER % (name.lower().encode(), self.number, name.encode()))

    def trade(self) -> None:
        self.number += 1
        self.feed.on_text(TRADE % self.number)
        self.traded_us["BTCUSDT"] += 1

    def poll(self) -> None:
        self.now_s += POLL_INTERVAL_S
        self.now_us += int(POLL_INTERVAL_S * 1_000_000)
        self.watch.poll(self.now_s)

    def pass_by(self, looks: int, *, is_quoted: bool = False, trades: bool = True) -> None:
        """The neighbour delivers, the symbol trades, book tickers come as configured."""
        for _ in range(looks):
            self.publish_book_ticker("ETHUSDT")
            if trades:
                self.trade()
            if is_quoted:
                self.publish_book_ticker("BTCUSDT")
            self.poll()


@pytest.fixture
def bench() -> Bench:
    return Bench()


POLLS_UNTIL_DEAD = int(DEAD_AFTER_S / POLL_INTERVAL_S) + 1


def test_dead_capture_stream_is_subscribed_again_and_its_loss_recorded(bench: Bench) -> None:
    bench.pass_by(2, is_quoted=True)
    bench.pass_by(POLLS_UNTIL_DEAD)
    assert bench.connection.session.asked_again == [["btcusdt@bookTicker"]]
    # From the poll before the last message up to this one.
    assert bench.lost == [("bookTicker", "BTCUSDT", 5, 45)]
    bench.now_us += 2_000_000
    bench.publish_book_ticker(
        "BTCUSDT"
    )  # reported by its first message: that may be stored before any poll
    assert bench.lost[1:] == [("bookTicker", "BTCUSDT", 45, 47)]
    bench.pass_by(2, is_quoted=True)
    assert bench.lost[2:] == []
    assert bench.watch.dead == 1
    assert bench.connection.rotations == []


def test_delivering_streams_are_not_resubscribed(bench: Bench) -> None:
    bench.pass_by(10 * POLLS_UNTIL_DEAD, is_quoted=True)
    assert bench.lost == []
    assert bench.connection.session.asked_again == []


def test_quiet_market_is_not_resubscribed(bench: Bench) -> None:
    bench.pass_by(2, is_quoted=True)
    bench.pass_by(1)  # one trade without a book ticker
    bench.pass_by(10 * POLLS_UNTIL_DEAD, trades=False)
    assert bench.lost == []


def test_stream_that_never_delivered_is_dead_too(bench: Bench) -> None:
    bench.pass_by(POLLS_UNTIL_DEAD + 1)
    assert bench.connection.session.asked_again == [["btcusdt@bookTicker"]]


def test_connection_of_a_dead_stream_is_rotated_ever_less_often(
    bench: Bench,
) -> None:
    bench.pass_by(30 * POLLS_UNTIL_DEAD)
    assert bench.connection.rotations[0] == "btcusdt@bookTicker stays dead"
    assert len(bench.connection.rotations) <= 3
    assert len(bench.lost) <= 6
    told = [(since, until) for *_, since, until in bench.lost]
    assert all(one[1] == other[0] for one, other in pairwise(told))
    assert bench.watch.dead == 1


def test_disconnected_stream_is_not_a_dead_one(bench: Bench) -> None:
    bench.pass_by(2, is_quoted=True)
    bench.connection.is_open = False
    for _ in range(5 * POLLS_UNTIL_DEAD):
        bench.traded_us["BTCUSDT"] += 1
        bench.poll()
    assert bench.lost == []
    bench.connection.is_open = True
    bench.pass_by(2, is_quoted=True)
    assert bench.lost == []
