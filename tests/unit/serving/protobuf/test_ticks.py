"""Trades and best prices come out of their messages as they went in."""

from __future__ import annotations

from decimal import Decimal

import pytest

from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.ticks import (
    book_ticker_of,
    book_ticker_update_of,
    missed_range_of,
    missed_trades_of,
    trade_of,
    trade_tick_of,
)
from streamer.hub.ticks import BookTickerUpdate, MissedTrades, TradeTick

T0 = 1_700_000_040_000_123


def test_trade_keeps_its_digits_and_its_microseconds() -> None:
    trade = TradeTick("BTCUSDT", 7, Decimal("1E-8"), Decimal("12.50"), 3, 4, T0, True)
    message = pb.Trade.FromString(trade_of(trade).SerializeToString())
    assert (message.price, message.quantity) == ("0.00000001", "12.50")
    assert trade_tick_of(message) == trade


@pytest.mark.parametrize("event_us", [None, T0])
def test_book_tickers_keep_their_text(event_us: int | None) -> None:
    book_ticker = BookTickerUpdate("BTCUSDT.P", 9, "1.10", "0.00", "1.2000", "5", event_us, T0 + 1)
    assert (
        book_ticker_update_of(
            pb.BookTicker.FromString(book_ticker_of(book_ticker).SerializeToString())
        )
        == book_ticker
    )


def test_missed_trades_keep_their_bounds() -> None:
    missed = MissedTrades("BTCUSDT", 3, 9, T0, T0 + 5)
    assert missed_range_of(missed_trades_of(missed)) == missed
