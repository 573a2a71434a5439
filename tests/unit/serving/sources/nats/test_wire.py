from __future__ import annotations

from decimal import Decimal

import pytest

from include.domain.timeframes import MINUTE_US
from serving.bars.subscription import Bars, BarUpdate, MissedBars
from serving.protobuf.bars import bar_update_of
from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.ticks import trade_tick_of
from serving.sources.nats.wire import (
    MessageEncoder,
    TradeMessageEncoder,
    UnreadableMessages,
    book_tickers_subject,
    candles_subject,
    encode_book_tickers,
    trades_subject,
)
from streamer.hub.ticks import BookTickerUpdate, MissedTrades, Ticks, TradeTick
from tests.unit.serving.sources.nats.test_minute_states import T0, minute


@pytest.mark.parametrize(
    ("symbol", "subject"),
    [
        ("BTCUSDT", "candles.1m.BTCUSDT"),
        ("ETHUSDT.P", "candles.1m.ETHUSDT.P"),
        ("BTCUSDT_261225.P", "candles.1m.BTCUSDT_261225.P"),
        ("币安人生USDT", "candles.1m.币安人生USDT"),
        ("A*B >", "candles.1m.A%2AB%20%3E"),
        (".A..B.", "candles.1m.%2EA%2E.B%2E"),
        ("A\r\nPUB x", "candles.1m.A%0D%0APUB%20x"),
        ("A%2A", "candles.1m.A%252A"),
    ],
)
def test_symbol_follows_the_timeframe_in_a_subject(symbol: str, subject: str) -> None:
    assert candles_subject("1m", symbol) == subject
    assert trades_subject(symbol) == subject.replace("candles.1m", "trades")
    assert book_tickers_subject(symbol) == subject.replace("candles.1m", "book_tickers")


def test_each_bar_has_a_message_and_each_message_two_numbers() -> None:
    encoder = MessageEncoder("a", 3, ["1m", "5m"])
    updates = [BarUpdate("1m", minute()), BarUpdate("1m", minute(1)), BarUpdate("5m", minute())]
    missed = MissedBars("ETHUSDT", "1m", T0, T0 + MINUTE_US)
    told = encoder.candles(Bars(updates, [missed]))
    told += encoder.candles(Bars(updates[:1], []))
    read = [(subject, bus.PublishedCandles.FromString(payload)) for subject, payload in told]
    assert [(subject, one.sequence, one.total) for subject, one in read] == [
        ("candles.1m.BTCUSDT", 1, 1),
        ("candles.5m.BTCUSDT", 1, 1),
        ("candles.1m.ETHUSDT", 1, 2),
        ("candles.1m.BTCUSDT", 2, 3),
    ]
    assert {(one.streamer, one.connection) for _, one in read} == {("a", 3)}
    assert [bar_update_of(one) for one in read[0][1].updates] == updates[:2]
    assert [one.symbol for one in read[2][1].missed] == ["ETHUSDT"]
    heartbeat = bus.Heartbeat.FromString(encoder.heartbeat())
    assert dict(heartbeat.totals) == {"1m": 3, "5m": 1}
    assert not heartbeat.HasField("streamed")
    encoder.streamed = frozenset()
    assert bus.Heartbeat.FromString(encoder.heartbeat()).HasField("streamed")
    encoder.streamed = frozenset({"ETHUSDT", "BTCUSDT"})
    heartbeat = bus.Heartbeat.FromString(encoder.heartbeat())
    assert list(heartbeat.streamed.symbols) == ["BTCUSDT", "ETHUSDT"]


def test_trades_are_numbered_by_symbol() -> None:
    encoder = TradeMessageEncoder("a", 1)
    one = Decimal(1)
    trades = [TradeTick(name, 7, one, one, 7, 7, T0, False) for name in ("A", "B", "A")]
    missed = MissedTrades("B", 1, 2, T0, T0)
    told = encoder.trades(Ticks(trades, [missed])) + encoder.trades(Ticks(trades[:1]))
    read = [(subject, bus.PublishedTrades.FromString(payload)) for subject, payload in told]
    assert [(subject, made.sequence, len(made.trades)) for subject, made in read] == [
        ("trades.A", 1, 2),
        ("trades.B", 1, 1),
        ("trades.A", 2, 1),
    ]
    assert trade_tick_of(read[0][1].trades[0]) == trades[0]
    assert (read[1][1].missed[0].first_id, read[1][1].missed[0].last_id) == (1, 2)


def test_each_book_ticker_has_its_own_message() -> None:
    tick = BookTickerUpdate("A.P", 1, "1", "2", "3", "4", None, T0)
    [(subject, payload)] = encode_book_tickers(Ticks([tick]))
    assert subject == "book_tickers.A.P"
    assert pb.StreamBookTickersResponse.FromString(payload).book_tickers[0].bid_quantity == "2"


def test_unreadable_messages_are_counted_and_rarely_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unreadable = UnreadableMessages()
    for _ in range(100):
        unreadable.note("candles.1m.X", ValueError("no minute"))
    assert unreadable.count == 100
    assert capsys.readouterr().out.count("nats_message_unreadable") == 7
