"""Trades for readers: each once, and only while readers subscribe."""

from __future__ import annotations

from decimal import Decimal

from include.binance.streams.messages import AggTrade, Trade
from include.domain.instruments import Market
from streamer.hub.ticks import MissedTrades
from streamer.hub.trade_hub import TradeHub
from streamer.hub.trade_tap import TradeTaps

T0 = 1_700_000_040_000_000


def agg(number: int, *, symbol: str = "BTCUSDT", price: str = "2.50") -> AggTrade:
    at = T0 + number * 1_000
    return AggTrade(
        at, symbol, number, Decimal(price), Decimal("0.1"), 2 * number, 2 * number + 1, at, True
    )


def single(number: int, trade_type: str | None = None) -> Trade:
    at = (T0 + number * 1_000) // 1_000
    return Trade(at, "BTCUSDT", number, Decimal("2.50"), Decimal("0.1"), at, False, trade_type)


async def test_trades_are_passed_on_only_to_subscribers() -> None:
    fan = TradeHub()
    tape = TradeTaps(fan)
    assert tape.taps[Market.SPOT].on_trade is None
    with fan.subscribe(["BTCUSDT"]) as watch:
        hear = tape.taps[Market.SPOT].on_trade
        assert hear is not None
        assert tape.taps[Market.UM].on_trade is None
        hear(agg(1))
        hear(agg(2, symbol="ETHUSDT"))
        (one,) = watch.drain().ticks
        assert (one.symbol, one.id, one.price, one.first_trade_id, one.last_trade_id) == (
            "BTCUSDT", 1, Decimal("2.50"), 2, 3,
        )  # fmt: skip
        assert one.time_us == T0 + 1_000
        assert one.is_buyer_maker
    assert tape.taps[Market.SPOT].on_trade is None


async def test_trade_repeated_across_connections_is_published_once() -> None:
    fan = TradeHub()
    tape = TradeTaps(fan)
    with fan.subscribe(["BTCUSDT"]) as watch:
        hear = tape.taps[Market.SPOT].on_trade
        assert hear is not None
        for number in (5, 6, 7, 5, 6, 7, 8):
            hear(agg(number))
        hear(agg(9, price="0"))
        assert [one.id for one in watch.drain().ticks] == [5, 6, 7, 8]


async def test_missing_ids_are_reported_and_overtaken_trades_are_published() -> None:
    fan = TradeHub()
    tape = TradeTaps(fan)
    with fan.subscribe(["BTCUSDT"]) as watch:
        hear = tape.taps[Market.SPOT].on_trade
        assert hear is not None
        for number in (5, 8, 7, 9):
            hear(agg(number))
        found = watch.drain()
        assert [one.id for one in found.ticks] == [5, 8, 7, 9]
        assert found.missed == [MissedTrades("BTCUSDT", 6, 7, T0 + 5_000, T0 + 8_000)]


async def test_fills_of_the_insurance_fund_are_not_published() -> None:
    fan = TradeHub()
    tape = TradeTaps(fan)
    with fan.subscribe(["BTCUSDT.P"]) as watch:
        hear = tape.taps[Market.UM].on_trade
        assert hear is not None
        for one in (single(5, "MARKET"), single(6, "INSURANCE_FUND"), single(7, "MARKET")):
            hear(one)
        found = watch.drain()
        assert [one.id for one in found.ticks] == [5, 7]
        assert not found.missed


async def test_single_futures_trades_skip_ids_without_missing_any() -> None:
    fan = TradeHub()
    tape = TradeTaps(fan)
    with fan.subscribe(["BTCUSDT.P"]) as watch:
        hear = tape.taps[Market.UM].on_trade
        assert hear is not None
        for number in (5, 8, 5):
            hear(single(number))
        found = watch.drain()
        assert [(one.symbol, one.id) for one in found.ticks] == [("BTCUSDT.P", 5), ("BTCUSDT.P", 8)]
        assert found.ticks[0].time_us == (T0 + 5_000) // 1_000 * 1_000
        assert not found.missed


async def test_later_subscriber_starts_without_known_ids() -> None:
    fan = TradeHub()
    tape = TradeTaps(fan)
    for begin in (5, 1_000):
        with fan.subscribe(["BTCUSDT"]) as watch:
            hear = tape.taps[Market.SPOT].on_trade
            assert hear is not None
            hear(agg(begin))
            found = watch.drain()
            assert [one.id for one in found.ticks] == [begin]
            assert not found.missed
