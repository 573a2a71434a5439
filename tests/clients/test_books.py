"""Local order books that the libraries keep are the simulator's own at the same update id."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from simulator.server import ExchangeThread
from tests.clients.exchanges import config, true_book

Client = Callable[..., Any]

UPDATES = {"python_binance": 2_000, "ccxt": 2_000, "binance_sdk": 1_000}
"""Frames of `@depth@100ms`, each of some twenty update ids (spot) or thousands (USD-M)."""

KEEPERS = {
    "python_binance": {"spot"},  # its futures cache holds the last frame and no book
    "ccxt": {"spot", "um"},
    "binance_sdk": {"spot", "um"},
}
FEWEST_LEVELS = 300


def test_local_book_equals_the_exchange_at_every_checkpoint(library: str, client: Client) -> None:
    with ExchangeThread(config(speed=60)) as exchange:
        seen = client(exchange, "books", updates=UPDATES[library])
        assert set(seen) == KEEPERS[library]
        for market, found in seen.items():
            assert found["updates"] >= UPDATES[library]
            assert len(found["checkpoints"]) >= 3
            lowest, highest = map(Decimal, found["known"])
            ids = [checkpoint[0] for checkpoint in found["checkpoints"]]
            assert ids == sorted(set(ids))
            for update_id, bids, asks in found["checkpoints"]:
                true_bids, true_asks = true_book(exchange, market, "BTCUSDT", update_id)
                assert_side_agrees(bids, true_bids, {p for p in true_bids if p >= lowest})
                assert_side_agrees(asks, true_asks, {p for p in true_asks if p <= highest})


def assert_side_agrees(
    local: list[list[str]], true: dict[Decimal, Decimal], known: set[Decimal]
) -> None:
    """No level is wrong, and none that the library can know is missing."""
    own = {Decimal(price): Decimal(amount) for price, amount in local}
    assert own.items() <= true.items()
    assert len(known) >= FEWEST_LEVELS
    assert known <= own.keys()
