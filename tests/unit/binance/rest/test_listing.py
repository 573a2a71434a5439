"""exchangeInfo becomes instruments; symbols without steps are skipped."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from include.binance.rest.listing import EXCHANGE_INFO, ListedInstruments, instruments_of
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
    return listed(market, *symbols).instruments


def listed(market: Market, *symbols: dict[str, Any]) -> ListedInstruments:
    return instruments_of(market, EXCHANGE_INFO.decode(msgspec.json.encode({"symbols": symbols})))


def coin_m(name: str, **others: Any) -> dict[str, Any]:
    one = symbol(
        name, contractStatus="TRADING", contractType="PERPETUAL", contractSize=100,
        marginAsset="BTC", pair="BTCUSD", onboardDate=1_597_042_800_000,
        deliveryDate=4_133_404_800_000, quoteAsset="USD", **others,
    )  # fmt: skip
    del one["status"]
    return one


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
    (one,) = instruments_of(Market.SPOT, EXCHANGE_INFO.decode(text)).instruments
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
    sound = [symbol(f"S{number}") for number in range(5)]
    wrong = [symbol(f"X{number}", **fields) for number, fields in enumerate(odd)]
    found = read(Market.SPOT, *sound[:2], *wrong, *sound[2:])
    assert [one.symbol for one in found] == ["S0", "S1", "S2", "S3", "S4"]
    with pytest.raises(msgspec.ValidationError):  # the format has changed
        read(Market.SPOT, *sound[:3], *wrong)


def test_filter_without_known_fields_is_kept() -> None:
    strange = symbol("X")["filters"] + [{"filterType": "SOLAR", "phase": [1, {"a": None}]}, {}]
    (one,) = read(Market.SPOT, symbol("X", filters=strange))
    assert one.filters["SOLAR"] == {"phase": [1, {"a": None}]}


def test_symbols_that_do_not_trade_stay_in_the_list() -> None:
    assert [one.is_trading for one in read(Market.SPOT, symbol("X", status="BREAK"))] == [False]


def test_futures_are_listed_with_their_terms() -> None:
    perpetual, dated = read(
        Market.UM,
        symbol(
            "BTCUSDT", contractType="PERPETUAL", pair="BTCUSDT", marginAsset="USDT",
            onboardDate=1_569_398_400_000, deliveryDate=4_133_404_800_000,
        ),
        symbol(
            "BTCUSDT_260327", contractType="CURRENT_QUARTER", pair="BTCUSDT", marginAsset="USDT",
            onboardDate=1_758_873_600_000, deliveryDate=1_774_598_400_000,
        ),
    )  # fmt: skip
    assert (perpetual.symbol, dated.symbol) == ("BTCUSDT.P", "BTCUSDT_260327.P")
    assert (perpetual.listed_at_us, perpetual.delivers_at_us) == (1_569_398_400_000_000, None)
    assert dated.delivers_at_us == 1_774_598_400_000_000
    assert (dated.contract_type, dated.pair, dated.margin_asset) == (
        "CURRENT_QUARTER", "BTCUSDT", "USDT",
    )  # fmt: skip
    assert dated.contract_size is None
    assert (dated.volume_unit, dated.quote_volume_unit) == ("BTC", "USDT")


def test_coin_m_contracts_have_a_status_of_their_own_and_a_size() -> None:
    (one,) = read(Market.CM, coin_m("BTCUSD_PERP"))
    assert (one.symbol, one.market, one.is_trading) == ("BTCUSD_PERP", Market.CM, True)
    assert one.contract_size == Decimal(100)
    assert (one.volume_unit, one.quote_volume_unit) == ("contract", "BTC")
    assert not one.quote_volume_is_exact


@pytest.mark.parametrize("size", [None, 0, -100])
def test_coin_m_contract_without_a_size_is_refused_and_named(size: int | None) -> None:
    wrong = coin_m("ETHUSD_PERP") | {"contractSize": size}
    found = listed(Market.CM, coin_m("BTCUSD_PERP"), wrong)
    assert [one.symbol for one in found.instruments] == ["BTCUSD_PERP"]
    assert "contractSize is" in found.refused["ETHUSD_PERP"]


def test_name_that_would_belong_to_another_market_is_refused() -> None:
    found = listed(Market.SPOT, symbol("BTCUSDT"), symbol("A_B"))
    assert [one.symbol for one in found.instruments] == ["BTCUSDT"]
    assert found.refused == {"A_B": "A_B would be taken for a symbol of cm, not of spot"}


def test_delivered_contract_never_trades_again() -> None:
    delivery_us = 1_774_598_400_000_000
    terms = {"deliveryDate": delivery_us // 1000}
    trading, over = read(
        Market.CM,
        coin_m("BTCUSD_260327") | terms,
        coin_m("ETHUSD_260327") | terms | {"contractStatus": "DELIVERED"},
    )
    assert over.is_delivered(delivery_us)
    assert not over.is_delivered(delivery_us - 1)
    assert not trading.is_delivered(delivery_us)


def test_symbol_without_steps_is_omitted() -> None:
    none = [{"filterType": "PRICE_FILTER", "tickSize": "0.00000000"}]
    assert read(Market.SPOT, symbol("X", filters=none), symbol("Y", filters=[])) == []


def test_symbols_need_not_be_ascii() -> None:
    assert read(Market.SPOT, symbol("币安人生USDT"))[0].symbol == "币安人生USDT"
