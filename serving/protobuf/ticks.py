"""Convert between trades, best prices and messages of ``candelabra/v1/market_data.proto``."""

from __future__ import annotations

from decimal import Decimal

from serving.protobuf.bars import microseconds_of, plain, time_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from streamer.hub.ticks import BookTickerUpdate, MissedTrades, TradeTick


def trade_of(trade: TradeTick) -> pb.Trade:
    """Encode a trade."""
    return pb.Trade(
        symbol=trade.symbol,
        id=trade.id,
        price=plain(trade.price),
        quantity=plain(trade.quantity),
        time=time_of(trade.time_us),
        is_buyer_maker=trade.is_buyer_maker,
        first_trade_id=trade.first_trade_id,
        last_trade_id=trade.last_trade_id,
    )


def trade_tick_of(message: pb.Trade) -> TradeTick:
    """Decode a trade."""
    return TradeTick(
        message.symbol,
        message.id,
        Decimal(message.price),
        Decimal(message.quantity),
        message.first_trade_id,
        message.last_trade_id,
        microseconds_of(message.time),
        message.is_buyer_maker,
    )


def missed_trades_of(missed: MissedTrades) -> pb.MissedTrades:
    """Encode the missed ticks."""
    return pb.MissedTrades(
        symbol=missed.symbol,
        first_id=missed.first_id,
        last_id=missed.last_id,
        from_time=time_of(missed.from_us),
        to_time=time_of(missed.to_us),
    )


def missed_range_of(message: pb.MissedTrades) -> MissedTrades:
    """Decode the missed ticks."""
    return MissedTrades(
        message.symbol,
        message.first_id,
        message.last_id,
        microseconds_of(message.from_time),
        microseconds_of(message.to_time),
    )


def book_ticker_of(book_ticker: BookTickerUpdate) -> pb.BookTicker:
    """Encode best prices."""
    message = pb.BookTicker(
        symbol=book_ticker.symbol,
        update_id=book_ticker.update_id,
        bid_price=book_ticker.bid_price,
        bid_quantity=book_ticker.bid_quantity,
        ask_price=book_ticker.ask_price,
        ask_quantity=book_ticker.ask_quantity,
        received_time=time_of(book_ticker.received_us),
    )
    if book_ticker.event_us is not None:
        message.event_time.CopyFrom(time_of(book_ticker.event_us))
    return message


def book_ticker_update_of(message: pb.BookTicker) -> BookTickerUpdate:
    """Decode a book ticker."""
    return BookTickerUpdate(
        message.symbol,
        message.update_id,
        message.bid_price,
        message.bid_quantity,
        message.ask_price,
        message.ask_quantity,
        microseconds_of(message.event_time) if message.HasField("event_time") else None,
        microseconds_of(message.received_time),
    )
