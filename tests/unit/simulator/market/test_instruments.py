"""Instruments and their number format."""

from decimal import Decimal

import pytest

from simulator.market.instruments import (
    DEFAULT_SPOT,
    DEFAULT_UM,
    Instrument,
    decimal_formatter,
    invented,
    select_instruments,
)


@pytest.mark.parametrize(
    ("value", "decimals", "shown", "text"),
    [
        (6_180_001, 2, 8, "61800.01000000"),
        (1, 8, 8, "0.00000001"),
        (7, 0, 8, "7.00000000"),
        (7, 0, 0, "7"),
        (0, 3, 3, "0.000"),
        (1_234, 3, 3, "1.234"),
    ],
)
def test_integers_print_as_the_exchange_prints(
    value: int, decimals: int, shown: int, text: str
) -> None:
    assert decimal_formatter(decimals, shown)(value) == text
    assert Decimal(text) == Decimal(value).scaleb(-decimals)


def test_only_symbols_with_too_fine_products_round_their_quotes() -> None:
    rounding = {
        item.symbol
        for item in select_instruments("spot", DEFAULT_SPOT, seed=1)
        if item.rounds_quote
    }
    assert rounding == {"ETHBTC"}
    assert not any(i.rounds_quote for i in select_instruments("um", DEFAULT_UM, seed=1))


def test_generated_symbols_are_distinct_and_follow_from_the_seed() -> None:
    first = select_instruments("spot", ("BTCUSDT",), generated=300, seed=4)
    assert first == select_instruments("spot", ("BTCUSDT",), generated=300, seed=4)
    assert len({item.symbol for item in first}) == 301
    assert first[1] != select_instruments("spot", (), generated=1, seed=5)[0]
    activity = [item.orders_per_day for item in first[1:]]
    assert min(activity) < 50
    assert max(activity) > 20_000


def test_symbols_listed_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        select_instruments("spot", ("BTCUSDT", "BTCUSDT"), seed=1)


def test_symbol_without_quote_asset_is_refused() -> None:
    with pytest.raises(ValueError, match="quote asset"):
        invented("spot", "NONSENSE", seed=1)


def test_amounts_that_could_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match="63 bits"):
        Instrument(
            symbol="X", market="spot", base_asset="X", quote_asset="Y", price_decimals=2,
            quantity_decimals=2, typical_price=1 << 29, largest_fill=1 << 30, orders_per_day=10,
        )  # fmt: skip
