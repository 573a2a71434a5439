from __future__ import annotations

from decimal import Decimal

import pytest

from include.domain.instruments import Instrument, Market, symbol_of
from include.errors import PermanentError
from streamer.symbols.universe import choose, markets_of, not_trading


def listing(name: str, market: Market = Market.SPOT, status: str = "TRADING") -> Instrument:
    return Instrument(
        symbol_of(market, name), market, "A", "B", status, Decimal("0.01"), Decimal("0.01")
    )


EXCHANGE = [
    listing("BTCUSDT"),
    listing("ETHUSDT"),
    listing("ETHBTC"),
    listing("OLDUSDT", status="BREAK"),
    listing("BTCUSDT", Market.UM),
]


def symbols(*wanted: str, **options: object) -> list[str]:
    return [one.symbol for one in choose(wanted, EXCHANGE, **options)]  # type: ignore[arg-type]


def test_names_select_their_symbols() -> None:
    assert symbols("ETHUSDT", "BTCUSDT.P") == ["ETHUSDT", "BTCUSDT.P"]


def test_pattern_matches_trading_symbols_of_its_market() -> None:
    assert symbols("*USDT") == ["BTCUSDT", "ETHUSDT"]
    assert symbols("*USDT.P") == ["BTCUSDT.P"]
    assert symbols("*", "*.P") == ["BTCUSDT", "ETHUSDT", "ETHBTC", "BTCUSDT.P"]


def test_pattern_matches_recently_streamed_symbols_that_do_not_trade() -> None:
    assert not_trading(["*USDT", "OLD"], EXCHANGE) == ["OLDUSDT"]
    assert not_trading(["*.P", "OLDUSDT"], EXCHANGE) == []
    assert symbols("*USDT", streamed=["OLDUSDT"]) == ["BTCUSDT", "ETHUSDT", "OLDUSDT"]
    assert symbols("OLD*", streamed=["OLDUSDT"]) == ["OLDUSDT"]


def test_overlapping_name_and_pattern_give_one_symbol() -> None:
    assert symbols("ETHUSDT", "*USDT") == ["ETHUSDT", "BTCUSDT"]


def test_top_keeps_the_largest_by_volume() -> None:
    volumes = {"ETHUSDT": Decimal(9), "BTCUSDT": Decimal(5), "ETHBTC": Decimal(7)}
    assert symbols("*", top=2, quote_volume_24h=volumes) == ["ETHUSDT", "ETHBTC"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ((), "no symbols: give --symbols"),
        (("BTCUSD",), "no symbol 'BTCUSD'; did you mean BTCUSDT"),
        (("ZZZ",), "no symbol 'ZZZ'$"),
        (("*EUR",), "no trading symbol matches the pattern '\\*EUR'"),
    ],
)
def test_invalid_selection_is_explained(wanted: tuple[str, ...], message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        symbols(*wanted)


def test_markets_follow_from_the_names() -> None:
    assert markets_of(["BTCUSDT"]) == (Market.SPOT,)
    assert markets_of(["*USDT.P", "BTCUSDT"]) == (Market.SPOT, Market.UM)


def test_error_for_an_unknown_symbol_names_its_place() -> None:
    with pytest.raises(PermanentError, match=r"^list:3: the exchange has no symbol 'BTCUSD'"):
        choose(("BTCUSD",), EXCHANGE, place_of=lambda name: f"list:{len(name) // 2}: ")
    with pytest.raises(PermanentError, match=r"^here no trading symbol matches"):
        choose(("ZZ*",), EXCHANGE, place_of=lambda _: "here ")
