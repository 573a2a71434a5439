"""Stream payloads of rolling-window statistics."""

from simulator.market.book.book import BookTicker
from simulator.market.history import History
from simulator.market.instruments import SPOT_DECIMALS, decimal_formatter
from simulator.market.rolling import (
    AVERAGE_PRICE_MINUTES,
    LastTrade,
    WindowStats,
    percent_change,
    weighted_price,
)
from simulator.wire.payloads import pair_field


def signed(value: int, decimals: int, shown: int) -> str:
    """Format an integer of 10^-`decimals` that may be negative, with `shown` digits."""
    text = decimal_formatter(decimals, shown)(abs(value))
    return f"-{text}" if value < 0 else text


def mini_ticker_payload(
    history: History, stats: WindowStats, *, event_us: int, unit_us: int
) -> str:
    """Return the `24hrMiniTicker` payload."""
    instrument = history.instrument
    price = instrument.format_price
    return (
        f'{{"e":"24hrMiniTicker","E":{event_us // unit_us},"s":"{instrument.symbol}",'
        f'{pair_field(instrument)}"c":"{price(stats.last)}","o":"{price(stats.open)}","h":"{price(stats.high)}",'
        f'"l":"{price(stats.low)}","v":"{instrument.format_quantity(stats.volume)}",'
        f'"q":"{instrument.format_quote(stats.quote_volume)}"}}'
    )


def window_ticker_payload(
    history: History, stats: WindowStats, window: str, *, event_us: int, unit_us: int
) -> str:
    """Return the `1hTicker`, `4hTicker` or `1dTicker` payload."""
    price = history.instrument.format_price
    return (
        f'{{"e":"{window}Ticker","E":{event_us // unit_us},"s":"{history.instrument.symbol}",'
        f"{_change(history, stats)},"
        f'"o":"{price(stats.open)}","h":"{price(stats.high)}","l":"{price(stats.low)}",'
        f'"c":"{price(stats.last)}","w":"{_weighted(history, stats)}",'
        f"{_totals(history, stats, unit_us)}}}"
    )


def ticker_payload(
    history: History,
    stats: WindowStats,
    last: LastTrade,
    best: BookTicker,
    *,
    event_us: int,
    unit_us: int,
) -> str:
    """Return the `24hrTicker` payload; futures have no previous close and no book ticker."""
    instrument = history.instrument
    price, quantity = instrument.format_price, instrument.format_quantity
    before = book = ""
    if instrument.market == "spot":
        before = f'"x":"{price(stats.previous_close)}",'
        book = (
            f'"b":"{price(best.bid)}","B":"{quantity(best.bid_quantity)}",'
            f'"a":"{price(best.ask)}","A":"{quantity(best.ask_quantity)}",'
        )
    return (
        f'{{"e":"24hrTicker","E":{event_us // unit_us},"s":"{instrument.symbol}",'
        f"{pair_field(instrument)}{_change(history, stats)},"
        f'"w":"{_weighted(history, stats)}",{before}'
        f'"c":"{price(stats.last)}","Q":"{quantity(last.quantity)}",{book}'
        f'"o":"{price(stats.open)}","h":"{price(stats.high)}","l":"{price(stats.low)}",'
        f"{_totals(history, stats, unit_us)}}}"
    )


def average_price_payload(
    history: History, stats: WindowStats, last: LastTrade, *, event_us: int, unit_us: int
) -> str:
    """Return the `avgPrice` payload."""
    return (
        f'{{"e":"avgPrice","E":{event_us // unit_us},"s":"{history.instrument.symbol}",'
        f'"i":"{AVERAGE_PRICE_MINUTES}m","w":"{_weighted(history, stats)}",'
        f'"T":{last.time_us // unit_us}}}'
    )


def _change(history: History, stats: WindowStats) -> str:
    decimals = history.instrument.price_decimals
    shown = SPOT_DECIMALS if history.instrument.market == "spot" else decimals
    change = signed(stats.last - stats.open, decimals, shown)
    return f'"p":"{change}","P":"{signed(percent_change(stats), 3, 3)}"'


def _weighted(history: History, stats: WindowStats) -> str:
    instrument = history.instrument
    decimals = SPOT_DECIMALS if instrument.market == "spot" else instrument.price_decimals
    mean = weighted_price(history, stats, decimals=decimals)
    return decimal_formatter(decimals, decimals)(mean)


def _totals(history: History, stats: WindowStats, unit_us: int) -> str:
    instrument = history.instrument
    return (
        f'"v":"{instrument.format_quantity(stats.volume)}",'
        f'"q":"{instrument.format_quote(stats.quote_volume)}",'
        f'"O":{stats.open_us // unit_us},"C":{stats.close_us // unit_us},'
        f'"F":{stats.first_id},"L":{stats.last_id},"n":{stats.trade_count}'
    )
