"""The key of a liquidation names the order, not who delivered it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from include.store.trades.liquidations import Liquidation, first_id_at, liquidation_line

AT_US = 1_763_716_800_121_000
"""2025-11-21 09:20:00.121 UTC."""
ONE = Liquidation(
    "BTCUSDT.P", AT_US, AT_US + 5_000, AT_US + 9_001, "SELL", "LIMIT", "IOC", Decimal("9910"),
    Decimal("9900.5"), Decimal("0.014"), Decimal("0.010"), Decimal("0.014"), "FILLED",
)  # fmt: skip


def test_key_does_not_depend_on_how_the_order_was_delivered() -> None:
    again = replace(
        ONE, event_us=AT_US + 900_000, received_us=AT_US * 2, last_filled_quantity=Decimal("0.01")
    )
    assert again.id == ONE.id


@pytest.mark.parametrize(
    "change",
    [
        {"side": "BUY"},
        {"price": Decimal("9911")},
        {"average_price": Decimal("9900.6")},
        {"quantity": Decimal("0.015")},
        {"last_filled_quantity": Decimal("0.011")},
        {"accumulated_quantity": Decimal("0.013")},
        {"order_status": "PARTIALLY_FILLED"},
        {"order_us": AT_US + 1_000},
    ],
    ids=lambda change: next(iter(change)),
)
def test_key_differs_for_another_report(change: dict[str, Any]) -> None:
    assert replace(ONE, **change).id != ONE.id


def test_keys_ascend_with_the_order_time() -> None:
    later = replace(ONE, order_us=AT_US + 1_000, side="BUY")
    assert first_id_at(AT_US) <= ONE.id < first_id_at(AT_US + 1_000) <= later.id < 2**63


def test_line_has_each_column_in_order() -> None:
    at = "2025-11-21 09:20:00.1"
    assert liquidation_line(ONE).rstrip("\n").split("\t") == [
        "BTCUSDT.P", "2025-11-21", str(ONE.id), f"{at}21000+00", f"{at}26000+00", f"{at}30001+00",
        "SELL", "LIMIT", "IOC", "9910", "9900.5", "0.014", "0.010", "0.014", "FILLED",
    ]  # fmt: skip
