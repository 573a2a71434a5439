"""Messages say what the values are, to the last digit."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from include.domain.candles import Candle, Source, Status
from include.domain.instruments import Instrument, Market
from include.store.candles.bars import StoredBar
from include.store.instruments import Listing
from serving.bars.subscription import BarUpdate, MissedBars
from serving.protobuf.bars import (
    EARLIEST_US,
    LATEST_US,
    bar_update_of,
    instrument_of,
    microseconds_of,
    missed_of,
    plain,
    stored_of,
    streamed_in,
    streamed_of,
    time_of,
    update_of,
)
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb

CANDLE = Candle(
    "BTCUSDT", 1_700_000_040_000_000, Decimal("1E-8"), Decimal("1E+3"), Decimal("1E-8"),
    Decimal("12.50"), Decimal("0.10000000"), Decimal("1.25"), 7, Decimal(0), Decimal(0), 3, 9,
)  # fmt: skip


@given(some.integers(EARLIEST_US, LATEST_US - 1))
def test_times_keep_their_microseconds(moment_us: int) -> None:
    assert microseconds_of(time_of(moment_us)) == moment_us


def test_decimals_have_no_exponent_and_keep_their_digits() -> None:
    message = update_of(BarUpdate("5m", CANDLE, minute_count=3)).candle
    assert (message.open, message.high, message.close) == ("0.00000001", "1000", "12.50")
    assert plain(Decimal("0E-8")) == "0.00000000"


@pytest.mark.parametrize(
    "update",
    [
        BarUpdate("1m", CANDLE, status=Status.VERIFIED, source=Source.KLINE, is_closed=True),
        BarUpdate("1M", CANDLE, minute_count=44_640, is_revision=True),
        BarUpdate("1m", replace(CANDLE, first_trade_id=None, last_trade_id=None)),
        BarUpdate("1m", CANDLE, status=Status.PARTIAL, source=Source.STREAM, is_closed=True),
    ],
)
def test_bar_round_trips_through_its_message(update: BarUpdate) -> None:
    sent = pb.CandleUpdate.FromString(update_of(update).SerializeToString())
    assert bar_update_of(sent) == update


def test_unknown_quote_volumes_are_absent() -> None:
    message = update_of(BarUpdate("1m", CANDLE, has_quotes=False))
    assert not message.candle.HasField("quote_volume")
    assert not message.candle.HasField("taker_buy_quote_volume")
    back = bar_update_of(message)
    assert (back.has_quotes, back.candle.quote_volume) == (False, 0)


def test_stored_bar_has_status_and_source() -> None:
    bar = StoredBar(CANDLE, minute_count=1, status=Status.UNCONFIRMED, source=Source.STREAM)
    message = stored_of(bar, "1m")
    assert (message.status, message.source) == (pb.STATUS_UNCONFIRMED, "stream")
    assert stored_of(StoredBar(CANDLE, 5), "5m").source == ""


def test_missed_range_has_bounds() -> None:
    message = missed_of(MissedBars("BTCUSDT", "5m", 1_000_000, 2_000_000))
    assert (message.from_time.seconds, message.to_time.seconds) == (1, 2)


def test_listing_without_end_has_no_end_field() -> None:
    instrument = Instrument(
        "BTCUSDT.P", Market.UM, "BTC", "USDT", "TRADING", Decimal("0.10"), Decimal("0.001")
    )
    message = instrument_of(Listing(instrument, 5_000_000, None))
    assert (message.exchange_symbol, message.market, message.tick_size) == ("BTCUSDT", "um", "0.10")
    assert not message.HasField("listed_to")
    assert instrument_of(Listing(instrument, 0, 7_000_000)).listed_to.seconds == 7


def test_empty_list_of_streamed_symbols_differs_from_no_list() -> None:
    silent = pb.StreamCandlesResponse(streamed=streamed_of(None))
    assert streamed_in(pb.StreamCandlesResponse.FromString(silent.SerializeToString())) is None
    none = pb.StreamCandlesResponse(streamed=streamed_of(()))
    assert streamed_in(pb.StreamCandlesResponse.FromString(none.SerializeToString())) == frozenset()
    two = streamed_of({"ETHUSDT.P", "BTCUSDT"})
    assert two is not None
    assert list(two.symbols) == ["BTCUSDT", "ETHUSDT.P"]
    assert streamed_in(pb.StreamCandlesResponse(streamed=two)) == {"BTCUSDT", "ETHUSDT.P"}
