from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.console import Console

from cli.local.live_table import live_table


def test_numbers_are_complete_without_trailing_zeros() -> None:
    row = (
        "PEPEUSDT", datetime(2026, 11, 1, 12, 34, tzinfo=UTC),
        Decimal("0.00001230"), Decimal("63144.28000000"), Decimal("100.00000000"),
        Decimal("0.00001200"), Decimal("1000000.00000000"), 7, "live", datetime.now(UTC),
    )  # fmt: skip
    console = Console(width=140)
    with console.capture() as capture:
        console.print(live_table([row], [("verified", 59)], console))
    shown = capture.get()
    for text in ("PEPEUSDT", "12:34", "0.0000123 ", "63144.28 ", "100 ", "1000000 ", "live"):
        assert text in shown
    assert "59 verified" in shown


@pytest.mark.parametrize(
    ("width", "prices"),
    [
        (70, ("close",)),
        (80, ("open", "close")),
        (99, ("open", "high", "low", "close")),
        (100, ("open", "high", "low", "close")),
        (200, ("open", "high", "low", "close")),
    ],
)
def test_nothing_is_truncated_in_any_terminal(width: int, prices: tuple[str, ...]) -> None:
    row = (
        "1000SHIBUSDT.P", datetime(2026, 11, 1, 12, 34, tzinfo=UTC),
        Decimal("104123.45000000"), Decimal("104125.00"), Decimal("104000.10000000"),
        Decimal("104124.99000000"), Decimal("1234.56789000"), 12_345, "unconfirmed",
        datetime.now(UTC),
    )  # fmt: skip
    console = Console(width=width)
    with console.capture() as capture:
        console.print(live_table([row], [("verified", 59)], console))
    shown = capture.get()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    values = {"open": "104123.45", "high": "104125", "low": "104000.1", "close": "104124.99"}
    for text in ("1000SHIBUSDT.P", "1234.56789", "12345", "unconfirmed", "0.0 s"):
        assert text in shown
    assert [name for name, value in values.items() if f"{value} " in shown] == list(prices)
