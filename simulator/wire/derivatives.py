"""Texts of futures alone: mark prices, liquidations, price klines, funding and open interest."""

from typing import Any

import msgspec

from simulator.market.derivatives.funding import Settlement
from simulator.market.derivatives.liquidations import Liquidation
from simulator.market.derivatives.price_klines import PriceKline, PriceName
from simulator.market.derivatives.prices import MARK_DECIMALS
from simulator.market.derivatives.series import FundingInfo, MarkPrice
from simulator.market.instruments import Instrument
from simulator.wire.payloads import US_PER_MS
from simulator.wire.tickers import signed

Row = dict[str, Any]

_INTEREST_RATE = "0.00010000"


def price_text(value: int) -> str:
    """Return a price or rate of 10^-8 with all its decimals."""
    return signed(value, MARK_DECIMALS, MARK_DECIMALS)


def _rate_text(rate: int | None) -> str:
    return "" if rate is None else price_text(rate)


def symbol_fields(instrument: Instrument) -> Row:
    """Return the symbol; on COIN-M also its pair."""
    row: Row = {"symbol": instrument.symbol}
    return row | {"pair": instrument.pair} if instrument.market == "cm" else row


def mark_price_payload(instrument: Instrument, mark: MarkPrice, *, event_us: int) -> str:
    """Return the `markPriceUpdate` payload. A dated contract has no funding."""
    text = price_text
    return (
        f'{{"e":"markPriceUpdate","E":{event_us // US_PER_MS},"s":"{instrument.symbol}",'
        f'"p":"{text(mark.mark)}","ap":"{text(mark.average)}","P":"{text(mark.settle)}","i":"{text(mark.index_price)}",'
        f'"r":"{_rate_text(mark.funding_rate)}","T":{(mark.next_funding_us or 0) // US_PER_MS}}}'
    )


def premium_index_row(instrument: Instrument, mark: MarkPrice) -> Row:
    """Return a row of `premiumIndex`."""
    return symbol_fields(instrument) | {
        "markPrice": price_text(mark.mark),
        "indexPrice": price_text(mark.index_price),
        "estimatedSettlePrice": price_text(mark.settle),
        "lastFundingRate": _rate_text(mark.funding_rate),
        "interestRate": "" if mark.funding_rate is None else _INTEREST_RATE,
        "nextFundingTime": (mark.next_funding_us or 0) // US_PER_MS,
        "time": mark.time_us // US_PER_MS,
    }


def force_order_row(instrument: Instrument, order: Liquidation) -> Row:
    """Return the field `o` of a `forceOrder` payload; on USD-M with the fields of 2026."""
    price, quantity = instrument.format_price, instrument.format_quantity
    is_cm = instrument.market == "cm"
    return {
        "s": instrument.symbol,
        **({"ps": instrument.pair} if is_cm else {}),
        "S": "SELL" if order.is_sell else "BUY",
        "o": "LIMIT",
        "f": "IOC",
        "q": quantity(order.quantity),
        "p": price(order.bankruptcy_price),
        "ap": price(order.average_price),
        "X": "FILLED",
        "l": quantity(order.last_quantity),
        "z": quantity(order.quantity),
        "T": order.time_us // US_PER_MS,
        **({} if is_cm else {"ps": instrument.symbol, "st": 1}),
    }


def force_order_payload(instrument: Instrument, order: Liquidation, *, event_us: int) -> str:
    """Return the `forceOrder` payload."""
    row = force_order_row(instrument, order)
    event = {"e": "forceOrder", "E": event_us // US_PER_MS, "o": row}
    return msgspec.json.encode(event).decode()


def price_kline_row(kline: PriceKline) -> list[int | str]:
    """Return a row of `markPriceKlines`, `indexPriceKlines` or `premiumIndexKlines`."""
    return [
        kline.open_time_us // US_PER_MS,
        price_text(kline.open),
        price_text(kline.high),
        price_text(kline.low),
        price_text(kline.close),
        "0",
        kline.close_time_us // US_PER_MS,
        "0",
        kline.value_count,
        "0",
        "0",
        "0",
    ]


def price_kline_payload(
    instrument: Instrument,
    price: PriceName,
    kline: PriceKline,
    *,
    interval: str,
    last_us: int,
    event_us: int,
) -> str:
    """Return the `markPrice_kline` or `indexPrice_kline` payload of COIN-M.

    Args:
        last_us: time of the last value; the last microsecond of the kline if it is closed.
    """
    symbol = instrument.symbol if price == "mark" else "0"
    is_closed = "true" if last_us == kline.close_time_us else "false"
    open_ms = kline.open_time_us // US_PER_MS
    text = price_text
    return (
        f'{{"e":"{price}Price_kline","E":{event_us // US_PER_MS},"ps":"{instrument.pair}","k":{{'
        f'"t":{open_ms},"T":{kline.close_time_us // US_PER_MS},"s":"{symbol}","i":"{interval}",'
        f'"f":{open_ms},"L":{last_us // US_PER_MS},"o":"{text(kline.open)}",'
        f'"c":"{text(kline.close)}","h":"{text(kline.high)}","l":"{text(kline.low)}","v":"0",'
        f'"n":{kline.value_count},"x":{is_closed},"q":"0","V":"0","Q":"0","B":"0"}}}}'
    )


def index_price_payload(pair: str, price: int, *, event_us: int) -> str:
    """Return the `indexPriceUpdate` payload of COIN-M."""
    return (
        f'{{"e":"indexPriceUpdate","E":{event_us // US_PER_MS},"i":"{pair}",'
        f'"p":"{price_text(price)}"}}'
    )


def funding_rate_row(symbol: str, settlement: Settlement, mark: int) -> Row:
    """Return a row of `fundingRate`."""
    return {
        "symbol": symbol,
        "fundingTime": settlement.time_us // US_PER_MS,
        "fundingRate": price_text(settlement.rate),
        "markPrice": price_text(mark),
    }


def funding_rate_line(settlement: Settlement) -> str:
    """Return a line of a `fundingRate` file."""
    return (
        f"{settlement.time_us // US_PER_MS},{settlement.interval_hours},"
        f"{price_text(settlement.rate)}\n"
    )


def funding_info_row(symbol: str, info: FundingInfo) -> Row:
    """Return a row of `fundingInfo`."""
    return {
        "symbol": symbol,
        "adjustedFundingRateCap": price_text(info.cap),
        "adjustedFundingRateFloor": price_text(-info.cap),
        "fundingIntervalHours": info.interval_hours,
        "disclaimer": False,
        "updateTime": info.updated_us // US_PER_MS,
    }
