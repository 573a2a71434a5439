from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

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
        console.print(live_table([row], [("verified", 59)]))
    shown = capture.get()
    for text in ("PEPEUSDT", "12:34", "0.0000123 ", "63144.28 ", "100 ", "1000000 ", "live"):
        assert text in shown
    assert "59 verified" in shown


def test_nothing_is_truncated_at_80_columns() -> None:
    row = (
        "1000SHIBUSDT.P", datetime(2026, 11, 1, 12, 34, tzinfo=UTC),
        Decimal("104123.45000000"), Decimal("104125.00"), Decimal("104000.10000000"),
        Decimal("104124.99000000"), Decimal("1234.56789000"), 12_345, "unconfirmed",
        datetime.now(UTC),
    )  # fmt: skip
    console = Console(width=80)
    with console.capture() as capture:
        console.print(live_table([row], [("verified", 59)], width=80))
    shown = capture.get()
    assert "…" not in shown
    for text in ("1000SHIBUSDT.P", "104123.45", "104124.99", "1234.56789", "12345", "unconfirmed"):
        assert text in shown
