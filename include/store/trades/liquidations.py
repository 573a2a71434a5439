"""Liquidations of futures: the value, its key and its line of COPY."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal

from include.store.trades.copy_text import moment_text

HASH_BITS = 21
"""Bits of ``liquidation_id`` below the order time. The exchange sends at most one liquidation a
second and symbol, so two different ones of the same millisecond are rare already."""
ID_COLUMN = "liquidation_id"
COLUMNS = (
    "symbol", "day", ID_COLUMN, "order_time", "event_time", "received_at", "side", "order_type",
    "time_in_force", "price", "average_price", "quantity", "last_filled_quantity",
    "accumulated_quantity", "order_status",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Liquidation:
    """A liquidation order as the exchange last reported it: one of a sample, never a total.

    Attributes:
        order_us: time of the order, by the exchange (µs).
        event_us: time of the message, by the exchange (µs).
        received_us: when the frame arrived, by the clock of the streaming machine (µs).
        side: ``SELL`` closes a long position, ``BUY`` a short one.
        price: limit of the order, which is the bankruptcy price of the position.
        average_price: of its fills so far.
        quantity: in the base asset; on COIN-M in contracts.
        last_filled_quantity: of its last fill.
        accumulated_quantity: of all fills so far.
    """

    symbol: str
    order_us: int
    event_us: int
    received_us: int
    side: str
    order_type: str
    time_in_force: str
    price: Decimal
    average_price: Decimal
    quantity: Decimal
    last_filled_quantity: Decimal
    accumulated_quantity: Decimal
    order_status: str

    @property
    def id(self) -> int:
        """Key within the symbol, made from the order: its time in ms, and a hash of the rest.

        The exchange sends no id. Two connections, two streamers or a replay deliver the same order
        at other times of receipt, and a stream of all symbols may send it at another event time, so
        neither is part of the key. An order that is reported again after a further fill differs in
        quantity or status; both reports are stored. Ids ascend with the order time.
        """
        numbers = (
            self.price, self.average_price, self.quantity, self.last_filled_quantity,
            self.accumulated_quantity,
        )  # fmt: skip
        rest = "\t".join(
            [
                self.side, self.order_type, self.time_in_force, self.order_status,
                *(f"{number.normalize():f}" for number in numbers),
            ]
        )  # fmt: skip
        digest = hashlib.blake2b(rest.encode(), digest_size=4).digest()
        return first_id_at(self.order_us) | int.from_bytes(digest, "big") >> (32 - HASH_BITS)


def first_id_at(order_us: int) -> int:
    """Return the smallest id of an order time (µs)."""
    return order_us // 1_000 << HASH_BITS


def liquidation_line(one: Liquidation) -> str:
    """Format a liquidation, whose texts are plain words, as a line of COPY."""
    at = moment_text(one.order_us)
    return (
        f"{one.symbol}\t{at[:10]}\t{one.id}\t{at}\t{moment_text(one.event_us)}"
        f"\t{moment_text(one.received_us)}\t{one.side}\t{one.order_type}\t{one.time_in_force}"
        f"\t{one.price:f}\t{one.average_price:f}\t{one.quantity:f}\t{one.last_filled_quantity:f}"
        f"\t{one.accumulated_quantity:f}\t{one.order_status}\n"
    )
