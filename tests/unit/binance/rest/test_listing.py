"""exchangeInfo becomes instruments; other contracts and symbols without steps are skipped."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from include.binance.rest.listing import EXCHANGE_INFO, instruments_of
from include.domain.instruments import Instrument, Market


def symbol(name: str, **others: Any) -> dict[str, Any]:
    return {
        "symbol": name, "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01000000", "minPrice": "0.01"},
            {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
            {"filterType": "MARKET_LOT_SIZE", "stepSize": "0.1"},
        ],
        **others,
    }  # fmt: skip


def read(market: Market, *symbols: dict[str, Any]) -> list[Instrument]:
    return instruments_of(market, EXCHANGE_INFO.decode(msgspec.json.encode({"symbols": symbols})))


def test_spot_symbol_becomes_an_instrument() -> None:
    assert read(Market.SPOT, symbol("BTCUSDT", permissions=["SPOT"])) == [
        Instrument(
            "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
        )
    ]


def test_filters_are_stored_as_the_exchange_writes_them() -> None:
    (one,) = read(Market.SPOT, symbol("BTCUSDT"))
    assert one.filters == {
        "PRICE_FILTER": {"tickSize": "0.01000000", "minPrice": "0.01"},
        "LOT_SIZE": {"stepSize": "0.00001000"},
        "MARKET_LOT_SIZE": {"stepSize": "0.1"},
    }
    text = b'{"symbols": [{"symbol": "X", "status": "TRADING", "baseAsset": "A", "quoteAsset": "B",'
    text += b' "filters": [{"filterType": "PRICE_FILTER", "tickSize": 0.10000000000000000001},'
    text += b' {"filterType": "LOT_SIZE", "stepSize": "1"}]}]}'
    (one,) = instruments_of(Market.SPOT, EXCHANGE_INFO.decode(text))
    assert one.tick_size == Decimal("0.10000000000000000001")


def test_invalid_step_is_an_error() -> None:
    wrong = [{"filterType": "PRICE_FILTER", "tickSize": "cheap"}]
    with pytest.raises(msgspec.ValidationError, match=r"PRICE_FILTER.tickSize is 'cheap'"):
        read(Market.SPOT, symbol("X", filters=wrong))


def test_one_odd_symbol_does_not_hide_the_others() -> None:
    odd: list[dict[str, Any]] = [
        {"filters": [{"filterType": "PRICE_FILTER", "tickSize": "cheap"}]},
        {"filters": {"PRICE_FILTER": "none"}},
        {"filters": [7]},
        {"baseAsset": None},
    ]
    listed = [symbol(f"S{number}") for number in range(5)]
    wrong = [symbol(f"X{number}", **fields) for number, fields in enumerate(odd)]
    found = read(Market.SPOT, *listed[:2], *wrong, *listed[2:])
    assert [one.symbol for one in found] == ["S0", "S1", "S2", "S3", "S4"]
    with pytest.raises(msgspec.ValidationError):  # the format has changed
        read(Market.SPOT, *listed[:3], *wrong)


def test_filter_without_known_fields_is_kept() -> None:
    strange = symbol("X")["filters"] + [{"filterType": "SOLAR", "phase": [1, {"a": None}]}, {}]
    (one,) = read(Market.SPOT, symbol("X", filters=strange))
    assert one.filters["SOLAR"] == {"phase": [1, {"a": None}]}


def test_symbols_that_do_not_trade_stay_in_the_list() -> None:
    assert [one.is_trading for one in read(Market.SPOT, symbol("X", status="BREAK"))] == [False]


def test_only_perpetual_futures_are_listed_with_their_start() -> None:
    listed = read(
        Market.UM,
        symbol("BTCUSDT", contractType="PERPETUAL", onboardDate=1_569_398_400_000),
        symbol("BTCUSDT_260327", contractType="CURRENT_QUARTER", onboardDate=1),
    )
    assert [(one.symbol, one.listed_at_us) for one in listed] == [
        ("BTCUSDT.P", 1_569_398_400_000_000)
    ]


def test_symbol_without_steps_is_omitted() -> None:
    none = [{"filterType": "PRICE_FILTER", "tickSize": "0.00000000"}]
    assert read(Market.SPOT, symbol("X", filters=none), symbol("Y", filters=[])) == []


def test_symbols_need_not_be_ascii() -> None:
    assert read(Market.SPOT, symbol("币安人生USDT"))[0].symbol == "币安人生USDT"
