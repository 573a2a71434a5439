"""A capture connection's messages: book tickers and trades are used, others are counted."""

from __future__ import annotations

import pytest

from include.binance.streams.book_tickers import decode_captured
from include.domain.instruments import Market
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.rows import DATASETS, Intake

AT = 1_763_716_800_000_000
BOOK_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"u":7,"s":"BTCUSDT","b":"1","B":"2","a":"3","A":"4"}}'
)
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1763716800000000,"s":"BTCUSDT","t":5,'
    b'"p":"2.5","q":"0.1","T":1763716800000000,"m":true,"M":true}}'
)


LIQUIDATION = (
    b'{"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":1763716800126,"o":{"s":"BTCUSDT",'
    b'"S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9900.5","X":"FILLED",'
    b'"l":"0.010","z":"0.014","T":1763716800121}}}'
)


class Clock:
    now_us = 100


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake() -> Intake:
    return Intake(DATASETS, max_rows=1_000, on_losses=lambda _: None)


def feed_of(
    intake: Intake,
    clock: Clock,
    missed: list[tuple[int, int]],
    market: Market = Market.SPOT,
    kinds: tuple[str, ...] = ("trade", "bookTicker"),
) -> CaptureFeed:
    return CaptureFeed(
        "ws://127.0.0.1:1",
        market,
        kinds,
        ["BTCUSDT"],
        intake,
        name="spot-capture-1",
        stale_after_s=15,
        on_missed=lambda _feed, from_us, to_us: missed.append((from_us, to_us)),
        on_revived=lambda *_: None,
        now_us=lambda: clock.now_us,
    )


def test_trades_and_book_tickers_become_rows(intake: Intake, clock: Clock) -> None:
    feed = feed_of(intake, clock, [])
    feed.on_text(BOOK_TICKER)
    feed.on_text(TRADE)
    assert [
        (lane.table.name, int(line.split("\t")[2]))
        for lane in intake.lanes.lanes
        for line in lane.rows
    ] == [
        ("trades", 5),
        ("book_tickers", 7),
    ]


@pytest.mark.parametrize(
    "bad",
    [b"{", BOOK_TICKER.replace(b'"u":7,', b""), BOOK_TICKER.replace(b'"1"', b'"NaN"'), b"\xff"],
)
def test_unusable_frames_are_counted(intake: Intake, clock: Clock, bad: bytes) -> None:
    feed = feed_of(intake, clock, [])
    feed.on_text(bad)
    assert feed.bad_frames == 1
    assert intake.lanes.waiting == 0


def test_frames_of_unrequested_symbols_are_ignored(intake: Intake, clock: Clock) -> None:
    feed = feed_of(intake, clock, [])
    feed.on_text(BOOK_TICKER.replace(b"BTCUSDT", b"ETHUSDT"))
    feed.on_text(TRADE.replace(b"BTCUSDT", b"ETHUSDT"))
    assert intake.lanes.waiting == 0


def test_disconnect_is_reported_once_all_streams_deliver(intake: Intake, clock: Clock) -> None:
    missed: list[tuple[int, int]] = []
    feed = feed_of(intake, clock, missed)
    session = feed.connection.session
    session.next_message(0.0)
    feed.on_text(b'{"result":null,"id":1}')
    feed.on_text(BOOK_TICKER)
    assert missed == []

    feed._closed()
    clock.now_us = 150
    feed._closed()  # a try in vain
    clock.now_us = 200
    feed.on_text(BOOK_TICKER.replace(b'"u":7', b'"u":8'))
    assert missed == [(100, 200)]


def test_open_disconnect_is_reported_before_the_first_row(intake: Intake, clock: Clock) -> None:
    missed: list[tuple[int, int]] = []
    feed = feed_of(intake, clock, missed)
    session = feed.connection.session
    session.next_message(0.0)
    feed._closed()
    clock.now_us = 200
    feed.on_texts([BOOK_TICKER])  # of a stream that was answered for; others are not yet
    assert missed == [(100, 200)]
    assert intake.lanes.waiting == 1
    clock.now_us = 300
    feed.on_texts([BOOK_TICKER.replace(b'"u":7', b'"u":8')])
    assert missed[1:] == []
    clock.now_us = 400
    feed.on_texts([b'{"result":null,"id":1}', BOOK_TICKER.replace(b'"u":7', b'"u":9')])
    assert missed[1:] == [(200, 400)]


def test_disconnect_has_the_time_of_the_last_trade(intake: Intake, clock: Clock) -> None:
    feed = feed_of(intake, clock, [])
    feed._closed()
    assert feed.disconnect_event_us == 0
    feed.connection.session.next_message(0.0)
    feed.on_texts([b'{"result":null,"id":1}', TRADE, BOOK_TICKER])
    feed._closed()
    feed.on_texts([TRADE.replace(b"800000000", b"900000000")])
    assert feed.disconnect_event_us == AT


def test_streams_count_as_delivered_from_their_acknowledgement_on(
    intake: Intake, clock: Clock
) -> None:
    feed = feed_of(intake, clock, [])
    session = feed.connection.session
    session.next_message(0.0)
    assert feed.since_us == {}
    clock.now_us = 120
    feed.on_texts([b'{"result":null,"id":1}'])
    assert feed.since_us == {"BTCUSDT": 120}
    feed.add(["ETHUSDT", "BTCUSDT"])
    session.subscribe(feed.connection.streams)  # as the socket does that there is not
    clock.now_us = 130
    feed.on_texts([BOOK_TICKER])
    assert feed.since_us == {"BTCUSDT": 120}
    session.next_message(10.0)
    clock.now_us = 140
    feed.on_texts([b'{"result":null,"id":2}'])
    assert feed.since_us == {"BTCUSDT": 120, "ETHUSDT": 140}
    feed.remove("BTCUSDT")
    assert feed.since_us == {"ETHUSDT": 140}


def test_successor_waits_for_the_old_socket_to_catch_up(intake: Intake, clock: Clock) -> None:
    feed = feed_of(intake, clock, [])
    quote, trade = decode_captured(BOOK_TICKER), decode_captured(TRADE)
    answer = decode_captured(b'{"result":null,"id":1}')
    assert [feed._has_delivered(one) for one in (quote, trade, answer)] == [False, False, True]
    feed.on_texts(
        [BOOK_TICKER.replace(b'"u":7', b'"u":6'), TRADE.replace(b"800000000", b"799999999")]
    )
    assert [feed._has_delivered(one) for one in (quote, trade)] == [False, False]
    feed.on_texts([BOOK_TICKER.replace(b'"u":7', b'"u":8'), TRADE])
    assert [feed._has_delivered(one) for one in (quote, trade)] == [True, True]


def test_disconnect_starts_with_the_last_message(intake: Intake, clock: Clock) -> None:
    missed: list[tuple[int, int]] = []
    feed = feed_of(intake, clock, missed)
    feed.connection.session.next_message(0.0)
    clock.now_us = 120
    feed.on_texts([b'{"result":null,"id":1}', BOOK_TICKER])
    clock.now_us = 15_000_120  # of silence, until the connection was given up
    feed._closed()
    clock.now_us = 16_000_000
    feed.on_texts([BOOK_TICKER.replace(b'"u":7', b'"u":8')])
    assert missed == [(120, 16_000_000)]
    clock.now_us = 17_000_000
    feed._closed()
    clock.now_us = 18_000_000
    feed.on_texts([BOOK_TICKER.replace(b'"u":7', b'"u":9')])
    assert missed[1:] == [(16_000_000, 18_000_000)]


def test_book_ticker_delivered_twice_around_midnight_is_one_row(clock: Clock) -> None:
    intake = Intake(DATASETS, max_rows=1_000, on_losses=lambda _: None, now_us=lambda: clock.now_us)
    feed = feed_of(intake, clock, [])
    midnight_us = 1_763_769_600_000_000
    clock.now_us = midnight_us - 100_000
    feed.on_texts([BOOK_TICKER, BOOK_TICKER.replace(b'"u":7', b'"u":8')])
    clock.now_us = midnight_us + 300_000  # the successor takes over; it had the last two as well
    held = [
        BOOK_TICKER,
        BOOK_TICKER.replace(b'"u":7', b'"u":8'),
        BOOK_TICKER.replace(b'"u":7', b'"u":9'),
    ]
    feed.on_held(held, [0.4, 0.4, 0.35])
    feed.on_texts([BOOK_TICKER.replace(b'"u":7', b'"u":10')])
    received = [
        (int(fields[2]), fields[-1].strip())
        for lane in intake.lanes.lanes
        for fields in (line.split("\t") for line in lane.rows)
    ]
    assert [number for number, _ in received] == [7, 8, 9, 10]
    assert ["21" in at[8:10] for _, at in received] == [True, True, True, False], received


def test_book_ticker_that_a_later_one_overtook_before_the_handover_is_stored(clock: Clock) -> None:
    intake = Intake(DATASETS, max_rows=1_000, on_losses=lambda _: None, now_us=lambda: clock.now_us)
    feed = feed_of(intake, clock, [])
    clock.now_us = 1_763_726_400_000_000  # noon
    feed.on_texts([BOOK_TICKER, BOOK_TICKER.replace(b'"u":7', b'"u":9')])
    held = [BOOK_TICKER.replace(b'"u":7', f'"u":{number}'.encode()) for number in (7, 8, 9, 10)]
    feed.on_held(held, [0.4, 0.3, 0.2, 0.1])
    stored = [int(line.split("\t")[2]) for lane in intake.lanes.lanes for line in lane.rows]
    assert set(stored) == {7, 8, 9, 10}  # the table stores repeats once
    assert intake.last_update_id(Market.SPOT, "BTCUSDT") == 10


def test_symbols_are_added_and_removed(intake: Intake, clock: Clock) -> None:
    feed = feed_of(intake, clock, [])
    feed.add(["ETHUSDT"])
    feed.remove("BTCUSDT")
    assert feed.connection.streams == ("ethusdt@trade", "ethusdt@bookTicker")
    feed.on_text(BOOK_TICKER)
    assert intake.lanes.waiting == 0
    feed.on_text(BOOK_TICKER.replace(b"BTCUSDT", b"ETHUSDT"))
    assert intake.lanes.waiting == 1


def test_liquidations_become_rows_beside_a_heartbeat(intake: Intake, clock: Clock) -> None:
    missed: list[tuple[int, int]] = []
    feed = feed_of(intake, clock, missed, Market.UM, ("forceOrder",))
    assert list(feed.connection.streams) == ["btcusdt@markPrice", "btcusdt@forceOrder"]
    assert feed.watched_kinds == ()
    feed.on_texts([LIQUIDATION, LIQUIDATION.replace(b'"SELL"', b'"SHORT"')])
    assert (intake.lanes.waiting, feed.bad_frames) == (1, 1)

    clock.now_us = 200
    feed.on_texts([b'{"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate"}}'])
    feed._closed()
    clock.now_us = 300
    feed.on_texts([LIQUIDATION])
    assert missed == [(200, 300)]
    assert (intake.lanes.waiting, feed.bad_frames) == (1, 1)
