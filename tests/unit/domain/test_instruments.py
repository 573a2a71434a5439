from __future__ import annotations

from decimal import Decimal

import pytest

from include.domain.instruments import (
    Instrument,
    Market,
    decimals_of,
    exchange_symbol_of,
    market_of,
    symbol_from,
    symbol_of,
)


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("BTC/USDT", "BTCUSDT"),
        (" btc-usdt ", "BTCUSDT"),
        ("btc_usdt", "BTCUSDT"),
        ("btcusdt", "BTCUSDT"),
        ("BTC/USDT.P", "BTCUSDT.P"),
        ("btc/usdt:usdt", "BTCUSDT.P"),
        ("币安人生/USDT", "币安人生USDT"),
        ("1000SATS/USDT", "1000SATSUSDT"),
        ("[!A-B]*USDT", "[!A-B]*USDT"),
        ("BTCUSD_PERP", "BTCUSD_PERP"),
        ("btcusd_perp", "BTCUSD_PERP"),
        ("BTCUSD_240628", "BTCUSD_240628"),
        ("BTCUSDT_240628", "BTCUSDT_240628.P"),
        ("BTCUSDT_240628.P", "BTCUSDT_240628.P"),
        ("*_PERP", "*_PERP"),
        ("*USDT_240628", "*USDT_240628"),
        ("BTC/USD:BTC", "BTCUSD_PERP"),
        ("BTC/USD:BTC-240628", "BTCUSD_240628"),
        ("BTC/USDT:USDT-240628", "BTCUSDT_240628.P"),
        ("../ABC", "../ABC"),
    ],
)
def test_symbols_are_understood_as_users_write_them(text: str, symbol: str) -> None:
    assert symbol_from(text) == symbol


@pytest.mark.parametrize(
    ("market", "exchange_symbol", "symbol"),
    [
        (Market.SPOT, "BTCUSDT", "BTCUSDT"),
        (Market.UM, "BTCUSDT", "BTCUSDT.P"),
        (Market.UM, "BTCUSDT_260327", "BTCUSDT_260327.P"),
        (Market.CM, "BTCUSD_PERP", "BTCUSD_PERP"),
        (Market.CM, "BTCUSD_260327", "BTCUSD_260327"),
    ],
)
def test_symbols_are_unique_across_markets(
    market: Market, exchange_symbol: str, symbol: str
) -> None:
    assert symbol_of(market, exchange_symbol) == symbol
    assert market_of(symbol) is market
    assert exchange_symbol_of(symbol) == exchange_symbol


@pytest.mark.parametrize(
    ("step", "decimals"), [("0.01000000", 2), ("1.00000000", 0), ("10", 0), ("0.00000001", 8)]
)
def test_decimals_of_a_step(step: str, decimals: int) -> None:
    assert decimals_of(Decimal(step)) == decimals


@pytest.mark.parametrize(
    ("tick", "step", "is_exact"),
    [("0.01", "0.00001", True), ("0.00001", "0.0001", False), ("0.00000001", "1", True)],
)
def test_quotes_are_exact_where_a_fill_needs_no_rounding(
    tick: str, step: str, is_exact: bool
) -> None:
    instrument = Instrument("X", Market.SPOT, "A", "B", "TRADING", Decimal(tick), Decimal(step))
    assert instrument.quote_volume_is_exact is is_exact
