"""What readers of trades and best prices are told, and what they cost."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from streamer.hub import ticks as module
from streamer.hub.ticks import BookTickerUpdate, MissedTrades, TradeTick
from streamer.hub.trade_hub import BookTickerHub, FullError, TradeHub


def trade(number: int, symbol: str = "BTCUSDT") -> TradeTick:
    return TradeTick(
        symbol, number, Decimal(number), Decimal(1), number, number, number * 1_000, False
    )


def quote(number: int, symbol: str = "BTCUSDT") -> BookTickerUpdate:
    return BookTickerUpdate(symbol, number, "1.0", "2", "1.1", "3", None, number)


def ids(found: list[TradeTick]) -> list[int]:
    return [one.id for one in found]


async def test_each_trade_of_its_symbols_is_told_in_order() -> None:
    fan = TradeHub()
    with fan.subscribe(["BTCUSDT"]) as watch:
        fan.publish(trade(1))
        fan.publish(trade(2, "ETHUSDT"))
        fan.publish(trade(3))
        found = await watch.receive()
        assert found is not None
        assert ids(found.ticks) == [1, 3]
        assert not watch.drain()
        fan.add_symbols(watch, ["ETHUSDT"])
        fan.publish(trade(4, "ETHUSDT"))
        fan.publish(trade(5))
        fan.remove_symbols(watch, ["ETHUSDT"])
        assert ids(watch.drain().ticks) == [5]


async def test_trades_that_a_reader_is_too_slow_for_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_TRADES_WAITING", 3)
    fan = TradeHub()
    with fan.subscribe(["BTCUSDT", "ETHUSDT"]) as slow, fan.subscribe(["BTCUSDT"]) as quick:
        for number in range(1, 6):
            fan.publish(trade(number))
            quick.drain()
        fan.publish(trade(1, "ETHUSDT"))
        assert slow.waiting == 3
        found = slow.drain(2)
        assert found.missed == [MissedTrades("BTCUSDT", 1, 3, 1_000, 3_000)]
        assert ids(found.ticks) == [4, 5]
        assert not slow.drain().missed
        assert (slow.evicted, quick.evicted) == (3, 0)


async def test_trades_that_did_not_come_are_told_to_whoever_listens() -> None:
    fan = TradeHub()
    with fan.subscribe(["BTCUSDT"]) as watch, fan.subscribe(["ETHUSDT"]) as other:
        fan.report_missed(MissedTrades("BTCUSDT", 5, 6, 10, 20))
        fan.report_missed(MissedTrades("BTCUSDT", 9, 9, 30, 30))
        assert watch.drain().missed == [MissedTrades("BTCUSDT", 5, 9, 10, 30)]
        assert not other.drain()


async def test_what_is_wanted_is_what_somebody_listens_to() -> None:
    fan = TradeHub()
    heard: list[frozenset[str]] = []
    fan.on_wanted = lambda: heard.append(fan.wanted)
    with fan.subscribe(["BTCUSDT"]) as first:
        with fan.subscribe(["BTCUSDT"]):
            fan.add_symbols(first, ["ETHUSDT"])
            assert fan.subscribers == 2
        assert fan.wanted == {"BTCUSDT", "ETHUSDT"}
        fan.remove_symbols(first, ["BTCUSDT"])
    assert heard == [{"BTCUSDT"}, {"BTCUSDT", "ETHUSDT"}, {"ETHUSDT"}, frozenset()]
    assert fan.subscribers == 0


async def test_the_newest_best_prices_come_first_and_replace_those_that_wait() -> None:
    fan = BookTickerHub(linger_s=100)
    with fan.subscribe(["BTCUSDT"]) as watch:
        fan.publish(quote(1))
        fan.publish(quote(2))
        fan.publish(quote(7, "ETHUSDT"))
        assert watch.drain().ticks == [quote(2)]
        assert watch.conflated == 1
        assert fan.newest("ETHUSDT") is None
        with fan.subscribe(["BTCUSDT"]) as late:
            found = await late.receive()
            assert found is not None
            assert found.ticks == [quote(2)]


async def test_best_prices_linger_a_while_and_are_forgotten_then() -> None:
    fan = BookTickerHub(linger_s=0.05)
    with fan.subscribe(["BTCUSDT"]):
        fan.publish(quote(1))
    assert fan.wanted == {"BTCUSDT"}
    fan.publish(quote(2))
    assert fan.newest("BTCUSDT") == quote(2)
    heard = asyncio.Event()
    fan.on_wanted = heard.set
    async with asyncio.timeout(10):
        await heard.wait()
    assert not fan.wanted
    assert fan.newest("BTCUSDT") is None


async def test_there_is_an_end_to_symbols_whose_best_prices_are_streamed() -> None:
    fan = BookTickerHub(max_symbols=2, linger_s=100)
    with fan.subscribe(["A"]) as watch:
        with fan.subscribe(["B"]):
            with pytest.raises(FullError, match=r"2 symbols are streamed .* 1 more .* 2 at most"):
                fan.add_symbols(watch, ["C"])
            assert watch.symbols == {"A"}
        fan.add_symbols(watch, ["C"])  # nobody listens to B any more
        assert fan.wanted == {"A", "C"}


async def test_a_reader_that_waits_hears_the_end() -> None:
    fan = TradeHub()
    watch = fan.subscribe(["BTCUSDT"])
    waiting = asyncio.create_task(watch.receive())
    await asyncio.sleep(0)
    watch.unsubscribe()
    async with asyncio.timeout(10):
        assert await waiting is None
    watch.unsubscribe()
    assert not fan.wanted


async def test_best_prices_of_a_symbol_that_was_dropped_are_not_the_present_ones() -> None:
    fan = BookTickerHub()
    with fan.subscribe(["BTCUSDT", "ETHUSDT"]):
        fan.publish(quote(1))
        fan.publish(quote(2, "ETHUSDT"))
        fan.forget(["BTCUSDT", "NONE"])
        assert fan.newest("BTCUSDT") is None
        with fan.subscribe(["BTCUSDT", "ETHUSDT"]) as late:
            assert [one.symbol for one in late.drain().ticks] == ["ETHUSDT"]
            fan.publish(quote(3))  # streamed again
            assert late.drain().ticks == [quote(3)]
