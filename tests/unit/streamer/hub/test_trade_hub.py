"""What readers of trades and book tickers receive, and what they cost."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from include.store.trades.liquidations import Liquidation
from streamer.hub import ticks as module
from streamer.hub.ticks import BookTickerUpdate, MissedLiquidations, MissedTrades, TradeTick
from streamer.hub.trade_hub import BookTickerHub, FullError, LiquidationHub, TradeHub


def trade(number: int, symbol: str = "BTCUSDT") -> TradeTick:
    return TradeTick(
        symbol, number, Decimal(number), Decimal(1), number, number, number * 1_000, False
    )


def book_ticker(number: int, symbol: str = "BTCUSDT") -> BookTickerUpdate:
    return BookTickerUpdate(symbol, number, "1.0", "2", "1.1", "3", None, number)


def ids(found: list[TradeTick]) -> list[int]:
    return [one.id for one in found]


async def test_each_trade_of_the_subscribed_symbols_is_delivered_in_order() -> None:
    hub = TradeHub()
    with hub.subscribe(["BTCUSDT"]) as subscription:
        hub.publish(trade(1))
        hub.publish(trade(2, "ETHUSDT"))
        hub.publish(trade(3))
        found = await subscription.receive()
        assert found is not None
        assert ids(found.ticks) == [1, 3]
        assert not subscription.drain()
        hub.add_symbols(subscription, ["ETHUSDT"])
        hub.publish(trade(4, "ETHUSDT"))
        hub.publish(trade(5))
        hub.remove_symbols(subscription, ["ETHUSDT"])
        assert ids(subscription.drain().ticks) == [5]


async def test_trades_missed_by_a_slow_reader_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_TRADES_WAITING", 3)
    hub = TradeHub()
    with hub.subscribe(["BTCUSDT", "ETHUSDT"]) as slow, hub.subscribe(["BTCUSDT"]) as quick:
        for number in range(1, 6):
            hub.publish(trade(number))
            quick.drain()
        hub.publish(trade(1, "ETHUSDT"))
        assert slow.waiting == 3
        found = slow.drain(2)
        assert found.missed == [MissedTrades("BTCUSDT", 1, 3, 1_000, 3_000)]
        assert ids(found.ticks) == [4, 5]
        assert not slow.drain().missed
        assert (slow.evicted, quick.evicted) == (3, 0)


async def test_missing_trades_are_reported_to_subscribers() -> None:
    hub = TradeHub()
    with hub.subscribe(["BTCUSDT"]) as subscription, hub.subscribe(["ETHUSDT"]) as other:
        hub.report_missed(MissedTrades("BTCUSDT", 5, 6, 10, 20))
        hub.report_missed(MissedTrades("BTCUSDT", 9, 9, 30, 30))
        assert subscription.drain().missed == [MissedTrades("BTCUSDT", 5, 9, 10, 30)]
        assert not other.drain()


async def test_wanted_symbols_are_the_subscribed_ones() -> None:
    hub = TradeHub()
    heard: list[frozenset[str]] = []
    hub.on_wanted = lambda: heard.append(hub.wanted)
    with hub.subscribe(["BTCUSDT"]) as first:
        with hub.subscribe(["BTCUSDT"]):
            hub.add_symbols(first, ["ETHUSDT"])
            assert hub.subscribers == 2
        assert hub.wanted == {"BTCUSDT", "ETHUSDT"}
        hub.remove_symbols(first, ["BTCUSDT"])
    assert heard == [{"BTCUSDT"}, {"BTCUSDT", "ETHUSDT"}, {"ETHUSDT"}, frozenset()]
    assert hub.subscribers == 0


async def test_newest_book_ticker_is_delivered_first_and_replaces_waiting_ones() -> None:
    hub = BookTickerHub(linger_s=100)
    with hub.subscribe(["BTCUSDT"]) as subscription:
        hub.publish(book_ticker(1))
        hub.publish(book_ticker(2))
        hub.publish(book_ticker(7, "ETHUSDT"))
        assert subscription.drain().ticks == [book_ticker(2)]
        assert subscription.conflated == 1
        assert hub.newest("ETHUSDT") is None
        with hub.subscribe(["BTCUSDT"]) as late:
            found = await late.receive()
            assert found is not None
            assert found.ticks == [book_ticker(2)]


async def test_book_tickers_linger_and_are_then_forgotten() -> None:
    hub = BookTickerHub(linger_s=0.05)
    with hub.subscribe(["BTCUSDT"]):
        hub.publish(book_ticker(1))
    assert hub.wanted == {"BTCUSDT"}
    hub.publish(book_ticker(2))
    assert hub.newest("BTCUSDT") == book_ticker(2)
    heard = asyncio.Event()
    hub.on_wanted = heard.set
    async with asyncio.timeout(10):
        await heard.wait()
    assert not hub.wanted
    assert hub.newest("BTCUSDT") is None


async def test_symbols_with_book_tickers_are_bounded() -> None:
    hub = BookTickerHub(max_symbols=2, linger_s=100)
    with hub.subscribe(["A"]) as subscription:
        with hub.subscribe(["B"]):
            with pytest.raises(FullError, match=r"2 symbols are streamed .* 1 more .* 2 at most"):
                hub.add_symbols(subscription, ["C"])
            assert subscription.symbols == {"A"}
        hub.add_symbols(subscription, ["C"])  # B has no subscriber any more
        assert hub.wanted == {"A", "C"}


async def test_waiting_reader_ends_with_its_subscription() -> None:
    hub = TradeHub()
    subscription = hub.subscribe(["BTCUSDT"])
    waiting = asyncio.create_task(subscription.receive())
    await asyncio.sleep(0)
    subscription.unsubscribe()
    async with asyncio.timeout(10):
        assert await waiting is None
    subscription.unsubscribe()
    assert not hub.wanted


async def test_book_ticker_of_a_dropped_symbol_is_forgotten() -> None:
    hub = BookTickerHub()
    with hub.subscribe(["BTCUSDT", "ETHUSDT"]):
        hub.publish(book_ticker(1))
        hub.publish(book_ticker(2, "ETHUSDT"))
        hub.forget(["BTCUSDT", "NONE"])
        assert hub.newest("BTCUSDT") is None
        with hub.subscribe(["BTCUSDT", "ETHUSDT"]) as late:
            assert [one.symbol for one in late.drain().ticks] == ["ETHUSDT"]
            hub.publish(book_ticker(3))  # streamed again
            assert late.drain().ticks == [book_ticker(3)]


def liquidation(second: int) -> Liquidation:
    amounts = [Decimal(1)] * 5
    at_us = second * 1_000_000
    return Liquidation("BTCUSDT.P", at_us, at_us, at_us, "SELL", "LIMIT", "IOC", *amounts, "FILLED")


async def test_liquidations_missed_by_a_slow_reader_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_LIQUIDATIONS_WAITING", 2)
    hub = LiquidationHub(linger_s=0)
    with hub.subscribe(["BTCUSDT.P"]) as subscription:
        for second in range(1, 5):
            hub.publish(liquidation(second))
        found = subscription.drain()
        assert found.ticks == [liquidation(3), liquidation(4)]
        assert found.missed == [MissedLiquidations("BTCUSDT.P", 1_000_000, 2_000_000, 2)]
        hub.report_missed(MissedLiquidations("BTCUSDT.P", 5, 6, 1))
        hub.report_missed(MissedLiquidations("BTCUSDT.P", 7, 9, None))
        assert subscription.drain().missed == [MissedLiquidations("BTCUSDT.P", 5, 9, None)]
