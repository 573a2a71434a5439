"""Order books of REST: `depth`, and all levels at an update id for the oracle."""

from typing import Any

from simulator.market.book.book import BookSnapshot
from simulator.market.instruments import Instrument
from simulator.market.market import SimulatedMarket
from simulator.wire.payloads import US_PER_MS

Row = dict[str, Any]

_CHEAP_LEVELS = 100  # up to here only the top of the book is computed


def depth(market: SimulatedMarket, symbol: str, *, now_us: int, limit: int) -> Row:
    """Return the best `limit` levels of each side, as of the last step of the book."""
    book = market.book(symbol)
    instrument = market.instrument(symbol)
    if limit <= _CHEAP_LEVELS:
        state = book.top(book.step_at(now_us), limit)
    else:
        state = book.book_at(now_us)
    row = _levels(instrument, state, limit)
    if instrument.market == "spot":
        return row
    times = {"E": now_us // US_PER_MS, "T": state.time_us // US_PER_MS}
    return {"lastUpdateId": row.pop("lastUpdateId")} | times | row


def depth_at(market: SimulatedMarket, symbol: str, update_id: int) -> Row:
    """Return all levels as of the step with an update id, to check a client's local book."""
    book = market.book(symbol)
    state = book.state(book.step_of(update_id))
    return _levels(market.instrument(symbol), state, None)


def _levels(instrument: Instrument, state: BookSnapshot, limit: int | None) -> Row:
    price, quantity = instrument.format_price, instrument.format_quantity
    sides = {
        name: [[price(cost), quantity(amount)] for cost, amount in side[:limit].tolist()]
        for name, side in (("bids", state.bids), ("asks", state.asks))
    }
    return {"lastUpdateId": state.update_id} | sides
