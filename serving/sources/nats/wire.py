"""Subjects and messages of NATS (``candelabra/v1/bus.proto``).

The symbol follows the timeframe: ``candles.1m.BTCUSDT``, and ``candles.1m.ETHUSDT.P`` for the USD-M
perpetual, whose suffix is a separate token. So ``candles.1m.>`` matches all symbols,
``candles.1m.*`` spot, ``candles.1m.*.P`` USD-M, and ``candles.*.BTCUSDT`` one in all timeframes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

import structlog
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from include.domain.timeframes import MINUTE_US
from serving.bars.subscription import Bars
from serving.protobuf.bars import (
    LATEST_US,
    bar_update_of,
    microseconds_of,
    missed_of,
    streamed_of,
    update_of,
)
from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.ticks import book_ticker_of, missed_trades_of, trade_of, trade_tick_of
from streamer.hub.subscription import CandleUpdate
from streamer.hub.ticks import BookTickerUpdate, MissedTrades, Ticks, TradeTick

log = structlog.get_logger(__name__)

ALL_MINUTES = "candles.1m.>"
ALL_HEARTBEATS = "candelabra.streamers.*"
ALL_STATES = "candelabra.states.*"
REQUEST_ALL_STATES = "candelabra.ask"
"""A message here makes every streamer publish its states."""
WANTED = "candelabra.wanted"

HEARTBEAT_S = 1.0
WANTED_INTERVAL_S = 2.0
"""Servers repeat their wishes this often, and send changes immediately."""

_NO_TOKEN = re.compile(r"[\x00-\x20\x7f*>%]|^\.|\.$|\.(?=\.)")
"""Characters that a subject cannot contain; no symbol has any of them so far."""


def token_of(symbol: str) -> str:
    """A symbol as part of a subject, with reserved characters escaped."""
    return _NO_TOKEN.sub(lambda found: f"%{ord(found[0]):02X}", symbol)


def candles_subject(timeframe: str, symbol: str) -> str:
    """Subject of the bars of a symbol and timeframe."""
    return f"candles.{timeframe}.{token_of(symbol)}"


def heartbeat_subject(streamer: str) -> str:
    """Subject of a streamer's heartbeats."""
    return f"candelabra.streamers.{streamer}"


def states_subject(streamer: str) -> str:
    """Subject of a streamer's states."""
    return f"candelabra.states.{streamer}"


def states_request_subject(streamer: str) -> str:
    """Subject that requests a streamer's states."""
    return f"candelabra.ask.{streamer}"


UNREADABLE = (DecodeError, ValueError, ArithmeticError)
"""Raised by decoding an invalid message."""
MAX_DIGITS = 25
"""Digits before and after the point: more than any exchange's, and few enough for exact sums."""


class UnreadableMessages:
    """Counts invalid messages; logs the 1st, 2nd, 4th, 8th …"""

    def __init__(self) -> None:
        self.count = 0

    def note(self, subject: str, error: Exception) -> None:
        """Count a message."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            log.warning(
                "nats_message_unreadable",
                subject=subject,
                error=str(error) or type(error).__name__,
                so_far=self.count,
            )


class MessageEncoder:
    """Encodes and numbers the messages of one connection.

    Args:
        streamer: name of the process.
        connection: its number, from 1.
    """

    def __init__(self, streamer: str, connection: int, timeframes: Iterable[str]) -> None:
        self.streamer = streamer
        self.connection = connection
        self.totals = dict.fromkeys(timeframes, 0)
        """Messages so far, by timeframe."""
        self.streamed: frozenset[str] | None = None
        """Streamed symbols; None until they are known."""
        self._sequences: dict[str, int] = {}

    def candles(self, bars: Bars) -> list[tuple[str, bytes]]:
        """Encode changes: one message with its subject for each symbol and timeframe."""
        by_bar: dict[tuple[str, str], bus.PublishedCandles] = {}
        for update in bars.updates:
            message = self._message(by_bar, update.timeframe, update.candle.symbol)
            message.updates.append(update_of(update))
        for missed in bars.missed:
            message = self._message(by_bar, missed.timeframe, missed.symbol)
            message.missed.append(missed_of(missed))
        return [(candles_subject(*bar), _bytes_of(message)) for bar, message in by_bar.items()]

    def heartbeat(self) -> bytes:
        """Encode a heartbeat: message counts and streamed symbols."""
        return _bytes_of(
            bus.Heartbeat(
                streamer=self.streamer,
                connection=self.connection,
                totals=self.totals,
                streamed=streamed_of(self.streamed),
            )
        )

    def states(self, bars: Bars, *, total: int, part: int, is_last: bool) -> bytes:
        """Encode a part of the present states."""
        return _bytes_of(
            bus.States(
                streamer=self.streamer,
                connection=self.connection,
                total=total,
                part=part,
                is_last=is_last,
                updates=[update_of(one) for one in bars.updates],
            )
        )

    def _message(
        self, by_bar: dict[tuple[str, str], bus.PublishedCandles], timeframe: str, symbol: str
    ) -> bus.PublishedCandles:
        known = by_bar.get((timeframe, symbol))
        if known is not None:
            return known
        subject = candles_subject(timeframe, symbol)
        self.totals[timeframe] += 1
        self._sequences[subject] = self._sequences.get(subject, 0) + 1
        made = by_bar[timeframe, symbol] = bus.PublishedCandles(
            streamer=self.streamer,
            connection=self.connection,
            sequence=self._sequences[subject],
            total=self.totals[timeframe],
        )
        return made


def trades_subject(symbol: str) -> str:
    """Subject of a symbol's trades, while a server wants them."""
    return f"trades.{token_of(symbol)}"


def book_tickers_subject(symbol: str) -> str:
    """Subject of a symbol's book tickers, while a server wants them."""
    return f"book_tickers.{token_of(symbol)}"


def wanted(server: str, trades: Sequence[str], book_tickers: Sequence[str]) -> bytes:
    """Encode what the readers of a server subscribe to."""
    return _bytes_of(bus.Wanted(server=server, trades=trades, book_tickers=book_tickers))


class TradeMessageEncoder:
    """Encodes and numbers the trades of one connection."""

    def __init__(self, streamer: str, connection: int) -> None:
        self._streamer = streamer
        self._connection = connection
        self._sequences: dict[str, int] = {}

    def trades(self, ticks: Ticks[TradeTick, MissedTrades]) -> list[tuple[str, bytes]]:
        """Encode trades: one message with its subject for each symbol."""
        by_symbol: dict[str, bus.PublishedTrades] = {}
        for tick in ticks.ticks:
            self._message(by_symbol, tick.symbol).trades.append(trade_of(tick))
        for missed in ticks.missed:
            self._message(by_symbol, missed.symbol).missed.append(missed_trades_of(missed))
        return [
            (trades_subject(symbol), _bytes_of(message)) for symbol, message in by_symbol.items()
        ]

    def _message(
        self, by_symbol: dict[str, bus.PublishedTrades], symbol: str
    ) -> bus.PublishedTrades:
        if symbol not in by_symbol:
            self._sequences[symbol] = self._sequences.get(symbol, 0) + 1
            by_symbol[symbol] = bus.PublishedTrades(
                streamer=self._streamer,
                connection=self._connection,
                sequence=self._sequences[symbol],
            )
        return by_symbol[symbol]


def encode_book_tickers(ticks: Ticks[BookTickerUpdate, MissedTrades]) -> list[tuple[str, bytes]]:
    """Encode book tickers, each with its subject."""
    return [
        (
            book_tickers_subject(one.symbol),
            _bytes_of(pb.StreamBookTickersResponse(book_tickers=[book_ticker_of(one)])),
        )
        for one in ticks.ticks
    ]


def minute_of(message: pb.CandleUpdate) -> CandleUpdate:
    """Decode a minute.

    Raises:
        one of ``UNREADABLE``: it is no state of a minute.
    """
    bar = bar_update_of(message)
    candle = bar.candle
    if bar.timeframe != "1m" or candle.open_time_us % MINUTE_US:
        raise ValueError(f"{candle.open_time_us} {bar.timeframe!r} is no minute")
    check_symbol(candle.symbol)
    check_time(message.candle.open_time)
    for value in candle.values:
        check_number(value)
    return CandleUpdate(
        candle,
        is_closed=bar.is_closed,
        status=bar.status,
        source=bar.source,
        is_revision=bar.is_revision,
        has_quotes=bar.has_quotes,
    )


def check_trade(message: pb.Trade) -> None:
    """Raise one of ``UNREADABLE`` if a message is no trade."""
    trade = trade_tick_of(message)
    check_symbol(trade.symbol)
    check_number(trade.price)
    check_number(trade.quantity)
    check_time(message.time)


def check_symbol(symbol: str) -> None:
    """Raise ValueError for text that PostgreSQL or a log cannot store."""
    if not symbol or not symbol.isprintable():
        raise ValueError(f"{symbol!r} is no symbol")


def check_time(*times: Timestamp) -> None:
    """Raise ValueError for times outside the years 1970 to 9999."""
    for time in times:
        if not 0 <= microseconds_of(time) < LATEST_US:
            raise ValueError(f"{time.seconds} s is out of the years 1970 to 9999")


def check_number(value: Decimal | int) -> None:
    """Raise ValueError for numbers that cannot be summed exactly."""
    number = Decimal(value)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or number.adjusted() >= MAX_DIGITS or exponent < -MAX_DIGITS:
        raise ValueError(f"{number} is no price, quantity or count")


def _bytes_of(message: Message) -> bytes:
    return bytes(message.SerializeToString())
