from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as _market_data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishedCandles(_message.Message):
    __slots__ = ("streamer", "connection", "sequence", "total", "updates", "missed")
    STREAMER_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    streamer: str
    connection: int
    sequence: int
    total: int
    updates: _containers.RepeatedCompositeFieldContainer[_market_data_pb2.CandleUpdate]
    missed: _containers.RepeatedCompositeFieldContainer[_market_data_pb2.Missed]
    def __init__(self, streamer: _Optional[str] = ..., connection: _Optional[int] = ..., sequence: _Optional[int] = ..., total: _Optional[int] = ..., updates: _Optional[_Iterable[_Union[_market_data_pb2.CandleUpdate, _Mapping]]] = ..., missed: _Optional[_Iterable[_Union[_market_data_pb2.Missed, _Mapping]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("streamer", "connection", "totals", "streamed")
    class TotalsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    STREAMER_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    STREAMED_FIELD_NUMBER: _ClassVar[int]
    streamer: str
    connection: int
    totals: _containers.ScalarMap[str, int]
    streamed: _market_data_pb2.StreamedSymbols
    def __init__(self, streamer: _Optional[str] = ..., connection: _Optional[int] = ..., totals: _Optional[_Mapping[str, int]] = ..., streamed: _Optional[_Union[_market_data_pb2.StreamedSymbols, _Mapping]] = ...) -> None: ...

class States(_message.Message):
    __slots__ = ("streamer", "connection", "total", "part", "is_last", "updates")
    STREAMER_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    streamer: str
    connection: int
    total: int
    part: int
    is_last: bool
    updates: _containers.RepeatedCompositeFieldContainer[_market_data_pb2.CandleUpdate]
    def __init__(self, streamer: _Optional[str] = ..., connection: _Optional[int] = ..., total: _Optional[int] = ..., part: _Optional[int] = ..., is_last: _Optional[bool] = ..., updates: _Optional[_Iterable[_Union[_market_data_pb2.CandleUpdate, _Mapping]]] = ...) -> None: ...

class PublishedTrades(_message.Message):
    __slots__ = ("streamer", "connection", "sequence", "trades", "missed")
    STREAMER_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TRADES_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    streamer: str
    connection: int
    sequence: int
    trades: _containers.RepeatedCompositeFieldContainer[_market_data_pb2.Trade]
    missed: _containers.RepeatedCompositeFieldContainer[_market_data_pb2.MissedTrades]
    def __init__(self, streamer: _Optional[str] = ..., connection: _Optional[int] = ..., sequence: _Optional[int] = ..., trades: _Optional[_Iterable[_Union[_market_data_pb2.Trade, _Mapping]]] = ..., missed: _Optional[_Iterable[_Union[_market_data_pb2.MissedTrades, _Mapping]]] = ...) -> None: ...

class Wanted(_message.Message):
    __slots__ = ("server", "trades", "book_tickers")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    TRADES_FIELD_NUMBER: _ClassVar[int]
    BOOK_TICKERS_FIELD_NUMBER: _ClassVar[int]
    server: str
    trades: _containers.RepeatedScalarFieldContainer[str]
    book_tickers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, server: _Optional[str] = ..., trades: _Optional[_Iterable[str]] = ..., book_tickers: _Optional[_Iterable[str]] = ...) -> None: ...
