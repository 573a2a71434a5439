"""Trades of one symbol as columns, one row for each taker order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from simulator.market.instruments import Instrument
from simulator.market.noise import IntArray

BoolArray = npt.NDArray[np.bool_]


class FillKind(IntEnum):
    """Kind of an order's further fills; its first fill is always a market trade.

    Klines, statistics, aggTrades and REST count market trades alone.
    """

    MARKET = 0
    SKIPPED = 1
    VOID = 2
    INSURANCE_FUND = 3
    ADL = 4


@dataclass(frozen=True, slots=True)
class TradeColumns:
    """Orders of consecutive minutes, one row per order; prices and quantities in units.

    Attributes:
        time_us: trade time; ascending.
        first_id: id of the first fill; the order has ids `first_id … first_id + slots - 1`.
        fills: number of market trades (`f … l` of the aggTrade).
        quantity, quote: sums over the market trades.
        slot_start: row of `slot_quantity`/`slot_quote` where the order's fills start.
    """

    instrument: Instrument
    time_us: IntArray
    agg_id: IntArray
    first_id: IntArray
    slots: IntArray
    fills: IntArray
    tail_kind: IntArray
    price: IntArray
    buyer_is_maker: BoolArray
    quantity: IntArray
    quote: IntArray
    slot_start: IntArray
    slot_quantity: IntArray
    slot_quote: IntArray

    def __len__(self) -> int:
        return len(self.time_us)

    @property
    def last_id(self) -> IntArray:
        """Highest id of each order's market trades."""
        return self.first_id + self.fills - 1

    def between(self, start: int, stop: int) -> "TradeColumns":
        """Return orders `start … stop - 1`; the fills are shared, not copied."""
        if start == 0 and stop == len(self):
            return self
        rows = slice(start, stop)
        return TradeColumns(
            self.instrument, self.time_us[rows], self.agg_id[rows], self.first_id[rows],
            self.slots[rows], self.fills[rows], self.tail_kind[rows], self.price[rows],
            self.buyer_is_maker[rows], self.quantity[rows], self.quote[rows],
            self.slot_start[rows], self.slot_quantity, self.slot_quote,
        )  # fmt: skip

    def until(self, time_us: int) -> "TradeColumns":
        """Return orders with a trade time of at most `time_us`."""
        return self.between(0, int(np.searchsorted(self.time_us, time_us, side="right")))


def select(trades: TradeColumns, mask: npt.NDArray[np.bool_]) -> TradeColumns:
    """Return the orders in a mask; `trades` must have all its fills. Ids keep their gaps."""
    slots = trades.slots[mask]
    kept_fills = np.repeat(mask, trades.slots)
    return TradeColumns(
        trades.instrument, trades.time_us[mask], trades.agg_id[mask], trades.first_id[mask], slots,
        trades.fills[mask], trades.tail_kind[mask], trades.price[mask], trades.buyer_is_maker[mask],
        trades.quantity[mask], trades.quote[mask], np.cumsum(slots) - slots,
        trades.slot_quantity[kept_fills], trades.slot_quote[kept_fills],
    )  # fmt: skip


def renumber(trades: TradeColumns, first_agg_id: int, first_id: int) -> TradeColumns:
    """Return the same trades with consecutive ids from the given ones on."""
    return replace(
        trades,
        agg_id=first_agg_id + np.arange(len(trades), dtype=np.int64),
        first_id=first_id + np.cumsum(trades.slots) - trades.slots,
    )


def join_trades(parts: Sequence[TradeColumns]) -> TradeColumns:
    """Concatenate trades; each part must have all its fills."""
    if len(parts) == 1:
        return parts[0]
    fills_before = np.cumsum([0, *(len(part.slot_quantity) for part in parts[:-1])])
    moved = [
        replace(part, slot_start=part.slot_start + before)
        for part, before in zip(parts, fills_before.tolist(), strict=True)
    ]
    names = [name for name in TradeColumns.__dataclass_fields__ if name != "instrument"]
    columns = {name: np.concatenate([getattr(part, name) for part in moved]) for name in names}
    return TradeColumns(instrument=parts[-1].instrument, **columns)
