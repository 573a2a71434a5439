"""Payloads and REST rows of trades and klines, character by character."""

import numpy as np
import numpy.typing as npt
import pytest

from simulator.market.instruments import Instrument, select_instruments
from simulator.market.klines import Kline
from simulator.market.trades.columns import FillKind, TradeColumns
from simulator.wire.payloads import (
    agg_trade_rows,
    agg_trade_text,
    kline_payload,
    kline_row,
    trade_payloads,
    trade_rows,
)

(SPOT,) = select_instruments("spot", ["BTCUSDT"], seed=1)
(UM,) = select_instruments("um", ["BTCUSDT"], seed=1)
TIME_US = 1_723_161_256_313_000
EVENT_US = TIME_US + 1_000


def one(value: int) -> npt.NDArray[np.int64]:
    return np.array([value], dtype=np.int64)


def order(instrument: Instrument, tail: FillKind = FillKind.MARKET) -> TradeColumns:
    """One order with two ids, 100 and 101; its taker sold 1,000 and 2,000 units."""
    is_market = tail == FillKind.MARKET
    return TradeColumns(
        instrument=instrument,
        time_us=one(TIME_US),
        agg_id=one(7),
        first_id=one(100),
        slots=one(2),
        fills=one(2 if is_market else 1),
        tail_kind=one(tail),
        price=one(6180020),
        buyer_is_maker=np.array([True]),
        quantity=one(3_000 if is_market else 1_000),
        quote=one(0),
        slot_start=one(0),
        slot_quantity=np.array([1_000, 2_000]),
        slot_quote=np.array([618_002, 1_236_004]),
    )


def test_spot_agg_trade_has_the_unused_flag() -> None:
    assert agg_trade_text(order(SPOT))(0, EVENT_US, 1_000) == (
        '{"e":"aggTrade","E":1723161256314,"s":"BTCUSDT","a":7,"p":"61800.20000000",'
        '"q":"0.03000000","f":100,"l":101,"T":1723161256313,"m":true,"M":true}'
    )


def test_futures_agg_trade_has_the_quantity_without_rpi_orders() -> None:
    assert agg_trade_text(order(UM))(0, EVENT_US, 1_000) == (
        '{"e":"aggTrade","E":1723161256314,"a":7,"s":"BTCUSDT","p":"61800.20","q":"3.000",'
        '"f":100,"l":101,"T":1723161256313,"m":true,"nq":"3.000"}'
    )


def test_spot_sends_a_trade_for_each_fill() -> None:
    assert trade_payloads(order(SPOT), 0, event_us=EVENT_US, unit_us=1) == [
        (
            '{"e":"trade","E":1723161256314000,"s":"BTCUSDT","t":100,"p":"61800.20000000",'
            '"q":"0.01000000","T":1723161256313000,"m":true,"M":true}'
        ),
        (
            '{"e":"trade","E":1723161256314000,"s":"BTCUSDT","t":101,"p":"61800.20000000",'
            '"q":"0.02000000","T":1723161256313000,"m":true,"M":true}'
        ),
    ]


@pytest.mark.parametrize(
    ("kind", "second_fill"),
    [
        (FillKind.MARKET, '"p":"61800.20","q":"2.000","X":"MARKET"'),
        (FillKind.VOID, '"p":"0","q":"0","X":"NA"'),
        (FillKind.INSURANCE_FUND, '"p":"63036.20","q":"2.000","X":"INSURANCE_FUND"'),
        (FillKind.ADL, '"p":"60564.20","q":"2.000","X":"ADL"'),
        (FillKind.SKIPPED, None),
    ],
)
def test_futures_name_the_kind_of_each_fill(kind: FillKind, second_fill: str | None) -> None:
    trades = order(UM, kind)
    _, *others = trade_payloads(trades, 0, event_us=EVENT_US, unit_us=1_000)
    shown = [one[one.index('"p"') : one.index(',"m"')] for one in others]
    assert shown == ([] if second_fill is None else [second_fill])
    ids = [row["id"] for row in trade_rows(trades, unit_us=1_000)]
    assert ids == ([100, 101] if kind == FillKind.MARKET else [100]), "REST has market trades only"


def test_rest_rows_have_the_unit_of_the_request() -> None:
    (agg_trade,) = agg_trade_rows(order(SPOT), unit_us=1)
    assert agg_trade == {
        "a": 7, "p": "61800.20000000", "q": "0.03000000", "f": 100, "l": 101,
        "T": TIME_US, "m": True, "M": True,
    }  # fmt: skip
    trade, _ = trade_rows(order(UM), unit_us=1_000)
    assert trade == {
        "id": 100, "price": "61800.20", "qty": "1.000", "quoteQty": UM.format_quote(618_002),
        "time": TIME_US // 1_000, "isBuyerMaker": True,
    }  # fmt: skip


def test_kline_has_the_same_values_in_stream_and_rest() -> None:
    kline = Kline(
        open_time_us=TIME_US, close_time_us=TIME_US + 59_999_999, open=6180020, high=6180030,
        low=6180010, close=6180020, volume=3_000, quote_volume=0, trade_count=2,
        taker_buy_volume=0, taker_buy_quote_volume=0, first_id=100, last_id=101,
    )  # fmt: skip
    zero = SPOT.format_quote(0)
    assert kline_row(SPOT, kline, unit_us=1_000) == [
        1723161256313, "61800.20000000", "61800.30000000", "61800.10000000", "61800.20000000",
        "0.03000000", 1723161316312, zero, 2, "0.00000000", zero, "0",
    ]  # fmt: skip
    payload = kline_payload(
        SPOT, kline, interval="1m", is_closed=True, event_us=EVENT_US, unit_us=1_000
    )
    assert payload == (
        '{"e":"kline","E":1723161256314,"s":"BTCUSDT","k":{"t":1723161256313,"T":1723161316312,'
        '"s":"BTCUSDT","i":"1m","f":100,"L":101,"o":"61800.20000000","c":"61800.20000000",'
        '"h":"61800.30000000","l":"61800.10000000","v":"0.03000000","n":2,"x":true,'
        f'"q":"{zero}","V":"0.00000000","Q":"{zero}","B":"0"}}}}'
    )
