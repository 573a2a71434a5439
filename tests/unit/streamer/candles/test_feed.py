"""What a feed makes of messages; its connection is played here, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.candles import feed as module
from streamer.candles.feed import CLOSED_PER_TURN, MAX_DOUBTED, CandleFeed, stream_kinds
from streamer.exchange import feed as base
from streamer.exchange.clock import CARRIED_LAG_S, ExchangeClock
from streamer.exchange.feed import LOGGED_BAD_FRAMES
from tests.unit.streamer.played_connection import T0, Aggregator, Connection, kline, parts, trade
from tests.unit.streamer.watched import Clock

HOUR_US = 60 * MINUTE_US
MakeFeed = Callable[..., CandleFeed]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    monkeypatch.setattr(base, "log", log)
    return log


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The machine's own clock."""
    ours = Clock()
    monkeypatch.setattr(module, "ExchangeClock", partial(ExchangeClock, clock_s=ours))
    return ours


@pytest.fixture
def feed_of(monkeypatch: pytest.MonkeyPatch, log: CapturingLogger) -> MakeFeed:
    monkeypatch.setattr(module, "StreamConnection", Connection)

    def feed_of(*symbols: str, klines: bool = True, **more: Any) -> CandleFeed:
        aggregators: Any = {symbol: Aggregator(symbol) for symbol in symbols}
        return CandleFeed(
            "wss://exchange",
            Market.SPOT,
            aggregators,
            name="spot-1",
            trade_stream="aggTrade",
            klines=klines,
            stale_after_s=15,
            **more,
        )

    return feed_of


def shown(log: CapturingLogger) -> list[tuple[str, str]]:
    return [(call.method_name, call.args[0]) for call in log.calls]


def test_each_symbol_has_its_trades_and_its_klines() -> None:
    assert stream_kinds("aggTrade", klines=True) == ("aggTrade", "kline_1m")
    assert stream_kinds("trade", klines=False) == ("trade",)


def test_frames_go_to_the_aggregator_of_their_symbol(feed_of: MakeFeed) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT")
    _, (btc, eth) = parts(feed)
    feed.on_texts([trade("BTCUSDT", 5, T0)])
    feed.on_texts([trade("ETHUSDT", 7, T0 + 3)])
    feed.on_texts([kline("ETHUSDT", T0 + 2)])
    feed.on_texts([kline("ETHUSDT", T0 + 2, interval="5m")])
    assert (btc.trades, btc.klines, eth.trades, eth.klines) == ([5], [], [7], [T0])
    assert feed.exchange_us == T0 + 3  # the greatest event time, not the last
    assert feed.frames == 4


@pytest.mark.parametrize(
    "bad",
    [
        b"<html>502 Bad Gateway</html>",
        b"",
        b"[1, 2]",
        b'"text"',
        b"\xff\xfe",
        trade("BTCUSDT", 1, T0, p="NaN"),
        trade("BTCUSDT", 1, T0, q="Infinity"),
        trade("BTCUSDT", 1, T0, p="-Infinity"),
        trade("BTCUSDT", 1, T0, p="sNaN"),
        trade("BTCUSDT", 1, T0, p="ten"),
        trade("BTCUSDT", 1, T0, a=None),
        kline("BTCUSDT", T0, h="NaN"),
        kline("BTCUSDT", T0, Q="Infinity"),
    ],
    ids=lambda bad: repr(bad[:24]) + f"-{len(bad)}",
)
def test_bad_frame_is_only_counted_and_logged(
    feed_of: MakeFeed, log: CapturingLogger, bad: bytes
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    feed.on_texts([bad])
    assert (feed.bad_frames, feed.frames, feed.exchange_us) == (1, 1, 0)
    assert (btc.trades, btc.klines) == ([], [])
    assert shown(log) == [("warning", "bad_frame")]
    feed.on_texts([trade("BTCUSDT", 2, T0)])
    assert (btc.trades, feed.bad_frames) == ([2], 1)


def test_raw_frames_without_an_envelope_are_checked_as_strictly(
    feed_of: MakeFeed,
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    for number, price in enumerate(("NaN", "1.5", "Infinity")):
        feed.on_texts(
            [json.dumps(json.loads(trade("BTCUSDT", number, T0, p=price))["data"]).encode()]
        )
    assert (btc.trades, feed.bad_frames) == ([1], 2)


def test_many_bad_frames_are_all_counted_and_few_are_logged(
    feed_of: MakeFeed, log: CapturingLogger
) -> None:
    feed = feed_of("BTCUSDT")
    for _ in range(LOGGED_BAD_FRAMES + 5):
        feed.on_texts([b"{"])
    assert feed.bad_frames == LOGGED_BAD_FRAMES + 5
    assert shown(log) == [("warning", "bad_frame")] * LOGGED_BAD_FRAMES


def test_unknown_symbols_and_events_are_logged_once_and_counted(
    feed_of: MakeFeed, log: CapturingLogger
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    for number in range(3):
        feed.on_texts([trade("DOGEUSDT", number, T0)])
        feed.on_texts([b'{"stream":"x","data":{"e":"bookTicker","s":"BTCUSDT"}}'])
    assert feed.unknown == {"symbol DOGEUSDT": 3, "event bookTicker": 3}
    assert (feed.bad_frames, btc.trades) == (0, [])
    assert shown(log) == [("warning", "unknown_frame")] * 2
    whats = [call.kwargs["what"] for call in log.calls]
    assert whats == ["symbol DOGEUSDT", "event bookTicker"]


def test_memory_of_unknown_frames_is_bounded(
    feed_of: MakeFeed,
) -> None:
    feed = feed_of("BTCUSDT")
    for number in range(2_500):
        feed.on_texts([trade(f"X{number}", 1, T0)])
    assert len(feed.unknown) <= 1_000


def test_symbol_is_connected_once_its_delivery_is_proven(
    feed_of: MakeFeed,
) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT", "BNBUSDT")
    connection, (btc, eth, bnb) = parts(feed)
    connection.open()
    for number, (name, trades) in enumerate([("btcusdt", 2), ("ethusdt", 1), ("bnbusdt", 0)], 1):
        asked = connection.send()
        assert asked is not None
        assert asked["params"] == [f"{name}@aggTrade", f"{name}@kline_1m"]
        for _ in range(trades):
            feed.on_texts([trade("BTCUSDT", number, T0 + number)])
        connection.answer(number)
        assert btc.connections == [T0 + 1]  # its own frame proves the one symbol
        assert eth.connections == bnb.connections == []  # an acknowledgement proves nothing
    feed.on_texts([trade("BTCUSDT", 3, T0 + 3)])  # what comes after the last one proves all
    assert [btc.connections, eth.connections, bnb.connections] == [[T0 + 1], [T0 + 3], [T0 + 3]]


def test_disconnect_is_reported_and_the_next_connection_must_deliver(
    feed_of: MakeFeed,
) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT")
    connection, (btc, eth) = parts(feed)
    for start_us in (T0, T0 + MINUTE_US):
        connection.open()
        connection.send_all()
        feed.on_texts([trade("ETHUSDT", 1, start_us)])
        connection.close()
    assert btc.connections == eth.connections == [T0, None, T0 + MINUTE_US, None]


def test_missed_minutes_are_reported_once_the_time_is_known(feed_of: MakeFeed) -> None:
    """A connection may be lost before its first frame, when exchange time is unknown."""
    missed: list[tuple[str, int, int, str]] = []
    feed = feed_of("BTCUSDT", on_missed=lambda *what: missed.append(what))
    connection, (btc,) = parts(feed)
    btc.deadline_us = T0 + MINUTE_US  # of the first minute that the table does not have
    connection.open()
    connection.close()
    assert missed == []
    connection.open()
    connection.send_all()
    feed.on_texts([trade("BTCUSDT", 1, T0 + 5 * MINUTE_US)])
    assert missed == [("BTCUSDT", T0, T0 + 5 * MINUTE_US + 1, "connection lost")]


def test_first_frame_reports_missed_minutes_of_all_symbols(feed_of: MakeFeed) -> None:
    """The clock it sets closes minutes of symbols that are subscribed seconds later."""
    missed: list[tuple[str, int]] = []
    feed = feed_of("BTC", "ETH", on_missed=lambda *what: missed.append((what[0], what[2])))
    connection, (btc, eth) = parts(feed)
    btc.deadline_us = eth.deadline_us = T0 + MINUTE_US
    connection.open()
    connection.close()
    connection.open()
    feed.on_texts([trade("BTC", 1, T0 + HOUR_US)])  # not all are acknowledged yet
    assert missed == [("BTC", T0 + HOUR_US + 1), ("ETH", T0 + HOUR_US + 1)]
    connection.send_all()
    feed.on_texts([trade("BTC", 2, T0 + HOUR_US + 5)])
    assert missed[2:] == [("ETH", T0 + HOUR_US + 6)]


def test_refused_subscription_is_an_error_and_the_connection_is_replaced(
    feed_of: MakeFeed, log: CapturingLogger
) -> None:
    feed = feed_of("BTCUSDT")
    connection, (btc,) = parts(feed)
    connection.open()
    connection.send()
    feed.on_texts([b'{"error":{"code":2,"msg":"Invalid request: too many streams"},"id":1}'])
    (reason,) = connection.reconnected
    assert reason.startswith("SUBSCRIBE of 2 streams refused: code 2 Invalid request")
    assert shown(log) == [("error", "subscription_refused")]
    assert btc.connections == []


def test_announced_shutdown_rotates_the_connection(feed_of: MakeFeed) -> None:
    feed = feed_of("BTCUSDT")
    connection, _ = parts(feed)
    connection.open()
    feed.on_texts([b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1700000000000}}'])
    assert connection.rotated == ["the exchange announced a shutdown"]
    assert connection.reconnected == []


def test_minutes_are_closed_only_by_exchange_time(feed_of: MakeFeed, ours: Clock) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT")
    connection, (btc, eth) = parts(feed)
    connection.open()
    btc.deadline_us, eth.deadline_us = T0 + SECOND_US, T0 + 2 * SECOND_US
    feed.on_clock()
    feed.on_texts([trade("BTCUSDT", 1, T0 + SECOND_US - 1)])
    feed.on_clock()
    ours.now_s += CARRIED_LAG_S
    feed.on_clock()
    assert (btc.clock, eth.clock) == ([], [])  # klines would come, were it later
    feed.on_texts([kline("BTCUSDT", T0 + SECOND_US)])
    feed.on_clock()
    assert (btc.clock, eth.clock) == ([T0 + SECOND_US], [])


def test_minutes_due_together_are_closed_in_batches(
    feed_of: MakeFeed,
) -> None:
    feed = feed_of(*(f"X{number}USDT" for number in range(CLOSED_PER_TURN + 1)))
    connection, aggregators = parts(feed)
    connection.open()
    for one in aggregators:
        one.deadline_us = T0
    feed.on_texts([kline("X0USDT", T0)])
    assert feed.on_clock()
    assert [len(one.clock) for one in aggregators] == [1] * CLOSED_PER_TURN + [0]
    assert feed.on_clock()
    assert all(one.clock for one in aggregators)
    assert not feed.on_clock()


@pytest.mark.parametrize(("klines", "lag_s"), [(False, 0.0), (True, CARRIED_LAG_S)])
def test_exchange_clock_advances_without_frames(
    feed_of: MakeFeed, ours: Clock, klines: bool, lag_s: float
) -> None:
    feed = feed_of("BTCUSDT", klines=klines)
    connection, (btc,) = parts(feed)
    connection.open()
    btc.deadline_us = T0 + 2 * SECOND_US
    ours.now_s += 60
    feed.on_clock()
    assert btc.clock == []  # no frame yet: no time is known
    feed.on_texts([trade("BTCUSDT", 1, T0)])
    feed.on_clock()
    ours.now_s += lag_s + 1.999
    feed.on_clock()
    assert btc.clock == []
    ours.now_s += 0.501
    feed.on_clock()
    assert btc.clock == [T0 + 2_500_000]
    connection.close()
    feed.on_clock()
    assert len(btc.clock) == 1  # a lost connection has no time
    assert feed.now_us == T0 + 2_500_000  # but it passes: REST may be asked


def test_connection_without_frames_reports_no_further_gap(
    feed_of: MakeFeed,
) -> None:
    missed: list[tuple[str, int, int, str]] = []
    feed = feed_of("BTCUSDT", on_missed=lambda *one: missed.append(one))
    connection, (btc,) = parts(feed)
    btc.deadline_us = T0 + MINUTE_US
    connection.open()
    connection.send_all()
    feed.on_texts([trade("BTCUSDT", 1, T0)])
    for _ in range(3):
        connection.close()
        connection.open()
    assert missed == [("BTCUSDT", T0, T0 + 1, "connection lost")]
    connection.send_all()
    feed.on_texts([trade("BTCUSDT", 2, T0 + 5)])
    connection.close()
    assert [end_us for _, _, end_us, _ in missed] == [T0 + 1, T0 + 6, T0 + 6]


def test_resubscriptions_are_sent_in_one_batch_on_an_open_connection(
    feed_of: MakeFeed,
) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT", "BNBUSDT")
    connection, _ = parts(feed)
    feed.resubscribe("ETHUSDT")
    feed.on_clock()
    connection.open()
    assert len(connection.send_all()) == 3  # the first subscriptions; doubts of before are void
    feed.on_clock()
    assert connection.send_all() == []
    feed.resubscribe("ETHUSDT")
    feed.resubscribe("BNBUSDT")
    assert connection.send_all() == []
    feed.on_clock()
    sent = connection.send_all()
    batches = [["ethusdt@aggTrade", "ethusdt@kline_1m"], ["bnbusdt@aggTrade", "bnbusdt@kline_1m"]]
    assert [one["params"] for one in sent] == [*batches, *batches]
    assert [one["method"] for one in sent] == ["UNSUBSCRIBE"] * 2 + ["SUBSCRIBE"] * 2


def test_prices_arrive_exactly_as_they_were_sent(
    feed_of: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    prices: list[Decimal] = []
    monkeypatch.setattr(btc, "on_trade", lambda one: prices.append(one.price))
    feed.on_texts([trade("BTCUSDT", 1, T0, p="0.10000000000000000555")])
    assert prices == [Decimal("0.10000000000000000555")]


def test_one_frame_from_far_ahead_does_not_set_the_clock(
    feed_of: MakeFeed, log: CapturingLogger, ours: Clock
) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT", begin_us=T0)
    connection, (btc, eth) = parts(feed)
    connection.open()
    connection.send_all()
    feed.on_texts([trade("BTCUSDT", 1, T0 + HOUR_US, T=T0 + 1)])
    assert (feed.exchange_us, btc.connections) == (0, [])
    feed.on_texts([trade("ETHUSDT", 1, T0 + 2), trade("BTCUSDT", 2, T0 + 3)])
    assert feed.exchange_us == T0 + 3
    assert btc.connections == eth.connections == [T0 + 2]
    assert btc.trades == [1, 2]  # its trade is one all the same
    assert feed.bad_frames == 1
    assert shown(log) == [("warning", "bad_frame")]
    for number in range(3, 3 + MAX_DOUBTED - 2):
        feed.on_texts([trade("BTCUSDT", number, T0 + HOUR_US)])
    assert feed.exchange_us == T0 + 3


@pytest.mark.parametrize(
    ("carried", "speaking"),
    [
        (["BTCUSDT", "ETHUSDT"], ["BTCUSDT", "ETHUSDT"]),
        (["BTCUSDT"], ["BTCUSDT"] * 2),
        (["BTCUSDT", "ETHUSDT"], ["BTCUSDT"] * (MAX_DOUBTED + 1)),
    ],
)
def test_confirmed_time_far_ahead_sets_the_clock(
    feed_of: MakeFeed, ours: Clock, carried: list[str], speaking: list[str]
) -> None:
    feed = feed_of(*carried, begin_us=T0)
    for number, symbol in enumerate(speaking):
        assert feed.exchange_us == 0
        feed.on_texts([trade(symbol, number, T0 + HOUR_US + number)])
    assert feed.exchange_us == T0 + HOUR_US + len(speaking) - 1


def test_first_frame_after_a_long_disconnect_sets_the_clock(feed_of: MakeFeed, ours: Clock) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT", begin_us=T0)
    connection, _ = parts(feed)
    feed.on_texts([trade("BTCUSDT", 1, T0)])
    connection.close()
    ours.now_s += 3_600
    connection.open()
    feed.on_texts([trade("BTCUSDT", 2, T0 + HOUR_US + 60 * SECOND_US)])
    assert feed.exchange_us == T0 + HOUR_US + 60 * SECOND_US
    assert feed.bad_frames == 0
