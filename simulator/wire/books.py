"""Stream payloads of order books: book tickers, partial depth, diff depth."""

from simulator.market.book.book import BookDiff, BookSnapshot, BookTicker
from simulator.market.instruments import Instrument
from simulator.market.noise import IntArray
from simulator.wire.payloads import pair_field


def levels_text(instrument: Instrument, levels: IntArray) -> str:
    """Return rows of (price, quantity) as the exchange's array of string pairs."""
    price, quantity = instrument.format_price, instrument.format_quantity
    pairs = [f'["{price(cost)}","{quantity(amount)}"]' for cost, amount in levels.tolist()]
    return f"[{','.join(pairs)}]"


def book_ticker_payload(
    instrument: Instrument, best: BookTicker, *, event_us: int, unit_us: int
) -> str:
    """Return the `bookTicker` payload; spot has neither event type nor time."""
    price, quantity = instrument.format_price, instrument.format_quantity
    prices = (
        f'"b":"{price(best.bid)}","B":"{quantity(best.bid_quantity)}",'
        f'"a":"{price(best.ask)}","A":"{quantity(best.ask_quantity)}"'
    )
    name = f'"s":"{instrument.symbol}",{pair_field(instrument)}'
    if instrument.market == "spot":
        return f'{{"u":{best.update_id},{name}{prices}}}'
    times = f'"T":{best.time_us // unit_us},"E":{event_us // unit_us}'
    head = f'"e":"bookTicker","u":{best.update_id}'
    if instrument.market == "cm":
        head = f'"u":{best.update_id},"e":"bookTicker"'
    return f"{{{head},{name}{prices},{times}}}"


def depth_update_payload(
    instrument: Instrument, change: BookDiff, *, event_us: int, unit_us: int
) -> str:
    """Return the `depthUpdate` payload of a diff depth; futures list bids from the lowest."""
    bids = change.bids if instrument.market == "spot" else change.bids[::-1]
    head = _depth_head(
        instrument,
        (change.previous_update_id, change.first_update_id, change.last_update_id),
        time_us=change.time_us,
        event_us=event_us,
        unit_us=unit_us,
    )
    asks = levels_text(instrument, change.asks)
    return f'{head},"b":{levels_text(instrument, bids)},"a":{asks}}}'


def partial_depth_payload(
    instrument: Instrument,
    top: BookSnapshot,
    update_ids: tuple[int, int, int],
    *,
    event_us: int,
    unit_us: int,
) -> str:
    """Return the payload of a partial depth stream: the best levels, best first.

    Args:
        update_ids: last id before the frame's period, first and last id in it.
    """
    bids, asks = levels_text(instrument, top.bids), levels_text(instrument, top.asks)
    if instrument.market == "spot":
        return f'{{"lastUpdateId":{top.update_id},"bids":{bids},"asks":{asks}}}'
    head = _depth_head(
        instrument, update_ids, time_us=top.time_us, event_us=event_us, unit_us=unit_us
    )
    return f'{head},"b":{bids},"a":{asks}}}'


def _depth_head(
    instrument: Instrument,
    update_ids: tuple[int, int, int],
    *,
    time_us: int,
    event_us: int,
    unit_us: int,
) -> str:
    previous, first, last = update_ids
    event, symbol = event_us // unit_us, instrument.symbol
    if instrument.market == "spot":
        return f'{{"e":"depthUpdate","E":{event},"s":"{symbol}","U":{first},"u":{last}'
    return (
        f'{{"e":"depthUpdate","E":{event},"T":{time_us // unit_us},"s":"{symbol}",'
        f'{pair_field(instrument)}"U":{first},"u":{last},"pu":{previous}'
    )
