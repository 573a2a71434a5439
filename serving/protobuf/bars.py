"""Convert between domain values and messages of ``candelabra/v1/market_data.proto``."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp

from include.domain.candles import Candle, Source, Status
from include.domain.timeframes import SECOND_US
from include.store.candles.bars import StoredBar
from include.store.instruments import Listing
from serving.bars.subscription import BarUpdate, MissedBars
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb

STATUSES: dict[Status | None, pb.Status] = {
    None: pb.STATUS_UNSPECIFIED,
    Status.VERIFIED: pb.STATUS_VERIFIED,
    Status.UNCONFIRMED: pb.STATUS_UNCONFIRMED,
    Status.PARTIAL: pb.STATUS_PARTIAL,
}
_STATUS_OF = {value: status for status, value in STATUSES.items()}
EARLIEST_US = -62_135_596_800 * SECOND_US
"""The year 1: messages cannot represent earlier times."""
LATEST_US = 253_402_300_800 * SECOND_US
"""The year 10000: messages cannot represent times from here on."""


def plain(value: Decimal) -> str:
    """Format a decimal without an exponent: ``1E-8`` is ``0.00000001``."""
    return format(value, "f")


def time_of(moment_us: int) -> Timestamp:
    """Encode a time."""
    return Timestamp(seconds=moment_us // SECOND_US, nanos=moment_us % SECOND_US * 1_000)


def microseconds_of(time: Timestamp) -> int:
    """Decode a time to µs; nanoseconds are truncated."""
    return int(time.seconds) * SECOND_US + int(time.nanos) // 1_000


def streamed_of(symbols: Iterable[str] | None) -> pb.StreamedSymbols | None:
    """Encode the streamed symbols; None if they are not reported."""
    return None if symbols is None else pb.StreamedSymbols(symbols=sorted(symbols))


def streamed_in(message: pb.StreamCandlesResponse) -> frozenset[str] | None:
    """Decode the streamed symbols; None if the message has none."""
    return frozenset(message.streamed.symbols) if message.HasField("streamed") else None


def message_of(
    candle: Candle,
    timeframe: str,
    *,
    minute_count: int,
    is_closed: bool,
    status: Status | None,
    source: Source | None,
    has_quotes: bool = True,
) -> pb.Candle:
    """Encode a bar."""
    message = pb.Candle(
        symbol=candle.symbol,
        timeframe=timeframe,
        open_time=time_of(candle.open_time_us),
        open=plain(candle.open),
        high=plain(candle.high),
        low=plain(candle.low),
        close=plain(candle.close),
        volume=plain(candle.volume),
        trade_count=candle.trade_count,
        taker_buy_volume=plain(candle.taker_buy_volume),
        minute_count=minute_count,
        is_closed=is_closed,
        status=STATUSES[status],
        source="" if source is None else source.value,
    )
    if has_quotes:
        message.quote_volume = plain(candle.quote_volume)
        message.taker_buy_quote_volume = plain(candle.taker_buy_quote_volume)
    if candle.first_trade_id is not None:
        message.first_trade_id = candle.first_trade_id
    if candle.last_trade_id is not None:
        message.last_trade_id = candle.last_trade_id
    return message


def update_of(update: BarUpdate) -> pb.CandleUpdate:
    """Encode a live bar."""
    return pb.CandleUpdate(
        candle=message_of(
            update.candle,
            update.timeframe,
            minute_count=update.minute_count,
            is_closed=update.is_closed,
            status=update.status,
            source=update.source,
            has_quotes=update.has_quotes,
        ),
        is_revision=update.is_revision,
    )


def stored_of(bar: StoredBar, timeframe: str) -> pb.Candle:
    """Encode a stored bar."""
    return message_of(
        bar.candle,
        timeframe,
        minute_count=bar.minute_count,
        is_closed=bar.is_closed,
        status=bar.status,
        source=bar.source,
        has_quotes=bar.has_quotes,
    )


def missed_of(missed: MissedBars) -> pb.Missed:
    """Encode the missed minutes."""
    return pb.Missed(
        symbol=missed.symbol,
        timeframe=missed.timeframe,
        from_time=time_of(missed.start_us),
        to_time=time_of(missed.end_us),
    )


def bar_update_of(message: pb.CandleUpdate) -> BarUpdate:
    """Decode a bar.

    Raises:
        ValueError: its status or source is unknown. decimal.InvalidOperation: a value is not a
            number.
    """
    said = message.candle
    if said.status not in _STATUS_OF:
        raise ValueError(f"{said.status} is no status; should be one of {pb.Status.values()}")
    has_quotes = said.HasField("quote_volume")
    candle = Candle(
        said.symbol,
        microseconds_of(said.open_time),
        Decimal(said.open),
        Decimal(said.high),
        Decimal(said.low),
        Decimal(said.close),
        Decimal(said.volume),
        Decimal(said.quote_volume) if has_quotes else Decimal(0),
        said.trade_count,
        Decimal(said.taker_buy_volume),
        Decimal(said.taker_buy_quote_volume) if has_quotes else Decimal(0),
        said.first_trade_id if said.HasField("first_trade_id") else None,
        said.last_trade_id if said.HasField("last_trade_id") else None,
    )
    return BarUpdate(
        said.timeframe,
        candle,
        minute_count=said.minute_count,
        is_closed=said.is_closed,
        status=_STATUS_OF[said.status],
        source=Source(said.source) if said.source else None,
        is_revision=message.is_revision,
        has_quotes=has_quotes,
    )


def instrument_of(listing: Listing) -> pb.Instrument:
    """Encode a listing."""
    instrument = listing.instrument
    message = pb.Instrument(
        symbol=instrument.symbol,
        market=instrument.market.value,
        exchange_symbol=instrument.exchange_symbol,
        base_asset=instrument.base_asset,
        quote_asset=instrument.quote_asset,
        status=instrument.status,
        tick_size=plain(instrument.tick_size),
        step_size=plain(instrument.step_size),
        listed_from=time_of(listing.listed_from_us),
    )
    if listing.listed_to_us is not None:
        message.listed_to.CopyFrom(time_of(listing.listed_to_us))
    return message
