"""What a feed makes of messages; its connection is played here, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.binance.frames import AggTrade, Kline, Trade
from include.binance.session import StreamSession
from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer import feed as module
from streamer.feed import LOGGED_BAD_FRAMES, Feed, stream_names

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


class Connection:
    """Stands in for ``StreamConnection``: a session, and what it was told."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        streams: list[str],
        on_text: Callable[[bytes], None],
        on_open: Callable[[], None],
        on_close: Callable[[], None],
        **_: Any,
    ) -> None:
        self.url, self.name, self.streams = url, name, streams
        self.session = StreamSession(streams, names_per_message=2)
        self.is_open = False
        self.now_s = 0.0
        self.silent_s = 0.0
        self.left: list[str] = []
        self.rotated: list[str] = []
        self._on_open, self._on_close, self._on_text = on_open, on_close, on_text

    def open(self) -> None:
        self.session = StreamSession(self.streams, names_per_message=2)
        self.is_open = True
        self._on_open()

    def close(self) -> None:
        self.is_open = False
        self._on_close()

    def send(self) -> dict[str, Any] | None:
        """The control message that the session has to send next."""
        self.now_s += 1
        message = self.session.next_message(self.now_s)
        return None if message is None else json.loads(message)

    def answer(self, number: int) -> None:
        """The exchange's acknowledgement."""
        self._on_text(json.dumps({"result": None, "id": number}).encode())

    def send_all(self) -> list[dict[str, Any]]:
        """Control messages that the session has to send, each answered before the next."""
        sent = []
        while (message := self.send()) is not None:
            sent.append(message)
            self.answer(message["id"])
        return sent

    def leave(self, reason: str) -> None:
        self.left.append(reason)

    def rotate(self, reason: str) -> None:
        self.rotated.append(reason)


class Aggregator:
    """Keeps what it is given."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.trades: list[int] = []
        self.klines: list[int] = []
        self.connections: list[int | None] = []
        self.clock: list[int] = []
        self.deadline_us: int | None = None

    def on_trade(self, trade: AggTrade | Trade) -> None:
        self.trades.append(trade.id)

    def on_kline(self, kline: Kline) -> None:
        self.klines.append(kline.body.open_time)

    def connected(self, exchange_us: int) -> None:
        self.connections.append(exchange_us)

    def disconnected(self) -> None:
        self.connections.append(None)

    def next_deadline_us(self) -> int | None:
        return self.deadline_us

    def on_clock(self, exchange_us: int) -> None:
        self.clock.append(exchange_us)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    return log


@pytest.fixture
def feed_of(monkeypatch: pytest.MonkeyPatch, log: CapturingLogger) -> Callable[..., Feed]:
    monkeypatch.setattr(module, "StreamConnection", Connection)

    def feed_of(*symbols: str, klines: bool = True, **more: Any) -> Feed:
        aggregators: Any = {symbol: Aggregator(symbol) for symbol in symbols}
        return Feed(
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


def parts(feed: Feed) -> tuple[Connection, list[Aggregator]]:
    connection: Any = feed.connection
    aggregators: Any = feed.aggregators
    return connection, aggregators


def trade(symbol: str, number: int, event_us: int, **changes: object) -> bytes:
    data = {
        "e": "aggTrade", "E": event_us, "s": symbol, "a": number, "p": "10.5", "q": "2",
        "f": number, "l": number, "T": event_us, "m": False, "M": True,
    }  # fmt: skip
    stream = f"{symbol.lower()}@aggTrade"
    return json.dumps({"stream": stream, "data": data | changes}).encode()


def kline(symbol: str, event_us: int, *, interval: str = "1m", **changes: object) -> bytes:
    body = {
        "t": T0, "T": T0 + MINUTE_US - 1, "s": symbol, "i": interval, "f": 1, "L": 2, "o": "1",
        "c": "1", "h": "1", "l": "1", "v": "2", "n": 2, "x": False, "q": "2", "V": "1", "Q": "1",
    }  # fmt: skip
    data = {"e": "kline", "E": event_us, "s": symbol, "k": body | changes}
    stream = f"{symbol.lower()}@kline_{interval}"
    return json.dumps({"stream": stream, "data": data}).encode()


def shown(log: CapturingLogger) -> list[tuple[str, str]]:
    return [(call.method_name, call.args[0]) for call in log.calls]


def test_each_symbol_has_its_trades_and_its_checksum() -> None:
    assert stream_names("BTCUSDT", trade_stream="aggTrade", klines=True) == [
        "btcusdt@aggTrade",
        "btcusdt@kline_1m",
    ]
    assert stream_names("BTCUSDT", trade_stream="trade", klines=False) == ["btcusdt@trade"]


def test_frames_go_to_the_aggregator_of_their_symbol(feed_of: Callable[..., Feed]) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT")
    _, (btc, eth) = parts(feed)
    feed.on_text(trade("BTCUSDT", 5, T0))
    feed.on_text(trade("ETHUSDT", 7, T0 + 3))
    feed.on_text(kline("ETHUSDT", T0 + 2))
    feed.on_text(kline("ETHUSDT", T0 + 2, interval="5m"))
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
def test_a_bad_frame_is_counted_and_logged_and_nothing_else(
    feed_of: Callable[..., Feed], log: CapturingLogger, bad: bytes
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    feed.on_text(bad)
    assert (feed.bad_frames, feed.frames, feed.exchange_us) == (1, 1, 0)
    assert (btc.trades, btc.klines) == ([], [])
    assert shown(log) == [("warning", "bad_frame")]
    feed.on_text(trade("BTCUSDT", 2, T0))
    assert (btc.trades, feed.bad_frames) == ([2], 1)


def test_raw_frames_without_an_envelope_are_held_to_the_same(
    feed_of: Callable[..., Feed],
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    for number, price in enumerate(("NaN", "1.5", "Infinity")):
        feed.on_text(json.dumps(json.loads(trade("BTCUSDT", number, T0, p=price))["data"]).encode())
    assert (btc.trades, feed.bad_frames) == ([1], 2)


def test_many_bad_frames_are_all_counted_and_few_are_logged(
    feed_of: Callable[..., Feed], log: CapturingLogger
) -> None:
    feed = feed_of("BTCUSDT")
    for _ in range(LOGGED_BAD_FRAMES + 5):
        feed.on_text(b"{")
    assert feed.bad_frames == LOGGED_BAD_FRAMES + 5
    assert shown(log) == [("warning", "bad_frame")] * LOGGED_BAD_FRAMES


def test_unknown_symbols_and_events_are_logged_once_and_counted(
    feed_of: Callable[..., Feed], log: CapturingLogger
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    for number in range(3):
        feed.on_text(trade("DOGEUSDT", number, T0))
        feed.on_text(b'{"stream":"x","data":{"e":"bookTicker","s":"BTCUSDT"}}')
    assert feed.unknown == {"symbol DOGEUSDT": 3, "event bookTicker": 3}
    assert (feed.bad_frames, btc.trades) == (0, [])
    assert shown(log) == [("warning", "unknown_frame")] * 2
    whats = [call.kwargs["what"] for call in log.calls]
    assert whats == ["symbol DOGEUSDT", "event bookTicker"]


def test_what_is_remembered_of_unknown_frames_is_bounded(feed_of: Callable[..., Feed]) -> None:
    feed = feed_of("BTCUSDT")
    for number in range(2_500):
        feed.on_text(trade(f"X{number}", 1, T0))
    assert len(feed.unknown) <= 1_000


def test_a_symbol_is_connected_once_its_delivery_is_proven(feed_of: Callable[..., Feed]) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT", "BNBUSDT")
    connection, (btc, eth, bnb) = parts(feed)
    connection.open()
    for number, (name, trades) in enumerate([("btcusdt", 2), ("ethusdt", 1), ("bnbusdt", 0)], 1):
        asked = connection.send()
        assert asked is not None
        assert asked["params"] == [f"{name}@aggTrade", f"{name}@kline_1m"]
        for _ in range(trades):
            feed.on_text(trade("BTCUSDT", number, T0 + number))
        connection.answer(number)
        assert btc.connections == [T0 + 1]  # its own frame proves the one symbol
        assert eth.connections == bnb.connections == []  # an acknowledgement proves nothing
    feed.on_text(trade("BTCUSDT", 3, T0 + 3))  # what comes after the last one proves all
    assert [btc.connections, eth.connections, bnb.connections] == [[T0 + 1], [T0 + 3], [T0 + 3]]


def test_a_lost_connection_is_told_and_the_next_one_has_to_prove_itself(
    feed_of: Callable[..., Feed],
) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT")
    connection, (btc, eth) = parts(feed)
    for start_us in (T0, T0 + MINUTE_US):
        connection.open()
        connection.send_all()
        feed.on_text(trade("ETHUSDT", 1, start_us))
        connection.close()
    assert btc.connections == eth.connections == [T0, None, T0 + MINUTE_US, None]


def test_what_was_missed_is_told_once_the_time_is_known(feed_of: Callable[..., Feed]) -> None:
    """A connection may be lost before its first frame has told the exchange's time."""
    missed: list[tuple[str, int, int, str]] = []
    feed = feed_of("BTCUSDT", on_missed=lambda *what: missed.append(what))
    connection, (btc,) = parts(feed)
    btc.deadline_us = T0 + MINUTE_US  # of the first minute that the table does not have
    connection.open()
    connection.close()
    assert missed == []
    connection.open()
    connection.send_all()
    feed.on_text(trade("BTCUSDT", 1, T0 + 5 * MINUTE_US))
    assert missed == [("BTCUSDT", T0, T0 + 5 * MINUTE_US + 1, "connection lost")]


def test_a_refused_subscription_is_an_error_and_the_connection_is_replaced(
    feed_of: Callable[..., Feed], log: CapturingLogger
) -> None:
    feed = feed_of("BTCUSDT")
    connection, (btc,) = parts(feed)
    connection.open()
    connection.send()
    feed.on_text(b'{"error":{"code":2,"msg":"Invalid request: too many streams"},"id":1}')
    (reason,) = connection.left
    assert reason.startswith("SUBSCRIBE of 2 streams refused: code 2 Invalid request")
    assert shown(log) == [("error", "subscription_refused")]
    assert btc.connections == []


def test_an_announced_shutdown_is_not_waited_for(feed_of: Callable[..., Feed]) -> None:
    feed = feed_of("BTCUSDT")
    connection, _ = parts(feed)
    connection.open()
    feed.on_text(b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1700000000000}}')
    assert connection.rotated == ["the exchange announced a shutdown"]
    assert connection.left == []


def test_minutes_are_closed_by_the_exchanges_clock_and_no_other(
    feed_of: Callable[..., Feed],
) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT")
    connection, (btc, eth) = parts(feed)
    connection.open()
    btc.deadline_us, eth.deadline_us = T0 + SECOND_US, T0 + 2 * SECOND_US
    feed.on_clock()
    feed.on_text(trade("BTCUSDT", 1, T0 + SECOND_US - 1))
    connection.silent_s = 60.0
    feed.on_clock()
    assert (btc.clock, eth.clock) == ([], [])  # klines would come, were it later
    feed.on_text(kline("BTCUSDT", T0 + SECOND_US))
    feed.on_clock()
    assert (btc.clock, eth.clock) == ([T0 + SECOND_US], [])


def test_without_klines_the_clock_is_carried_on_by_the_time_since_the_last_frame(
    feed_of: Callable[..., Feed],
) -> None:
    feed = feed_of("BTCUSDT", klines=False)
    connection, (btc,) = parts(feed)
    connection.open()
    btc.deadline_us = T0 + 2 * SECOND_US
    connection.silent_s = 60.0
    feed.on_clock()
    assert btc.clock == []  # no frame yet: no time is known
    feed.on_text(trade("BTCUSDT", 1, T0))
    connection.silent_s = 1.999
    feed.on_clock()
    assert btc.clock == []
    connection.silent_s = 2.5
    feed.on_clock()
    assert btc.clock == [T0 + 2_500_000]
    connection.close()
    feed.on_clock()
    assert len(btc.clock) == 1  # a lost connection tells no time


def test_doubted_symbols_are_asked_for_again_in_one_batch_on_an_open_connection(
    feed_of: Callable[..., Feed],
) -> None:
    feed = feed_of("BTCUSDT", "ETHUSDT", "BNBUSDT")
    connection, _ = parts(feed)
    feed.doubt("ETHUSDT")
    feed.on_clock()
    connection.open()
    assert len(connection.send_all()) == 3  # the first subscriptions; doubts of before are void
    feed.on_clock()
    assert connection.send_all() == []
    feed.doubt("ETHUSDT")
    feed.doubt("BNBUSDT")
    assert connection.send_all() == []
    feed.on_clock()
    sent = connection.send_all()
    batches = [["ethusdt@aggTrade", "ethusdt@kline_1m"], ["bnbusdt@aggTrade", "bnbusdt@kline_1m"]]
    assert [one["params"] for one in sent] == [*batches, *batches]
    assert [one["method"] for one in sent] == ["UNSUBSCRIBE"] * 2 + ["SUBSCRIBE"] * 2


def test_prices_arrive_exactly_as_they_were_sent(
    feed_of: Callable[..., Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = feed_of("BTCUSDT")
    _, (btc,) = parts(feed)
    prices: list[Decimal] = []
    monkeypatch.setattr(btc, "on_trade", lambda one: prices.append(one.price))
    feed.on_text(trade("BTCUSDT", 1, T0, p="0.10000000000000000555"))
    assert prices == [Decimal("0.10000000000000000555")]
