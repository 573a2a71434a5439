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
    with fan.watch(["BTCUSDT"]) as watch:
        fan.put(trade(1))
        fan.put(trade(2, "ETHUSDT"))
        fan.put(trade(3))
        found = await watch.next()
        assert found is not None
        assert ids(found.ticks) == [1, 3]
        assert not watch.take()
        fan.extend(watch, ["ETHUSDT"])
        fan.put(trade(4, "ETHUSDT"))
        fan.put(trade(5))
        fan.reduce(watch, ["ETHUSDT"])
        assert ids(watch.take().ticks) == [5]


async def test_trades_that_a_reader_is_too_slow_for_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_TRADES_WAITING", 3)
    fan = TradeHub()
    with fan.watch(["BTCUSDT", "ETHUSDT"]) as slow, fan.watch(["BTCUSDT"]) as quick:
        for number in range(1, 6):
            fan.put(trade(number))
            quick.take()
        fan.put(trade(1, "ETHUSDT"))
        assert slow.waiting == 3
        found = slow.take(2)
        assert found.missed == [MissedTrades("BTCUSDT", 1, 3, 1_000, 3_000)]
        assert ids(found.ticks) == [4, 5]
        assert not slow.take().missed
        assert (slow.dropped, quick.dropped) == (3, 0)


async def test_trades_that_did_not_come_are_told_to_whoever_listens() -> None:
    fan = TradeHub()
    with fan.watch(["BTCUSDT"]) as watch, fan.watch(["ETHUSDT"]) as other:
        fan.miss(MissedTrades("BTCUSDT", 5, 6, 10, 20))
        fan.miss(MissedTrades("BTCUSDT", 9, 9, 30, 30))
        assert watch.take().missed == [MissedTrades("BTCUSDT", 5, 9, 10, 30)]
        assert not other.take()


async def test_what_is_wanted_is_what_somebody_listens_to() -> None:
    fan = TradeHub()
    heard: list[frozenset[str]] = []
    fan.on_wanted = lambda: heard.append(fan.wanted)
    with fan.watch(["BTCUSDT"]) as first:
        with fan.watch(["BTCUSDT"]):
            fan.extend(first, ["ETHUSDT"])
            assert fan.watches == 2
        assert fan.wanted == {"BTCUSDT", "ETHUSDT"}
        fan.reduce(first, ["BTCUSDT"])
    assert heard == [{"BTCUSDT"}, {"BTCUSDT", "ETHUSDT"}, {"ETHUSDT"}, frozenset()]
    assert fan.watches == 0


async def test_the_newest_best_prices_come_first_and_replace_those_that_wait() -> None:
    fan = BookTickerHub(linger_s=100)
    with fan.watch(["BTCUSDT"]) as watch:
        fan.put(quote(1))
        fan.put(quote(2))
        fan.put(quote(7, "ETHUSDT"))
        assert watch.take().ticks == [quote(2)]
        assert watch.conflated == 1
        assert fan.newest("ETHUSDT") is None
        with fan.watch(["BTCUSDT"]) as late:
            found = await late.next()
            assert found is not None
            assert found.ticks == [quote(2)]


async def test_best_prices_linger_a_while_and_are_forgotten_then() -> None:
    fan = BookTickerHub(linger_s=0.05)
    with fan.watch(["BTCUSDT"]):
        fan.put(quote(1))
    assert fan.wanted == {"BTCUSDT"}
    fan.put(quote(2))
    assert fan.newest("BTCUSDT") == quote(2)
    heard = asyncio.Event()
    fan.on_wanted = heard.set
    async with asyncio.timeout(10):
        await heard.wait()
    assert not fan.wanted
    assert fan.newest("BTCUSDT") is None


async def test_there_is_an_end_to_symbols_whose_best_prices_are_streamed() -> None:
    fan = BookTickerHub(max_symbols=2, linger_s=100)
    with fan.watch(["A"]) as watch:
        with fan.watch(["B"]):
            with pytest.raises(FullError, match=r"2 symbols are streamed .* 1 more .* 2 at most"):
                fan.extend(watch, ["C"])
            assert watch.symbols == {"A"}
        fan.extend(watch, ["C"])  # nobody listens to B any more
        assert fan.wanted == {"A", "C"}


async def test_a_reader_that_waits_hears_the_end() -> None:
    fan = TradeHub()
    watch = fan.watch(["BTCUSDT"])
    waiting = asyncio.create_task(watch.next())
    await asyncio.sleep(0)
    watch.leave()
    async with asyncio.timeout(10):
        assert await waiting is None
    watch.leave()
    assert not fan.wanted


async def test_best_prices_of_a_symbol_that_was_dropped_are_not_the_present_ones() -> None:
    fan = BookTickerHub()
    with fan.watch(["BTCUSDT", "ETHUSDT"]):
        fan.put(quote(1))
        fan.put(quote(2, "ETHUSDT"))
        fan.drop(["BTCUSDT", "NONE"])
        assert fan.newest("BTCUSDT") is None
        with fan.watch(["BTCUSDT", "ETHUSDT"]) as late:
            assert [one.symbol for one in late.take().ticks] == ["ETHUSDT"]
            fan.put(quote(3))  # streamed again
            assert late.take().ticks == [quote(3)]
