from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.candle_builder import CandleBuilder
from include.domain.candles import differing_ids, differing_values, silent_candle


@dataclass
class Fill:
    price: Decimal
    quantity: Decimal
    is_buyer_maker: bool
    first_trade_id: int
    last_trade_id: int


def fills() -> st.SearchStrategy[list[Fill]]:
    number = st.integers(1, 10**20).map(lambda n: Decimal(n).scaleb(-8))
    row = st.tuples(number, number, st.booleans(), st.integers(0, 3))

    def with_ids(rows: list[tuple[Decimal, Decimal, bool, int]]) -> list[Fill]:
        result, next_id = [], 100
        for price, quantity, maker, more in rows:
            result.append(Fill(price, quantity, maker, next_id, next_id + more))
            next_id += more + 1
        return result

    return st.lists(row, min_size=1, max_size=30).map(with_ids)


@given(fills())
def test_builder_equals_fractions(trades: list[Fill]) -> None:
    builder = CandleBuilder("X", 0)
    for trade in trades:
        builder.add(trade)
    candle = builder.candle()
    takers = [t for t in trades if not t.is_buyer_maker]
    assert candle.open == trades[0].price
    assert candle.close == trades[-1].price
    assert candle.high == max(t.price for t in trades)
    assert candle.low == min(t.price for t in trades)
    assert candle.trade_count == trades[-1].last_trade_id - 99
    assert Fraction(candle.volume) == sum(Fraction(t.quantity) for t in trades)
    assert Fraction(candle.quote_volume) == sum(
        Fraction(t.price) * Fraction(t.quantity) for t in trades
    )
    assert Fraction(candle.taker_buy_volume) == sum(Fraction(t.quantity) for t in takers)
    assert Fraction(candle.taker_buy_quote_volume) == sum(
        Fraction(t.price) * Fraction(t.quantity) for t in takers
    )
    assert (candle.first_trade_id, candle.last_trade_id) == (100, trades[-1].last_trade_id)


@given(fills(), st.data())
def test_builder_continues_from_a_candle_without_a_difference(
    trades: list[Fill], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(trades)))
    whole, first = CandleBuilder("X", 0), CandleBuilder("X", 0)
    for trade in trades:
        whole.add(trade)
    for trade in trades[:cut]:
        first.add(trade)
    second = CandleBuilder.from_candle(first.candle())
    for trade in trades[cut:]:
        second.add(trade)
    assert second.candle() == whole.candle()


def test_products_longer_than_the_default_context_keep_every_digit() -> None:
    builder = CandleBuilder("X", 0)
    price, quantity = Decimal("12345678.12345678"), Decimal("987654321987654321.87654321")
    builder.add(Fill(price, quantity, False, 1, 1))
    assert Fraction(builder.candle().quote_volume) == Fraction(price) * Fraction(quantity)
    assert builder.candle().quote_volume != price * quantity  # 28 digits are not enough


def test_silent_candle_as_seed_opens_with_the_first_trade() -> None:
    builder = CandleBuilder.from_candle(silent_candle("X", 0, Decimal(5)))
    builder.add(Fill(Decimal(7), Decimal(1), True, 4, 4))
    candle = builder.candle()
    assert (candle.open, candle.high, candle.low, candle.close) == (7, 7, 7, 7)
    assert candle.first_trade_id == 4


def test_candle_with_trades_but_no_ids_is_no_seed() -> None:
    builder = CandleBuilder("X", 0)
    builder.add(Fill(Decimal(7), Decimal(1), True, 4, 4))
    candle = builder.candle()
    with pytest.raises(ValueError, match="no ids"):
        CandleBuilder.from_candle(replace(candle, first_trade_id=None, last_trade_id=None))


def test_differing_values_are_named_and_quote_volumes_can_be_replaced() -> None:
    left = silent_candle("X", 0, Decimal(5))
    right = replace(
        left, high=Decimal(6), quote_volume=Decimal(2), taker_buy_quote_volume=Decimal(1)
    )
    assert differing_values(left, right) == ["high", "quote_volume", "taker_buy_quote_volume"]
    assert differing_values(left.with_quotes_of(right), right) == ["high"]


def test_differing_ids_are_named_where_both_candles_have_ids() -> None:
    without = silent_candle("X", 0, Decimal(5))
    left = replace(without, first_trade_id=1, last_trade_id=9)
    assert differing_ids(left, replace(left, first_trade_id=2)) == ["first_trade_id"]
    assert differing_ids(left, replace(left, last_trade_id=8)) == ["last_trade_id"]
    assert differing_ids(left, left) == differing_ids(left, without) == []


@pytest.mark.parametrize(
    ("price", "quantity", "shown"),
    [
        ("63217.74000000", "0.00100000", "63.21774000"),
        ("63217.70", "0.001", "63.21770"),  # USD-M prints its own decimals
        ("0.04337000", "0.12345678", "0.0053543205486000"),  # the exchange rounds this one
    ],
)
def test_quote_volume_has_the_exchanges_decimals(price: str, quantity: str, shown: str) -> None:
    builder = CandleBuilder("X", 0)
    builder.add(Fill(Decimal(price), Decimal(quantity), False, 1, 1))
    candle = builder.candle()
    assert str(candle.quote_volume) == shown
    assert str(candle.taker_buy_quote_volume) == shown
