import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STATUS_VERIFIED: _ClassVar[Status]
    STATUS_UNCONFIRMED: _ClassVar[Status]
    STATUS_PARTIAL: _ClassVar[Status]
STATUS_UNSPECIFIED: Status
STATUS_VERIFIED: Status
STATUS_UNCONFIRMED: Status
STATUS_PARTIAL: Status

class StreamCandlesRequest(_message.Message):
    __slots__ = ("symbols", "timeframes", "closed_only", "resume_from")
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    TIMEFRAMES_FIELD_NUMBER: _ClassVar[int]
    CLOSED_ONLY_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    timeframes: _containers.RepeatedScalarFieldContainer[str]
    closed_only: bool
    resume_from: _timestamp_pb2.Timestamp
    def __init__(self, symbols: _Optional[_Iterable[str]] = ..., timeframes: _Optional[_Iterable[str]] = ..., closed_only: _Optional[bool] = ..., resume_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamCandlesResponse(_message.Message):
    __slots__ = ("updates", "missed", "is_snapshot_end", "streamed")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    IS_SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    STREAMED_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.RepeatedCompositeFieldContainer[CandleUpdate]
    missed: _containers.RepeatedCompositeFieldContainer[Missed]
    is_snapshot_end: bool
    streamed: StreamedSymbols
    def __init__(self, updates: _Optional[_Iterable[_Union[CandleUpdate, _Mapping]]] = ..., missed: _Optional[_Iterable[_Union[Missed, _Mapping]]] = ..., is_snapshot_end: _Optional[bool] = ..., streamed: _Optional[_Union[StreamedSymbols, _Mapping]] = ...) -> None: ...

class StreamedSymbols(_message.Message):
    __slots__ = ("symbols",)
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, symbols: _Optional[_Iterable[str]] = ...) -> None: ...

class CandleUpdate(_message.Message):
    __slots__ = ("candle", "is_revision")
    CANDLE_FIELD_NUMBER: _ClassVar[int]
    IS_REVISION_FIELD_NUMBER: _ClassVar[int]
    candle: Candle
    is_revision: bool
    def __init__(self, candle: _Optional[_Union[Candle, _Mapping]] = ..., is_revision: _Optional[bool] = ...) -> None: ...

class Missed(_message.Message):
    __slots__ = ("symbol", "timeframe", "from_time", "to_time")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    FROM_TIME_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    timeframe: str
    from_time: _timestamp_pb2.Timestamp
    to_time: _timestamp_pb2.Timestamp
    def __init__(self, symbol: _Optional[str] = ..., timeframe: _Optional[str] = ..., from_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., to_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamTradesRequest(_message.Message):
    __slots__ = ("symbols",)
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, symbols: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamTradesResponse(_message.Message):
    __slots__ = ("trades", "missed", "not_streamed")
    TRADES_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    NOT_STREAMED_FIELD_NUMBER: _ClassVar[int]
    trades: _containers.RepeatedCompositeFieldContainer[Trade]
    missed: _containers.RepeatedCompositeFieldContainer[MissedTrades]
    not_streamed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, trades: _Optional[_Iterable[_Union[Trade, _Mapping]]] = ..., missed: _Optional[_Iterable[_Union[MissedTrades, _Mapping]]] = ..., not_streamed: _Optional[_Iterable[str]] = ...) -> None: ...

class Trade(_message.Message):
    __slots__ = ("symbol", "id", "price", "quantity", "time", "is_buyer_maker", "first_trade_id", "last_trade_id")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    IS_BUYER_MAKER_FIELD_NUMBER: _ClassVar[int]
    FIRST_TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    id: int
    price: str
    quantity: str
    time: _timestamp_pb2.Timestamp
    is_buyer_maker: bool
    first_trade_id: int
    last_trade_id: int
    def __init__(self, symbol: _Optional[str] = ..., id: _Optional[int] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., is_buyer_maker: _Optional[bool] = ..., first_trade_id: _Optional[int] = ..., last_trade_id: _Optional[int] = ...) -> None: ...

class MissedTrades(_message.Message):
    __slots__ = ("symbol", "first_id", "last_id", "from_time", "to_time")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    FIRST_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_TIME_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    first_id: int
    last_id: int
    from_time: _timestamp_pb2.Timestamp
    to_time: _timestamp_pb2.Timestamp
    def __init__(self, symbol: _Optional[str] = ..., first_id: _Optional[int] = ..., last_id: _Optional[int] = ..., from_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., to_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamBookTickersRequest(_message.Message):
    __slots__ = ("symbols",)
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    symbols: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, symbols: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamBookTickersResponse(_message.Message):
    __slots__ = ("book_tickers", "not_streamed")
    BOOK_TICKERS_FIELD_NUMBER: _ClassVar[int]
    NOT_STREAMED_FIELD_NUMBER: _ClassVar[int]
    book_tickers: _containers.RepeatedCompositeFieldContainer[BookTicker]
    not_streamed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, book_tickers: _Optional[_Iterable[_Union[BookTicker, _Mapping]]] = ..., not_streamed: _Optional[_Iterable[str]] = ...) -> None: ...

class BookTicker(_message.Message):
    __slots__ = ("symbol", "update_id", "bid_price", "bid_quantity", "ask_price", "ask_quantity", "event_time", "received_time")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    BID_PRICE_FIELD_NUMBER: _ClassVar[int]
    BID_QUANTITY_FIELD_NUMBER: _ClassVar[int]
    ASK_PRICE_FIELD_NUMBER: _ClassVar[int]
    ASK_QUANTITY_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    update_id: int
    bid_price: str
    bid_quantity: str
    ask_price: str
    ask_quantity: str
    event_time: _timestamp_pb2.Timestamp
    received_time: _timestamp_pb2.Timestamp
    def __init__(self, symbol: _Optional[str] = ..., update_id: _Optional[int] = ..., bid_price: _Optional[str] = ..., bid_quantity: _Optional[str] = ..., ask_price: _Optional[str] = ..., ask_quantity: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., received_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Candle(_message.Message):
    __slots__ = ("symbol", "timeframe", "open_time", "open", "high", "low", "close", "volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id", "last_trade_id", "minute_count", "is_closed", "status", "source")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    OPEN_TIME_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    QUOTE_VOLUME_FIELD_NUMBER: _ClassVar[int]
    TRADE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TAKER_BUY_VOLUME_FIELD_NUMBER: _ClassVar[int]
    TAKER_BUY_QUOTE_VOLUME_FIELD_NUMBER: _ClassVar[int]
    FIRST_TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_TRADE_ID_FIELD_NUMBER: _ClassVar[int]
    MINUTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_CLOSED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    timeframe: str
    open_time: _timestamp_pb2.Timestamp
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trade_count: int
    taker_buy_volume: str
    taker_buy_quote_volume: str
    first_trade_id: int
    last_trade_id: int
    minute_count: int
    is_closed: bool
    status: Status
    source: str
    def __init__(self, symbol: _Optional[str] = ..., timeframe: _Optional[str] = ..., open_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., open: _Optional[str] = ..., high: _Optional[str] = ..., low: _Optional[str] = ..., close: _Optional[str] = ..., volume: _Optional[str] = ..., quote_volume: _Optional[str] = ..., trade_count: _Optional[int] = ..., taker_buy_volume: _Optional[str] = ..., taker_buy_quote_volume: _Optional[str] = ..., first_trade_id: _Optional[int] = ..., last_trade_id: _Optional[int] = ..., minute_count: _Optional[int] = ..., is_closed: _Optional[bool] = ..., status: _Optional[_Union[Status, str]] = ..., source: _Optional[str] = ...) -> None: ...

class ListCandlesRequest(_message.Message):
    __slots__ = ("symbol", "timeframe", "from_time", "to_time", "page_size", "page_token")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TIMEFRAME_FIELD_NUMBER: _ClassVar[int]
    FROM_TIME_FIELD_NUMBER: _ClassVar[int]
    TO_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    timeframe: str
    from_time: _timestamp_pb2.Timestamp
    to_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, symbol: _Optional[str] = ..., timeframe: _Optional[str] = ..., from_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., to_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCandlesResponse(_message.Message):
    __slots__ = ("candles", "next_page_token")
    CANDLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    candles: _containers.RepeatedCompositeFieldContainer[Candle]
    next_page_token: str
    def __init__(self, candles: _Optional[_Iterable[_Union[Candle, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListInstrumentsRequest(_message.Message):
    __slots__ = ("market", "include_delisted")
    MARKET_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DELISTED_FIELD_NUMBER: _ClassVar[int]
    market: str
    include_delisted: bool
    def __init__(self, market: _Optional[str] = ..., include_delisted: _Optional[bool] = ...) -> None: ...

class ListInstrumentsResponse(_message.Message):
    __slots__ = ("instruments",)
    INSTRUMENTS_FIELD_NUMBER: _ClassVar[int]
    instruments: _containers.RepeatedCompositeFieldContainer[Instrument]
    def __init__(self, instruments: _Optional[_Iterable[_Union[Instrument, _Mapping]]] = ...) -> None: ...

class Instrument(_message.Message):
    __slots__ = ("symbol", "market", "exchange_symbol", "base_asset", "quote_asset", "status", "tick_size", "step_size", "listed_from", "listed_to")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_SYMBOL_FIELD_NUMBER: _ClassVar[int]
    BASE_ASSET_FIELD_NUMBER: _ClassVar[int]
    QUOTE_ASSET_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TICK_SIZE_FIELD_NUMBER: _ClassVar[int]
    STEP_SIZE_FIELD_NUMBER: _ClassVar[int]
    LISTED_FROM_FIELD_NUMBER: _ClassVar[int]
    LISTED_TO_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    market: str
    exchange_symbol: str
    base_asset: str
    quote_asset: str
    status: str
    tick_size: str
    step_size: str
    listed_from: _timestamp_pb2.Timestamp
    listed_to: _timestamp_pb2.Timestamp
    def __init__(self, symbol: _Optional[str] = ..., market: _Optional[str] = ..., exchange_symbol: _Optional[str] = ..., base_asset: _Optional[str] = ..., quote_asset: _Optional[str] = ..., status: _Optional[str] = ..., tick_size: _Optional[str] = ..., step_size: _Optional[str] = ..., listed_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., listed_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
