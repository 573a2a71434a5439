"""Instruments and their number format."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from simulator.market.instruments import (
    DEFAULT_CM,
    DEFAULT_SPOT,
    DEFAULT_UM,
    Instrument,
    MarketName,
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


# --- COIN-M


@pytest.mark.parametrize("symbol", [*DEFAULT_CM, "DOGEUSD_PERP", "XYZUSD_PERP", "BTCUSD_260327"])
def test_base_amounts_are_exact_quotients_rounded_half_up(symbol: str) -> None:
    (instrument,) = select_instruments("cm", (symbol,), seed=3)
    contracts = np.array([1, 2, 7, instrument.largest_fill], dtype=np.int64)
    low, high = instrument.typical_price // 2 + 1, instrument.typical_price * 2 - 1
    for price in (low, instrument.typical_price, high):
        found = instrument.quote_amounts(np.full(4, price, dtype=np.int64), contracts).tolist()
        for number, amount in zip(contracts.tolist(), found, strict=True):
            value = Fraction(
                number * (instrument.contract_size or 0) * 10**instrument.price_decimals
            )
            exact = value / price * 10**instrument.quote_decimals
            assert amount == (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)


def test_documented_base_amount_is_printed() -> None:
    # `baseQty` of the exchange's documentation: one contract at 9642.2
    (btc,) = select_instruments("cm", ("BTCUSD_PERP",), seed=1)
    amounts = btc.quote_amounts(np.array([96_422]), np.array([1]))
    assert btc.format_quote(int(amounts[0])) == "0.01037108"


def test_contracts_know_pair_margin_and_size() -> None:
    btc, eth, june = select_instruments(
        "cm", ("BTCUSD_PERP", "ETHUSD_PERP", "BTCUSD_260626"), seed=1
    )
    assert (btc.pair, btc.margin_asset, btc.contract_size, btc.is_dated) == (
        "BTCUSD", "BTC", 100, False,
    )  # fmt: skip
    assert (eth.contract_size, eth.quote_asset) == (10, "USD")
    assert (june.pair, june.path_symbol, june.is_dated) == ("BTCUSD", "BTCUSD_PERP", True)
    (um,) = select_instruments("um", ("BTCUSDT_260626",), seed=1)
    assert (um.pair, um.path_symbol, um.margin_asset, um.contract_size) == (
        "BTCUSDT", "BTCUSDT", "USDT", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("market", "symbol", "message"),
    [
        ("cm", "BTCUSDT", "does not end with USD_PERP"),
        ("cm", "BTCUSD_260328", "last Friday of a quarter, the next one is 260626"),
        ("um", "BTCUSDT_260101", "last Friday of a quarter"),
    ],
)
def test_impossible_contract_is_refused(market: MarketName, symbol: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_instruments(market, (symbol,), seed=1)
