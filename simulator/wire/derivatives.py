"""Stream payloads of the futures alone: mark prices and liquidations; times in ms."""

from simulator.market.derivatives import MARK_DECIMALS, Liquidation, MarkPrice
from simulator.market.instruments import Instrument
from simulator.wire.payloads import US_PER_MS, pair_field
from simulator.wire.tickers import signed


def mark_price_payload(instrument: Instrument, mark: MarkPrice, *, event_us: int) -> str:
    """Return the `markPriceUpdate` payload. A dated contract has no funding."""

    def text(value: int) -> str:
        return signed(value, MARK_DECIMALS, MARK_DECIMALS)

    rate, funding_ms = text(mark.funding_rate), mark.next_funding_us // US_PER_MS
    if instrument.is_dated:
        rate, funding_ms = "", 0
    return (
        f'{{"e":"markPriceUpdate","E":{event_us // US_PER_MS},"s":"{instrument.symbol}",'
        f'"p":"{text(mark.mark)}","ap":"{text(mark.average)}","P":"{text(mark.settle)}","i":"{text(mark.index_price)}",'
        f'"r":"{rate}","T":{funding_ms}}}'
    )


def force_order_payload(instrument: Instrument, order: Liquidation, *, event_us: int) -> str:
    """Return the `forceOrder` payload; on USD-M with the fields of 2026 (`ps`, `st`)."""
    price, quantity = instrument.format_price, instrument.format_quantity
    amount = quantity(order.quantity)
    last = f',"ps":"{instrument.symbol}","st":1' if instrument.market == "um" else ""
    side = "SELL" if order.is_sell else "BUY"
    return (
        f'{{"e":"forceOrder","E":{event_us // US_PER_MS},"o":{{"s":"{instrument.symbol}",'
        f'{pair_field(instrument)}"S":"{side}","o":"LIMIT","f":"IOC","q":"{amount}",'
        f'"p":"{price(order.bankruptcy_price)}","ap":"{price(order.average_price)}",'
        f'"X":"FILLED","l":"{quantity(order.last_quantity)}","z":"{amount}",'
        f'"T":{order.time_us // US_PER_MS}{last}}}}}'
    )
